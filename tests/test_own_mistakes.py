"""Mistakes in parts of one's own that would go unnoticed, and what is said about them."""

import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import textvae
from textvae.errors import UserError
from textvae.evaluation.comparison.seeds import experiments_of
from textvae.training.interrupt import Interrupted
from textvae.training.procedures import Joint
from textvae.vae.priors import check_density

sys.path.append(str(Path(__file__).parent.parent / "examples"))
from your_own_text_model import FlowPrior

SIZES = {"latent_dim": 4, "embedding_dim": 8, "encoder_hidden": 8, "decoder_hidden": 8}


@pytest.fixture(scope="module")
def config(corpus):
    return textvae.Config.load(
        data={"dir": str(corpus), "tokenized": True},
        model=SIZES,
        train={"max_steps": 3, "samples": 0, "threads": 1, "precision": "fp32"},
    )


class WrongFlow(nn.Module):
    """The log-determinant has the wrong sign, which the first weights hide: all scales are 1."""

    def __init__(self, latent_dim, weight=0.0):
        super().__init__()
        self.latent_dim = latent_dim
        self.weight = nn.Parameter(torch.full((latent_dim - 1,), weight))

    def sample(self, count, noise=None):
        u = noise.normal(1, self.latent_dim)[0]
        return torch.cat([u[:, :1], u[:, 1:] * torch.exp(self.weight * u[:, :1])], 1).detach()

    def log_prob(self, z):
        log_scale = self.weight * z[..., :1]
        u = torch.cat([z[..., :1], z[..., 1:] * torch.exp(-log_scale)], -1)
        return torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(-1) + log_scale.sum(-1)


class Scale(textvae.StandardNormal):
    """Its weight is a standard deviation, which no other weight may be."""

    def __init__(self, latent_dim):
        super().__init__(latent_dim)
        self.scale = nn.Parameter(torch.full((latent_dim,), 0.001))

    def sample(self, count, noise=None):
        return super().sample(count, noise) * self.scale.detach()

    def log_prob(self, z):
        return torch.distributions.Normal(0.0, self.scale, validate_args=True).log_prob(z).sum(-1)


class WithFlow(textvae.TextVAE):
    flow: type[nn.Module] = FlowPrior

    def make_prior(self, config):
        return self.flow(config["latent_dim"])


class WithWrongFlow(WithFlow):
    flow = WrongFlow


class WithScale(WithFlow):
    flow = Scale


def test_a_density_that_is_wrong_only_after_training_is_noticed_before(config, tmp_path):
    with pytest.raises(UserError, match=r"WrongFlow: log_prob is too (high|low)"):
        textvae.train(config, tmp_path / "wrong", model_class=WithWrongFlow)
    for right in (WithFlow, WithScale):
        model = textvae.train(config, tmp_path / right.__name__, model_class=right)
        assert model.prior.latent_dim == 4


class Impossible(textvae.TextVAE):
    def make_prior(self, config):
        class Shifted(textvae.StandardNormal):
            def log_prob(self, z):
                return super().log_prob(z) + 30

        return Shifted(config["latent_dim"])


def test_a_negative_kl_is_not_judged(corpus, config, caplog):
    torch.manual_seed(0)
    model = Impossible(vocab_size=20, **SIZES)
    x = torch.tensor([[2, 5, 6, 3]] * 12)
    card = textvae.evaluate(model, [textvae.Batch(x)], samples=1)
    assert card["collapse"] is None and "the KL is negative" in caplog.text
    with pytest.raises(UserError, match="cannot be diagnosed: the KL is negative"):
        textvae.diagnose(model, [textvae.Batch(x)], samples=1)


def objective_of(folder: Path, weight: int):
    """A function in a file, as a user may edit it between two runs."""
    folder.mkdir(exist_ok=True)
    name = f"edited_{weight}"
    code = f"def loss(terms, beta):\n    return -terms.elbo.mean() + {weight} * terms.kl.mean()\n"
    (folder / f"{name}.py").write_text(code)
    scope = textvae.builders.own_code.load_named(f"{folder / name}.py:loss", "--own-objective")
    scope.__module__ = "edited"  # the same file, at two times
    return scope


def test_edited_code_is_noticed_when_a_run_goes_on_and_not_averaged(config, tmp_path, caplog):
    runs = []
    for seed, weight in ((0, 1), (1, 1), (2, 9)):
        seeded = replace(config, train=replace(config.train, seed=seed))
        runs.append(tmp_path / f"seed{seed}")
        textvae.train(seeded, runs[-1], objective=objective_of(tmp_path / "own", weight))
    first, second, edited = experiments_of(runs)
    assert first == second != edited
    longer = replace(config, train=replace(config.train, max_steps=4))
    textvae.train(longer, runs[0], resume=True, objective=objective_of(tmp_path / "own", 1))
    assert "has changed since" not in caplog.text
    longer = replace(longer, train=replace(longer.train, max_steps=5))
    textvae.train(longer, runs[0], resume=True, objective=objective_of(tmp_path / "own", 9))
    assert "the code of the objective has changed since" in caplog.text


class StopsAtTheEnd(Joint):
    def update(self, step, next_batches, updater):
        super().update(step, next_batches, updater)
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_in_the_last_step_ends_a_loop_over_runs(config, tmp_path):
    with pytest.raises(Interrupted, match="is complete"):
        textvae.train(config, tmp_path / "run", procedure=StopsAtTheEnd())
    assert textvae.load(str(tmp_path / "run")).latent_dim == 4


class StopsAtOnce(Joint):
    def update(self, step, next_batches, updater):
        super().update(step, next_batches, updater)
        if step == 0:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_that_stopped_before_its_first_log_line_has_lost_nothing(config, tmp_path, caplog):
    with pytest.raises(Interrupted, match="continue with"):
        textvae.train(config, tmp_path / "run", procedure=StopsAtOnce())
    textvae.train(config, tmp_path / "run", resume=True, procedure=Joint.__new__(StopsAtOnce))
    assert "is lost" not in caplog.text


class Laplace(NamedTuple):
    location: Tensor
    log_scale: Tensor

    def _distribution(self):
        return torch.distributions.Laplace(self.location, self.log_scale.exp())

    def rsample(self, samples=1, noise=None):
        if noise is None:
            return self._distribution().rsample((samples,))
        uniform = noise.uniform(samples, self.location.size(1)).to(self.location)
        return self._distribution().icdf(uniform.clamp(1e-6, 1 - 1e-6))

    def log_prob(self, z):
        return self._distribution().log_prob(z).sum(-1)

    def center(self):
        return self.location


class LaplaceHead(nn.Linear):
    def forward(self, features):
        return Laplace(*super().forward(features).chunk(2, -1))


class LaplaceVAE(textvae.TextVAE):
    def make_head(self, config, features):
        return LaplaceHead(features, 2 * config["latent_dim"])


def test_a_posterior_of_ones_own_is_one_method(config, tmp_path):
    pooled = replace(config, model=replace(config.model, pooling="mean", bidirectional=True))
    model = textvae.train(pooled, tmp_path / "run", model_class=LaplaceVAE)
    assert isinstance(model.encode(["the cat sees the tree"]), Laplace)
    assert model.encoder.pooling == "mean"
    card = textvae.evaluate_run(tmp_path / "run", model=model, samples=2, generations=0)
    assert card["kl_per_dim"] is None and card["kl_estimated"]


def test_an_objective_that_needs_more_of_a_posterior_is_refused_before_training(config, tmp_path):
    gap = replace(config, objective=replace(config.objective, density_gap=1.0))
    with pytest.raises(UserError, match=r"the density gap needs Laplace\.marginal_log_prob"):
        textvae.train(gap, tmp_path / "run", model_class=LaplaceVAE)
    assert not (tmp_path / "run").exists()


def careless(terms, beta, factor=1.0):
    return factor * terms.q.location_of_something.mean()


def test_an_error_in_an_objective_is_one_line_with_its_place(config, tmp_path):
    with pytest.raises(UserError, match=r"AttributeError: .* \(test_own_mistakes\.py, line \d+\)"):
        textvae.train(config, tmp_path / "run", objective=partial(careless, factor=2.0))


def always_whole(terms, beta):
    return -terms.elbo.mean()


def weighted(terms, beta):
    return (beta * terms.kl.sum(-1) - terms.rec).mean()


@pytest.mark.parametrize(("objective", "warned"), [(always_whole, True), (weighted, False)])
def test_an_objective_that_ignores_beta_does_not_autoencode(
    config, tmp_path, caplog, objective, warned
):
    for epochs in (0.0, 1.0):
        phases = replace(config, train=replace(config.train, autoencode_epochs=epochs))
        textvae.train(phases, tmp_path / f"run-{epochs}", objective=objective)
        assert ("ignores beta, which is 0 during" in caplog.text) == (warned and epochs > 0)


def test_an_unknown_option_of_sampling_names_all(trained):
    with pytest.raises(TypeError, match=r"no option 'sizes'.*max_new_tokens"):
        textvae.load(str(trained)).sample(1, sizes=3)


class HalfNormal(textvae.StandardNormal):
    """Two values of the noise give the same z, so its density is twice that of one."""

    def log_prob(self, z):
        twice = super().log_prob(z) + self.latent_dim * torch.tensor(2.0).log()
        return twice.where((z >= 0).all(-1), -torch.inf)

    def sample(self, count, noise=None):
        return super().sample(count, noise).abs()


class Stretched(textvae.StandardNormal):
    scale = 3.0

    def log_prob(self, z):
        return super().log_prob(z / self.scale) - self.latent_dim * torch.tensor(self.scale).log()

    def sample(self, count, noise=None):
        return self.scale * super().sample(count, noise)


def test_a_change_of_variables_is_checked_and_many_to_one_maps_are_not_mistaken_for_wrong_ones():
    for right in (HalfNormal(2), Stretched(2), textvae.MixturePrior(2, 3), FlowPrior(2)):
        check_density(right)
    with pytest.raises(ValueError, match=r"is too low, by up to .* nats, for what sample makes"):
        check_density(WrongFlow(2, weight=0.8))
