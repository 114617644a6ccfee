"""The contracts are open to new ideas: all parts below are defined only in this file.

A posterior that is not Gaussian, a mixture prior with learned components, an importance-weighted
objective, an aggressive training procedure and a GRU decoder are trained, resumed, evaluated and
sampled from, in a text model.
"""

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import step_noise
from torch import Tensor, nn

import textvae
from textvae.builders.model import build_objective
from textvae.config.experiment import (
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    TrainConfig,
)
from textvae.config.inference import Inference
from textvae.evaluation.comparison.provenance import provenance
from textvae.text.nn.encoder import LSTMEncoder
from textvae.training.own_checks import check_objective
from textvae.training.own_parts import own_parts
from textvae.training.procedures import build_procedure
from textvae.vae.batch import Batch, numbered
from textvae.vae.contracts import Noise, Posterior, Terms
from textvae.vae.heads import make_head
from textvae.vae.inference import infer
from textvae.vae.modes import _FastAttention
from textvae.vae.posteriors import DiagGaussian, check_posterior, closed_kl, kl
from textvae.vae.vae import VAE


class Logistic(NamedTuple):
    """q(z|x) with independent logistic noise: not Gaussian, and without a closed-form KL."""

    location: Tensor  # (B, Z)
    log_scale: Tensor  # (B, Z)

    def rsample(self, samples: int = 1, noise: Noise | None = None) -> Tensor:
        """The location plus scale * log(u / (1 - u))."""
        if noise is None:
            u = torch.rand(samples, *self.location.shape, dtype=self.location.dtype)
        else:
            u = noise.uniform(samples, self.location.size(-1)).to(self.location)
        u = u.clamp(1e-6, 1 - 1e-6)
        return self.location + self.log_scale.exp() * (u.log() - (-u).log1p())

    def log_prob(self, z: Tensor) -> Tensor:
        """Minus t - 2 log(1 + exp(-t)) - log scale, summed over dimensions."""
        t = (z - self.location) / self.log_scale.exp()
        return (-t - 2 * nn.functional.softplus(-t) - self.log_scale).sum(-1)

    def center(self) -> Tensor:
        """The locations."""
        return self.location


class LogisticHead(nn.Linear):
    """Features to a logistic posterior."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__(features, 2 * latent_dim)

    def forward(self, features: Tensor) -> Logistic:
        return Logistic(*super().forward(features).float().chunk(2, dim=-1))


class MixturePrior(nn.Module):
    """p(z) = mean over components of N(mean_c, diag(exp(logvar_c))), all of it learned."""

    def __init__(self, latent_dim: int, components: int = 3) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.means = nn.Parameter(torch.randn(components, latent_dim))
        self.logvars = nn.Parameter(torch.zeros(components, latent_dim))

    def log_prob(self, z: Tensor) -> Tensor:
        offsets = z[..., None, :] - self.means  # (..., C, Z)
        squared = offsets.square() * (-self.logvars).exp()
        each = -0.5 * (squared + self.logvars + math.log(2 * math.pi)).sum(-1)
        return each.logsumexp(-1) - math.log(len(self.means))

    def sample(self, count: int, noise: Noise | None = None) -> Tensor:
        chosen = torch.arange(count) % len(self.means)
        eps = torch.randn(1, count, self.latent_dim)
        eps = eps if noise is None else noise.normal(1, self.latent_dim)
        return self.means[chosen] + (0.5 * self.logvars[chosen]).exp() * eps[0].to(self.means)


class GRUStepper:
    """A GRU decoder one token at a time."""

    def __init__(self, decoder: "GRUDecoder", z: Tensor) -> None:
        self.decoder, self.z, self.size = decoder, z, len(z)
        self.h = torch.tanh(decoder.start(z))

    def step(self, tokens: Tensor) -> Tensor:
        inputs = torch.cat([self.decoder.embedding(tokens), self.z], dim=-1)
        self.h = self.decoder.gru(inputs[None], self.h[None])[1][0]
        return self.decoder.output(self.h)

    def keep(self, rows: Tensor) -> None:
        self.z, self.h, self.size = self.z[rows], self.h[rows], len(rows)

    def move(self, rows: Tensor) -> None:
        self.h = self.h[rows]


class GRUDecoder(nn.Module):
    """p(x|z) by a GRU that reads z at every time step."""

    def __init__(self, vocab_size: int, latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden)
        self.start = nn.Linear(latent_dim, hidden)
        self.gru = nn.GRU(hidden + latent_dim, hidden)
        self.output = nn.Linear(hidden, vocab_size)

    def log_prob(self, batch: Batch, z: Tensor) -> Tensor:
        samples, size, _ = z.shape
        tokens = batch.x.t().repeat(1, samples)  # (T+1, K*B)
        z = z.reshape(samples * size, -1)
        inputs = torch.cat([self.embedding(tokens[:-1]), z.expand(len(tokens) - 1, -1, -1)], dim=-1)
        features, _ = self.gru(inputs, torch.tanh(self.start(z))[None])
        log_p = self.output(features).float().log_softmax(-1)
        chosen = log_p.gather(2, tokens[1:, :, None])[..., 0] * (tokens[1:] != 0)
        return chosen.sum(0).view(samples, size)

    def stepper(self, z: Tensor) -> GRUStepper:
        return GRUStepper(self, z)


def iwae(terms: Terms, beta: float) -> Tensor:
    """The importance-weighted bound of all draws as a loss (Burda et al. 2016)."""
    log_weight = terms.log_px + beta * (terms.log_pz - terms.log_qz)
    return (math.log(len(log_weight)) - log_weight.logsumexp(0)).mean()


class Aggressive:
    """Trains only the encoder until its loss stops falling, then everything (He et al. 2019)."""

    def __init__(self, most: int = 4) -> None:
        self.most, self.inner = most, 0

    def update(self, step, next_batches, updater) -> None:
        before = math.inf
        for turn in range(1, self.most + 1):
            only = [updater.model.encoder]
            loss = float(updater.update(next_batches(), step, turn=turn, only=only))
            self.inner += 1
            if loss >= before:
                break
            before = loss
        updater.update(next_batches(), step)

    def state_dict(self) -> dict[str, int]:
        return {"inner": self.inner}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.inner = state["inner"]


class Unusual(textvae.TextVAE):
    """A text model with every part replaced."""

    def make_encoder(self, config):
        return LSTMEncoder(
            config["vocab_size"],
            partial(LogisticHead, latent_dim=config["latent_dim"]),
            config["embedding_dim"],
            config["encoder_hidden"],
        )

    def make_decoder(self, config):
        return GRUDecoder(config["vocab_size"], config["latent_dim"], config["decoder_hidden"])

    def make_prior(self, config):
        return MixturePrior(config["latent_dim"])


def config_for(corpus: Path, **train) -> Config:
    return Config(
        data=DataConfig(dir=str(corpus), tokenized=True, batch_size=16),
        model=ModelConfig(latent_dim=4, embedding_dim=8, encoder_hidden=12, decoder_hidden=12),
        objective=ObjectiveConfig(samples=3),
        optim=OptimConfig(name="adam", lr=0.01, schedule="constant"),
        train=TrainConfig(**{"epochs": 2, "precision": "fp32", "samples": 2, "threads": 1} | train),
    )


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    """A finished run of the unusual model."""
    out = tmp_path_factory.mktemp("contracts") / "run"
    parts = {"model_class": Unusual, "objective": iwae, "procedure": Aggressive()}
    trained = textvae.train(config_for(corpus), out, **parts)
    assert isinstance(trained, Unusual)
    assert isinstance(trained.posterior(next(iter(trained.batches(["a cat"], 1)))), Logistic)
    return out


def test_what_comes_next_is_what_a_class_of_ones_own_can_do(corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    textvae.train(config_for(corpus, max_steps=1), tmp_path / "run", model_class=Unusual)
    assert f"next: textvae evaluate {tmp_path / 'run'} --own-model" in caplog.text
    assert "test_contracts.py:Unusual" in caplog.text


def test_it_resumes_bit_for_bit(run, corpus, tmp_path):
    out, parts = tmp_path / "run", {"model_class": Unusual, "objective": iwae}
    textvae.train(config_for(corpus, max_steps=5), out, procedure=Aggressive(), **parts)
    procedure = Aggressive()
    textvae.train(config_for(corpus), out, resume=True, procedure=procedure, **parts)
    assert procedure.inner > 12  # more updates of the encoder than steps
    states = [
        torch.load(folder / "checkpoint" / "state.pt", weights_only=True) for folder in (run, out)
    ]
    assert states[0]["procedure"] == states[1]["procedure"]
    for name, weight in states[0]["model"].items():
        assert torch.equal(weight, states[1]["model"][name]), name


def test_every_part_was_trained(run, corpus):
    model = Unusual.from_pretrained(run)
    torch.manual_seed(0)
    fresh = Unusual(**model.config)
    for name, weight in fresh.named_parameters():
        if name.startswith("prior"):
            assert not torch.allclose(dict(model.named_parameters())[name], weight)
    state = torch.load(run / "checkpoint" / "state.pt", weights_only=True)
    moments = state["optimizer"]["state"]
    assert len(moments) == len(list(model.parameters()))  # every parameter was updated


def test_it_is_evaluated_and_the_card_says_that_the_kl_is_estimated(run):
    model = Unusual.from_pretrained(run)
    card = textvae.evaluate_run(run, model=model, samples=20, generations=5)
    assert card["kl_estimated"] is True and card["kl_per_dim"] is None
    assert card["elbo"] <= card["iw"]
    assert card["kl"] == pytest.approx(card["mi"] + card["marginal_kl"])
    assert -4 * card["mi_se"] <= card["mi"] <= card["mi_max"]
    assert card["latent_dim"] == 4
    assert "estimated" in str(card)
    assert json.loads((run / "metrics" / "test.json").read_text())["kl"] == card["kl"]
    again = textvae.evaluate_run(run, model=model, samples=20, generations=5, batch_size=3)
    assert again["iw"] == pytest.approx(card["iw"], rel=1e-5)
    assert again["mi"] == pytest.approx(card["mi"], rel=1e-4)


def test_it_encodes_samples_and_interpolates(run):
    model = Unusual.from_pretrained(run)
    sentences = model.sample(5, seed=1)
    assert len(sentences) == 5 and sentences == model.sample(5, seed=1, batch_size=2)
    assert model.sample(2, num_beams=3)
    q = model.encode(["the cat sees the tree", "a dog likes the house"])
    assert isinstance(q, Logistic) and q.location.shape == (2, 4)
    assert isinstance(q, Posterior)
    assert len(model.reconstruct(["the cat sees the tree"], use="sample")) == 1
    assert len(model.interpolate("the cat sees the tree", "a dog", steps=4)) == 4


def test_it_can_be_refined(run):
    model = Unusual.from_pretrained(run)
    card = textvae.evaluate_run(run, model=model, samples=20, refine_steps=5, generations=0)
    assert card["refine_steps"] == 5 and len(card["elbo_by_step"]) == 6
    plain, refined = (model.encode(["a cat sees"], refine_steps=n) for n in (0, 5))
    assert not torch.equal(plain.location, refined.location)


# Semi-amortized training of a posterior and a prior that refinement knows nothing about.

EXACT = Inference(
    "semi_amortized", steps=3, lr=0.2, hvp="exact", decoder_terms="all", max_growth=0.0, clip=0.5
)


class Bags(nn.Module):
    """Word counts given z."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 7))

    def log_prob(self, batch: Batch, z: Tensor) -> Tensor:
        return (batch.x * self.net(z).log_softmax(-1)).sum(-1)


class Features(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = LogisticHead(7, 3)

    def forward(self, batch: Batch) -> Logistic:
        return Logistic(*nn.Linear.forward(self.head, batch.x).chunk(2, dim=-1))


def unrolled(model, batch, noise, beta):
    """The steps written out, for autograd to differentiate twice."""
    point = list(model.posterior(batch))
    velocity = [torch.zeros_like(part) for part in point]
    for source in noise:
        q = Logistic(*point)
        z = q.rsample(1, source)
        loss = beta * kl(q, model.prior, z).sum(-1) - model.decoder.log_prob(batch, z)[0]
        found = torch.autograd.grad(loss.sum() / len(batch), point, create_graph=True)
        for i, gradient in enumerate(found):
            norm = gradient.norm()
            clipped = torch.where(norm > EXACT.clip, gradient * EXACT.clip / norm, gradient)
            velocity[i] = EXACT.momentum * velocity[i] - clipped
            point[i] = point[i] + EXACT.lr * velocity[i]
    return Logistic(*point)


@pytest.mark.parametrize("terms", ["all", "none"])
def test_gradients_through_the_steps_are_exact_for_any_posterior_and_prior(terms):
    torch.manual_seed(0)
    model = VAE(Features(), Bags(), MixturePrior(3)).double()
    x = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)).double() * 6
    batch, beta = Batch(x), 0.8
    draws = torch.rand(3, 5, 3, generator=torch.Generator().manual_seed(2)).double()
    options = replace(EXACT, decoder_terms=terms)

    def gradients(q):
        model.zero_grad()
        torch.manual_seed(5)
        z = q.rsample()
        bound = beta * kl(q, model.prior, z).sum(-1) - model.log_likelihood(batch, z)[0]
        bound.mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    ours = gradients(infer(model, batch, options, beta, step_noise(draws)).posterior)
    exact = gradients(unrolled(model, batch, step_noise(draws), beta))
    encoder = [name for name in exact if name.startswith("encoder")]
    for name in exact if terms == "all" else encoder:
        assert torch.allclose(ours[name], exact[name], rtol=1e-9, atol=1e-12), name
    if terms == "none":
        assert not torch.allclose(ours["prior.means"], exact["prior.means"])


def test_the_logistic_posterior_has_no_closed_form():
    q = Logistic(torch.zeros(2, 3), torch.zeros(2, 3))
    assert closed_kl(q, MixturePrior(3)) is None


class Mistaken(Logistic):
    """A posterior that breaks one rule."""

    rule = ""

    def rsample(self, samples=1, noise=None):
        if self.rule == "noise" and noise is not None:
            raise TypeError("rsample() takes from 1 to 2 positional arguments but 3 were given")
        z = super().rsample(1 if self.rule == "samples" else samples, noise)
        return z.detach() if self.rule == "detached" else z

    def log_prob(self, z):
        found = super().log_prob(z)
        return found.sum() if self.rule == "log_prob" else found

    def center(self):
        center = super().center()
        return center[:, :-1] if self.rule == "center" else center

    def kl_to(self, other):
        return {"kl": self[0].sum(1), "scalar": self[0].sum()}.get(self.rule)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("noise", r"rsample must take samples and noise \(rsample"),
        ("samples", r"rsample\(3, noise\) must return \(3, 2, 3\), not \(1, 2, 3\)"),
        ("detached", "rsample must be reparameterized"),
        ("log_prob", r"log_prob of z \(K, B, Z\) must return \(3, 2\), not \(\)"),
        ("center", r"center must return \(2, 3\), not \(2, 2\)"),
    ],
)
def test_rules_of_a_posterior(monkeypatch, rule, said):
    monkeypatch.setattr(Mistaken, "rule", rule)
    q = Mistaken(torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=said):
        check_posterior(q, 3)
    monkeypatch.setattr(Mistaken, "rule", "")
    check_posterior(q, 3)


@pytest.mark.parametrize("rule", ["kl", "scalar"])
def test_a_kl_of_another_shape_is_refused(monkeypatch, rule):
    monkeypatch.setattr(Mistaken, "rule", rule)
    q = Mistaken(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"kl_to must return .* \(2, 3\) or \(2, 1\), not"):
        closed_kl(q, MixturePrior(3))


def test_a_posterior_of_ones_own_is_checked_before_training(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(Logistic, "center", lambda self: self[0][:1])
    with pytest.raises((textvae.UserError, ValueError), match=r"center|1 examples"):
        textvae.train(config_for(corpus), tmp_path / "run", model_class=Unusual)
    assert not (tmp_path / "run" / "config.yaml").exists()


def scaled(terms, beta, scale=1.0):
    return textvae.elbo(terms, beta * scale)


def name_of(objective, model=None) -> str | None:
    """What a run records about an objective."""
    return own_parts(model or textvae.TextVAE(**SIZES), objective=objective).get("objective")


class Target:
    """|KL - target|, with the steps done as its state."""

    def __init__(self, target: float, inner=textvae.elbo) -> None:
        self.target, self.inner, self.steps = target, inner, 0

    def __call__(self, terms, beta):
        return self.inner(terms, 0.0) + (terms.kl.sum(-1).mean() - self.target).abs()


class CountsCalls(Target):
    """Logs how often it was called."""

    def __call__(self, terms, beta):
        self.steps += 1
        return super().__call__(terms, beta)

    def log_values(self):
        return {"calls": self.steps}


def test_an_objective_can_log(corpus, tmp_path):
    config = config_for(corpus, max_steps=4, log_every=2)
    textvae.train(config, tmp_path / "run", objective=CountsCalls(2.0))
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["objective_calls"] for row in rows if row["group"] == "train"] == [2, 4]
    config = replace(config, objective=replace(config.objective, min_kl=3.0))
    textvae.train(config, tmp_path / "mdr")
    rows = [json.loads(line) for line in (tmp_path / "mdr/metrics.jsonl").read_text().splitlines()]
    multipliers = [row["objective_multiplier"] for row in rows if row["group"] == "train"]
    assert len(multipliers) == 2 and 0 < multipliers[0] < multipliers[1]


def make_scaled(scale):
    def inner(terms, beta):
        return scaled(terms, beta, scale)

    return inner


def test_what_an_objective_was_made_with_is_part_of_its_name():
    assert own_parts(textvae.TextVAE(**SIZES)) == {}
    assert name_of(Target(2.0)).endswith(".Target(inner=textvae.vae.objectives.elbo, target=2.0)")
    assert name_of(make_scaled(3.0)).endswith("make_scaled.<locals>.inner(scale=3.0)")
    within = textvae.WithMMD(Target(2.0), 1.5)  # ours, but not what the config asks for
    assert "WithMMD(objective=" in name_of(within) and "target=2.0" in name_of(within)
    assert name_of(textvae.iwae) == "textvae.vae.objectives.iwae"


class Unnormalized(textvae.TextVAE):
    """Without the constant of N(0, I)."""

    def make_prior(self, config):
        prior = textvae.StandardNormal(config["latent_dim"])

        class Own(textvae.StandardNormal):
            def log_prob(self, z):
                return -0.5 * z.square().sum(-1)

        return Own(prior.latent_dim)


def test_a_prior_of_ones_own_is_checked_before_training(corpus, tmp_path):
    with pytest.raises(textvae.UserError, match="Own: log_prob is too high, by"):
        textvae.train(config_for(corpus), tmp_path / "run", model_class=Unnormalized)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_negative_kl_has_a_warning(caplog):
    model, x = Unnormalized(**SIZES), torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]])
    batches = [Batch(x, torch.tensor([3, 3]), index=torch.tensor([i, i + 1])) for i in (0, 2, 4)]
    with torch.no_grad():
        for parameter in model.encoder.head.parameters():
            parameter.zero_()  # q is N(0, I)
    textvae.evaluate(model, batches, samples=20)
    assert "the KL is negative (-1.8" not in caplog.text  # six examples may be chance
    batches = [replace(batches[0], index=torch.tensor([i, i + 1])) for i in range(0, 12, 2)]
    textvae.evaluate(model, batches, samples=20)
    assert "the KL is negative (-1.8" in caplog.text


class WithNumber(textvae.TextVAE):
    def __init__(self, number: int = 1, **options) -> None:
        super().__init__(**options)
        self.number = number


def test_models_of_different_classes_are_not_seeds_of_one(corpus, tmp_path):
    runs = [tmp_path / name for name in ("a", "b", "c")]
    classes = (None, partial(WithNumber, number=2), partial(WithNumber, number=3))
    for seed, (run, kind) in enumerate(zip(runs, classes, strict=True)):
        model = textvae.train(config_for(corpus, max_steps=1, seed=seed), run, model_class=kind)
        textvae.evaluate_run(run, model=model, samples=1, generations=0)
    assert model.number == 3
    assert len(textvae.compare(runs, average_seeds=True).split("\n|")) == 5
    found = provenance(runs[1:])
    assert f"# {runs[1]}, trained with own model {__name__}.WithNumber(number=2)" in found
    assert f"# textvae.evaluate_run({str(runs[2])!r}, model=..., split='test', samples=1)" in found


def test_a_lambda_has_a_warning(caplog):
    check_objective(lambda terms, beta: textvae.elbo(terms, beta))
    assert "an objective that is a lambda looks like any other" in caplog.text


class Gated(textvae.SkipLSTMDecoder):
    """A parameter more, with a value of its own."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.gate = nn.Parameter(torch.full((2,), 2.0))


def test_parameters_of_a_subclass_keep_their_initial_values():
    class Model(textvae.TextVAE):
        def make_decoder(self, config):
            return Gated(config["vocab_size"], config["latent_dim"], embedding_dim=6, hidden_dim=5)

    model = Model(**SIZES, init_scale=0.01)
    assert model.decoder.gate.tolist() == [2.0, 2.0]
    assert float(model.decoder.output.weight.detach().abs().max()) <= 0.01


def test_arguments_of_an_objective_are_part_of_a_run(corpus, tmp_path, caplog):
    runs = [tmp_path / "a", tmp_path / "b"]
    for seed, (run, scale) in enumerate(zip(runs, (0.5, 2.0), strict=True)):
        config = config_for(corpus, max_steps=1, seed=seed)
        config = replace(config, objective=replace(config.objective, free_bits=4.0))
        textvae.train(config, run, objective=partial(scaled, scale=scale))
        textvae.evaluate_run(run, samples=1, generations=0)
    assert "--objective.free_bits: no effect on the loss, which is your own" in caplog.text
    network = partial(scaled, scale=2.0, network=nn.Linear(1, 1))
    assert name_of(network).endswith("scaled(network=<Linear>, scale=2.0)")
    several = partial(partial(scaled, torch.ones(2)), (1, None), scale=np.float64(2))
    assert name_of(several).endswith("scaled([1.0, 1.0], [1, None], scale=2.0)")
    with pytest.raises(textvae.UserError, match=r"scaled\(scale=0\.5\), and this would resume it"):
        textvae.train(
            config_for(corpus, max_steps=2),
            runs[0],
            resume=True,
            objective=partial(scaled, scale=9),
        )
    assert len(textvae.compare(runs, average_seeds=True).split("\n|")) == 4  # not averaged


class Counting:
    """An adaptive objective whose state is not for a checkpoint."""

    def __init__(self, state):
        self.state = state

    def __call__(self, terms, beta):
        return textvae.elbo(terms, beta)

    def after_update(self, mean): ...

    def state_dict(self):
        return self.state

    def load_state_dict(self, state): ...


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"objective": Counting({"a": np.float64(3)})},
            r"\['a'\] has the type float64, which",
        ),
        (
            {"objective": Counting({"a": [object()]})},
            "has the type object, which a checkpoint",
        ),
        ({"objective": Counting}, r"pass an object, Counting\(\.\.\.\)"),
        ({"objective": lambda terms: 0}, r"is called with \(terms, beta\): too many positional"),
        ({"model_class": torch.nn.Linear}, "pass a subclass of one of textvae's models"),
        ({"model_class": 3}, "model_class=3: pass a subclass"),
    ],
)
def test_parts_that_cannot_be_trained_are_refused_at_once(corpus, tmp_path, parts, said):
    with pytest.raises(TypeError, match=said):
        textvae.train(config_for(corpus), tmp_path / "run", **parts)
    assert not (tmp_path / "run" / "config.yaml").exists()


class Returnless(textvae.TextVAE):
    def make_encoder(self, config):
        super().make_encoder(config)


def test_a_part_that_is_not_returned():
    with pytest.raises(TypeError, match="make_encoder returned None: return the encoder"):
        Returnless(**SIZES)
    with pytest.raises(TypeError, match="the decoder is None: pass a module with log_prob"):
        textvae.VAE(None, None, 2)


def test_a_model_of_another_class_is_never_taken_for_a_standard_one(run, corpus):
    with pytest.raises(textvae.UserError, match=r"class Unusual, not TextVAE.*Unusual\.from_pre"):
        textvae.load(run)
    with pytest.raises(textvae.UserError, match="class Unusual"):
        textvae.evaluate_run(run, samples=2, generations=0)
    with pytest.raises(textvae.UserError, match="class Unusual"):
        textvae.train(config_for(corpus, epochs=3), run, resume=True)


def test_a_report_about_models_of_ones_own(run, language_model, tmp_path):
    out = tmp_path / "report.html"
    with pytest.raises(textvae.UserError, match="class Unusual"):
        textvae.report(run, out)
    with pytest.raises(textvae.UserError, match="models has 'elsewhere', which is none of the"):
        textvae.report(run, out, models={"elsewhere": Unusual.from_pretrained(run)})
    models = {run: Unusual.from_pretrained(run)}
    textvae.report([run, language_model], out, models=models, samples=2, limit=12)
    assert "Comparison of 2 runs" in out.read_text(encoding="utf-8")
    textvae.report(run, out, models=models)
    assert re.search("custom parts .class .*Unusual", out.read_text(encoding="utf-8"))


SIZES = {"vocab_size": 10, "latent_dim": 2, "embedding_dim": 4, "encoder_hidden": 4}
SIZES |= {"decoder_hidden": 4}


class WithAConstant(textvae.TextVAE):
    """A prior with values that are needed while it is made, and some that are not saved."""

    def __init__(self, width: float = 1.0, **arguments):
        self.width = width
        super().__init__(**arguments)

    def make_prior(self, config):
        prior = super().make_prior(config)
        prior.register_buffer("constant", torch.ones(1), persistent=False)
        prior.scale = torch.linspace(0, self.width, 3)
        prior.steps = prior.scale.tolist()
        return prior

    def make_decoder(self, config):
        decoder = super().make_decoder(config)
        decoder.norm = torch.nn.LayerNorm(2)
        return decoder


def test_own_parts_come_back_with_their_values(tmp_path):
    model = WithAConstant(width=3.0, **SIZES)
    model.tokenizer = textvae.WordTokenizer(list("abcdef"))
    model.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    again = WithAConstant.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.prior.constant == 1 and again.prior.steps == [0.0, 1.5, 3.0]
    assert again.prior.scale.tolist() == again.prior.steps and again.width == 3.0
    with pytest.raises(textvae.UserError, match=r"class WithAConstant, not TextVAE"):
        textvae.load(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**model.config, "widht": 1.0}))
    with pytest.raises(textvae.UserError, match="has no option 'widht'"):
        WithAConstant.from_pretrained(tmp_path)


class OwnDecoder(torch.nn.Module):
    """Words that do not depend on each other."""

    def __init__(self, vocab_size: int, latent_dim: int, shape: str = "right"):
        super().__init__()
        self.shape, self.norm = shape, torch.nn.LayerNorm(latent_dim)
        self.output = torch.nn.Linear(latent_dim, vocab_size)

    def log_prob(self, batch, z):
        words = self.output(self.norm(z)).log_softmax(-1)  # (K, B, V)
        targets = batch.x[:, 1:].expand(len(z), -1, -1)
        scores = words.gather(2, targets) * (targets != 0)
        return {"right": scores.sum(-1), "by word": scores, "flat": scores.sum(-1)[0]}[self.shape]


class Flat(textvae.TextVAE):
    """A decoder that cannot generate."""

    def make_decoder(self, config):
        return OwnDecoder(config["vocab_size"], config["latent_dim"])


def test_own_parts_keep_their_initial_values():
    model = Flat(**SIZES)
    assert torch.equal(model.decoder.norm.weight, torch.ones(2))
    assert float(model.encoder.embedding.weight.detach().abs().max()) <= 0.1


@pytest.mark.parametrize("shape", ["by word", "flat"])
def test_a_log_density_of_another_shape_is_refused(shape):
    model = Flat(**SIZES)
    model.decoder.shape = shape
    batch = textvae.Batch(torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]]), torch.tensor([3, 3]))
    with pytest.raises(ValueError, match=r"decoder's log_prob must return .* \(1, 2\), not"):
        model(batch)


def test_a_decoder_that_cannot_generate_is_trained_and_evaluated(corpus, tmp_path):
    model = textvae.train(config_for(corpus), tmp_path / "run", model_class=Flat)
    card = textvae.evaluate_run(tmp_path / "run", model=model, samples=2)
    assert "bleu" not in card and card["elbo"] < 0
    assert "class `Flat`)" in (tmp_path / "run" / "README.md").read_text()


class HalfOfX(nn.Module):
    """q(z|x), and p(x|z), without a single parameter."""

    def forward(self, batch):
        return DiagGaussian(batch.x / 2, torch.full_like(batch.x, -0.69))

    def log_prob(self, batch, z):
        return torch.distributions.Normal(z, 1.0).log_prob(batch.x).sum(-1)


def test_a_model_without_parameters_is_measured():
    model, batches = VAE(HalfOfX(), HalfOfX(), prior=2), torch.randn(30, 2).split(10)
    card = textvae.evaluate(model, batches, samples=3)
    scores = textvae.score(model, batches, samples=3)
    assert card["elbo"] == pytest.approx(scores["elbo"].mean(), rel=1e-5)
    assert textvae.diagnose(model, batches).verdict


def test_a_posterior_of_another_size_than_the_prior_is_refused():
    with pytest.raises(ValueError, match="z has 2 dimensions in the encoder's posterior, but 1 in"):
        VAE(HalfOfX(), HalfOfX(), prior=1)(Batch(torch.randn(3, 2)))


def test_an_encoder_that_returns_no_posterior_is_refused():
    class Pair(nn.Module):
        def forward(self, batch):
            return batch.x.float(), batch.x.float()

    model = VAE(Pair(), nn.Identity(), prior=3)
    with pytest.raises(TypeError, match="returned a tuple, not a posterior"):
        textvae.evaluate(model, [torch.zeros(4, 3)])


def test_a_module_that_is_no_latent_model_is_refused():
    for measure in (textvae.evaluate, textvae.diagnose):
        with pytest.raises(TypeError, match="Linear has no prior, no posterior, no log_lik"):
            measure(nn.Linear(2, 2), [torch.zeros(4, 2)])


def test_refinement_says_that_it_needs_gradients():
    model, x = VAE(Features(), Bags(), prior=3), torch.rand(4, 7)
    for mode in (torch.no_grad(), torch.inference_mode()):
        refused = pytest.raises(RuntimeError, match=r"use torch\.no_grad\(\) instead")
        with mode, refused if torch.is_inference_mode_enabled() else nullcontext():
            infer(model, Batch(x), Inference("semi_amortized", steps=2))


def test_a_model_without_an_encoder_is_announced(caplog):
    textvae.evaluate(VAE(None, HalfOfX(), prior=2), torch.randn(30, 2).split(10), samples=3)
    assert "this model has no encoder" in caplog.text


def test_an_elbo_that_is_no_number_is_announced(caplog):
    textvae.evaluate(VAE(HalfOfX(), HalfOfX(), prior=2), [torch.full((30, 2), 1e30)], samples=3)
    assert "the ELBO of the model is -inf: its weights or its data are not finite" in caplog.text


def test_scores_of_a_model_in_half_precision():
    model = VAE(HalfOfX(), HalfOfX(), prior=2).bfloat16()
    scores = textvae.score(model, torch.randn(8, 2).bfloat16().split(4), samples=3)
    assert all(column.dtype.itemsize >= 4 for column in scores.values())


def test_the_batches_of_any_loader():
    inputs = torch.randn(10, 3)
    tensors = torch.utils.data.TensorDataset(inputs, torch.arange(10))
    loaders = [
        [Batch(inputs[:6]), Batch(inputs[6:], index=torch.arange(6, 10))],
        list(inputs.split(6)),
        torch.utils.data.DataLoader(tensors, batch_size=6),
        [part.numpy() for part in inputs.split(6)],
    ]
    found = [list(numbered(loader)) for loader in loaders]
    for batches in found:
        assert [batch.index.tolist() for batch in batches] == [[*range(6)], [*range(6, 10)]]
        assert torch.equal(torch.cat([batch.x for batch in batches]), inputs)
    with pytest.raises(TypeError, match="not a single Tensor"):
        list(numbered(inputs))
    with pytest.raises(TypeError, match=r"not str: .*; a text model makes them: model.counted_b"):
        list(numbered(["a sentence"]))


class Adapting:
    """An objective that could not be resumed."""

    def __call__(self, terms, beta):
        return -terms.elbo.mean()

    def after_update(self, mean):
        pass


class Forgetful:
    """A procedure that could not be resumed."""

    def update(self, step, next_batches, updater):
        updater.update(next_batches(), step)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"objective": Adapting()}, "after_update also needs state_dict and load_state_dict"),
        ({"objective": 3}, "an objective is a function, not int"),
        ({"procedure": Forgetful()}, "the procedure has no state_dict, no load_state_dict"),
    ],
)
def test_parts_that_could_not_be_resumed_are_refused_at_once(part, message, corpus, tmp_path):
    with pytest.raises(TypeError, match=message):
        textvae.train(config_for(corpus), tmp_path / "run", **part)


def my_objective(terms, beta):
    return -terms.elbo.mean()


def test_a_run_goes_on_with_its_own_objective_only(corpus, tmp_path):
    run = tmp_path / "run"
    textvae.train(config_for(corpus, max_steps=2), run, objective=my_objective)
    longer = config_for(corpus, max_steps=4)
    with pytest.raises(textvae.UserError, match=r"trained with .*my_objective, and this"):
        textvae.train(longer, run, resume=True)
    textvae.train(longer, run, resume=True, objective=my_objective)
    with pytest.raises(textvae.UserError, match="trained with the procedure of its config, and"):
        textvae.train(longer, run, resume=True, objective=my_objective, procedure=Remembering())


class Remembering(Forgetful):
    """A procedure with the whole contract."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_training_works_outside_of_the_main_thread(corpus, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        model = pool.submit(
            textvae.train, config_for(corpus, max_steps=2), tmp_path / "run"
        ).result()
    assert model.latent_dim == 4


def test_a_kind_that_nothing_builds_is_an_error():
    arguments = {"latent_dim": 2, "prior": "student"}
    with pytest.raises(ValueError, match="unknown prior 'student'"):
        Flat(**SIZES).make_prior(arguments)
    with pytest.raises(ValueError, match="unknown posterior 'laplace'"):
        make_head(3, 2, posterior="laplace")
    config = textvae.Config()
    with pytest.raises(ValueError, match="unknown bound 'renyi'"):
        build_objective(replace(config, objective=ObjectiveConfig(bound="renyi")))
    with pytest.raises(ValueError, match="unknown procedure 'alternate'"):
        build_procedure(replace(config, train=TrainConfig(procedure="alternate")))


def test_z_must_be_finite():
    model = Flat(**SIZES)
    with pytest.raises(textvae.UserError, match="z has values that are not finite"):
        model.check_z(torch.tensor([[0.0, math.nan]]))


class Halved(torch.nn.Module):
    """An encoder that computes its posterior in the precision of autocast."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)

    def forward(self, batch):
        return DiagGaussian(*self.linear(batch.x).chunk(2, dim=-1))


def test_a_posterior_is_in_full_precision_under_autocast():
    model = VAE(Halved(), Halved(), prior=2)
    batch = Batch(torch.randn(5, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encoder(batch).mean.dtype == torch.bfloat16
        q = model.posterior(batch)
        assert q.mean.dtype == q.logvar.dtype == torch.float32
    assert model.double().posterior(Batch(batch.x.double())).mean.dtype == torch.float64


class SelfAttentive(textvae.TextVAE):
    """A text model whose encoder is a Transformer of torch's own."""

    class Encoder(torch.nn.Module):
        def __init__(self, vocab, latent_dim):
            super().__init__()
            self.embed = torch.nn.Embedding(vocab, 8)
            layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.body = torch.nn.TransformerEncoder(layer, 1)
            self.head = torch.nn.Linear(8, 2 * latent_dim)

        def forward(self, batch):
            hidden = self.body(self.embed(batch.x), src_key_padding_mask=batch.x == 0)
            mean, logvar = self.head(hidden[:, 0]).float().chunk(2, -1)
            return DiagGaussian(mean, logvar)

    def make_encoder(self, config):
        return self.Encoder(config["vocab_size"], config["latent_dim"])


def test_fast_attention_is_on_again_after_the_last_of_several_threads():
    before = torch.backends.mha.get_fastpath_enabled()
    first, second = _FastAttention.off(), _FastAttention.off()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.mha.get_fastpath_enabled()
    second.__exit__(None, None, None)
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # of the fast path
def test_a_transformer_encoder_is_trained_in_half_precision(corpus, tmp_path):
    """Under autocast, the fast path that torch takes in evaluation mode fails on a CPU."""
    fast = torch.backends.mha.get_fastpath_enabled()
    config = config_for(corpus, precision="bf16", epochs=1)
    model = textvae.train(config, tmp_path / "run", model_class=SelfAttentive)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    card = textvae.evaluate_run(tmp_path / "run", model=model, precision="bf16", generations=0)
    assert math.isfinite(card["iw"])
