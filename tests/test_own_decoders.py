"""What a decoder of one's own must keep to, and what is said if it does not."""

import math
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import textvae
from textvae.config.sections import DataConfig, ModelConfig, TrainConfig
from textvae.text.tokenizers import PAD
from textvae.vae.batch import Batch


class Leaving:
    """The stepper of ``Bigram``: the next token depends on z and on the last one."""

    def __init__(self, decoder, z):
        self.decoder, self.z, self.size = decoder, z, len(z)

    def step(self, tokens):
        return self.decoder.logits(tokens, self.z)

    def keep(self, rows):
        self.z, self.size = self.z[rows], len(rows)

    def move(self, rows):
        self.z = self.z[rows]


class Bigram(textvae.ConditionalDecoder):
    """p(x_t | x_{t-1}, z); ``leak``: it also sees x_{t+1}, as without a causal mask."""

    def __init__(self, vocab_size, latent_dim, leak=False, sign=1.0, condition=None):
        super().__init__(condition)
        self.words = nn.Embedding(vocab_size, 8)
        self.from_z = nn.Linear(latent_dim, 8)
        self.output = nn.Linear(8, vocab_size)
        self.leak, self.sign = leak, sign

    def logits(self, tokens, z):
        return self.output(torch.tanh(self.words(tokens) + self.from_z(z)))

    def log_prob(self, batch, z):
        inputs, targets = batch.x[:, :-1], batch.x[:, 1:]
        words = self.words(inputs)
        if self.leak:  # attention to the whole sentence, with weights that are alike at first
            words = words + self.words(targets).mean(1, keepdim=True) / 10
        seen = self.output(torch.tanh(words + self.from_z(z)[:, :, None]))  # (K, B, T, V)
        log_p = seen.log_softmax(-1).gather(-1, targets.expand(len(z), -1, -1)[..., None])[..., 0]
        return self.sign * log_p.where(targets != PAD, 0.0).sum(-1)

    def stepper(self, z):
        return Leaving(self, z)


def batch_and_z():
    torch.manual_seed(0)
    x = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
    return Batch(x, units=torch.tensor([4, 2])), torch.randn(2, 3)


def test_a_decoder_that_agrees_with_its_stepper():
    batch, z = batch_and_z()
    textvae.check_stepper(Bigram(9, 3), batch, z)
    textvae.check_stepper(textvae.SkipLSTMDecoder(9, 3).eval(), batch, z)


class Careless(Bigram):
    """Its stepper, or its log_prob, breaks one rule."""

    def __init__(self, rule, **arguments):
        super().__init__(9, 3, **arguments)
        self.rule = rule

    def log_prob(self, batch, z):
        found = super().log_prob(batch, z)
        kinds = {"nan": found * math.nan, "positive": -found, "float": 1.0, "short": found[0]}
        return kinds.get(self.rule, found)

    def stepper(self, z):
        stepper = super().stepper(z)
        if self.rule == "no move":
            return SimpleNamespace(size=stepper.size, step=stepper.step, keep=stepper.keep)
        if self.rule in ("keep", "move"):
            setattr(stepper, self.rule, lambda rows: None)
        if self.rule == "z":  # a keep that forgets z
            keep = stepper.keep
            stepper.keep = lambda rows: keep(torch.arange(len(rows)))
        if self.rule == "tuple":
            step = stepper.step
            stepper.step = lambda tokens: (step(tokens), None)
        return stepper


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("nan", "log_prob is not finite before any training"),
        ("positive", "log_prob is positive: that of a text is at most 0"),
        ("float", "log_prob must return a tensor, not float"),
        ("short", r"one number for every z, \(1, 2\), not \(2,\)"),
        ("no move", "stepper has no move"),
        ("keep", "has size 2 after keep of 1 sentences"),
        ("z", "keep does not keep the state and the z"),
        ("tuple", r"must return logits \(N, V\) of 2 sentences, not tuple"),
    ],
)
def test_rules_of_a_stepper(rule, said):
    batch, z = batch_and_z()
    with pytest.raises(ValueError, match=said):
        textvae.check_stepper(Careless(rule), batch, z)


def test_beams_continue_from_others():
    torch.manual_seed(0)
    decoder = textvae.SkipLSTMDecoder(9, 3, embedding_dim=4, hidden_dim=4).eval()
    batch, z = batch_and_z()
    made = decoder.stepper

    def stays(z):
        stepper = made(z)
        stepper.move = lambda rows: None
        return stepper

    decoder.stepper = stays
    with pytest.raises(ValueError, match=r"move does not give sentence i the state of rows\[i\]"):
        textvae.check_stepper(decoder, batch, z)


class Forgetful(Bigram):
    """Its stepper does not know z."""

    def stepper(self, z):
        return Leaving(self, torch.zeros_like(z))


class Broken(Bigram):
    """Its stepper returns NaN."""

    def stepper(self, z):
        return Leaving(self, z * torch.nan)


@pytest.mark.parametrize("kind", [partial(Bigram, leak=True), Forgetful, Broken])
def test_a_decoder_whose_stepper_predicts_something_else(kind):
    """Also with a large vocabulary, of which a new model knows nothing."""
    torch.manual_seed(0)
    x = torch.cat([torch.full((4, 1), 2), torch.randint(4, 10_000, (4, 60))], 1)
    with pytest.raises(ValueError, match="a missing causal mask"):
        textvae.check_stepper(kind(10_000, 3), Batch(x), torch.randn(4, 3))


def test_long_sentences_of_a_right_decoder():
    torch.manual_seed(0)
    x = torch.cat([torch.full((4, 1), 2), torch.randint(4, 10_000, (4, 200))], 1)
    for decoder in (Bigram(10_000, 3), textvae.SkipLSTMDecoder(10_000, 3).eval()):
        textvae.check_stepper(decoder, Batch(x), torch.randn(4, 3))


@cache
def model_class(**options):
    class Mine(textvae.TextVAE):
        def make_decoder(self, config):
            return Bigram(config["vocab_size"], config["latent_dim"], **options)

    return Mine


@pytest.fixture
def config(corpus):
    return textvae.Config(
        data=DataConfig(dir=str(corpus), batch_size=16),
        model=ModelConfig(latent_dim=3, embedding_dim=8, encoder_hidden=8),
        train=TrainConfig(epochs=1, samples=0, precision="fp32", threads=1, max_steps=4),
    )


def test_a_leak_is_noticed_before_training(config, tmp_path):
    textvae.train(config, tmp_path / "right", model_class=model_class())
    with pytest.raises(textvae.UserError, match="Bigram: the decoder's log_prob of a sentence"):
        textvae.train(config, tmp_path / "leak", model_class=model_class(leak=True))
    assert not (tmp_path / "leak").exists()


def test_a_text_with_a_likelihood_above_1_is_refused():
    batch, _ = batch_and_z()
    model = textvae.VAE(None, Bigram(9, 3, sign=-1.0), 3)
    with pytest.raises(ValueError, match="that of a text is at most 0: check the sign"):
        textvae.evaluate(model, [batch], samples=1)


def test_a_condition_that_a_decoder_cannot_take_is_noticed_before_training(config, tmp_path):
    class Bare(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def log_prob(self, batch, z):
            return self.inner.log_prob(batch, z)

    class Mine(textvae.TextVAE):
        def make_decoder(self, config):
            return Bare(Bigram(config["vocab_size"], config["latent_dim"]))

    labeled = replace(config, model=replace(config.model, condition="label"))
    with pytest.raises(textvae.UserError, match="Bare has no method with_condition"):
        textvae.train(labeled, tmp_path / "run", model_class=Mine)


class Deep(textvae.TextVAE):
    """An argument of its own first, as in docs/your-own-model.md."""

    def __init__(self, depth=2, **arguments):
        super().__init__(**arguments)
        self.depth = depth


class Loose(textvae.TextVAE):
    """Hands everything on."""

    def __init__(self, *arguments, depth=1, **named):
        super().__init__(*arguments, **named)
        self.depth = depth


@pytest.mark.parametrize("kind", [Deep, Loose])
def test_constructors_with_arguments_of_their_own(kind, config, tmp_path):
    model = textvae.train(config, tmp_path / "run", model_class=kind)
    assert type(model) is kind and model.depth == {Deep: 2, Loose: 1}[kind]
    assert kind.from_pretrained(tmp_path / "run").depth == model.depth


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (lambda terms, beta: -terms.elbo, "not a scalar"),
        (lambda terms, beta: 1.0, "returned a float, not a tensor"),
        (lambda terms, beta: -terms.elbo.mean().detach(), "was it detached"),
        (lambda terms, beta: -terms.elbo.mean() * torch.nan, "the first loss is nan"),
        (lambda terms, beta: -terms.elbo.mean() * 1j, "a tensor of torch.complex64"),
        (lambda terms, beta: torch.ones((), requires_grad=True), "does not depend on the weights"),
    ],
)
def test_what_an_objective_must_return(objective, said, config, tmp_path):
    with pytest.raises(textvae.UserError, match=said):
        textvae.train(config, tmp_path / "run", objective=objective)
    assert not (tmp_path / "run").exists()  # it was checked before the start


def test_an_objective_that_cannot_be_copied_is_used_as_it_is(config, tmp_path):
    class Noting:
        def __init__(self):
            self.file, self.calls = (tmp_path / "log").open("w"), 0

        def __call__(self, terms, beta):
            self.calls += 1
            self.file.write("called\n")
            return textvae.elbo(terms, beta)

    noting = Noting()
    textvae.train(config, tmp_path / "run", objective=noting)
    assert noting.calls == config.train.max_steps


def test_a_loss_that_becomes_no_number(config, tmp_path):
    seen = []

    def later(terms, beta):
        seen.append(1)
        return -terms.elbo.mean() * (torch.nan if len(seen) > 3 else 1.0)

    with pytest.raises(textvae.UserError, match="is not finite at or before step 4") as raised:
        textvae.train(config, tmp_path / "run", objective=later)
    assert "if it does not come from your own parts, try" in str(raised.value)


def test_a_procedure_is_an_object(config, tmp_path):
    class Nothing:
        update = state_dict = load_state_dict = None

    with pytest.raises(TypeError, match=r"procedure=Nothing: pass an object, Nothing\(\)"):
        textvae.train(config, tmp_path / "run", procedure=Nothing)


def test_a_posterior_of_another_number_of_examples():
    class One(nn.Module):
        def forward(self, batch):
            return textvae.DiagGaussian(torch.zeros(1, 3), torch.zeros(1, 3))

    batch, _ = batch_and_z()
    with pytest.raises(ValueError, match="a posterior for 1 examples, but the batch has 2"):
        textvae.VAE(One(), Bigram(9, 3), 3).posterior(batch)


def plain_elbo(terms, beta):
    return -terms.rec.mean() + beta * terms.kl.sum(-1).mean()


def test_no_command_would_train_with_another_objective(config, tmp_path):
    textvae.train(config, tmp_path / "run", objective=plain_elbo)
    found = textvae.diagnose_run(tmp_path / "run", split="train", samples=1)
    assert found.remedies and all(remedy.command is None for remedy in found.remedies)


def test_a_share_of_the_tokens_that_a_decoder_cannot_compute_is_noticed(config, tmp_path):
    refined = textvae.Inference(method="semi_amortized", token_share=0.5)
    with pytest.raises(textvae.UserError, match="log_prob of Bigram has no argument share"):
        textvae.train(
            replace(config, inference=refined), tmp_path / "run", model_class=model_class()
        )


def test_a_condition_that_a_decoder_ignores_is_noticed(config, tmp_path):
    labeled = replace(config, model=replace(config.model, condition="label"))
    with pytest.raises(textvae.UserError, match="Bigram ignores it: pass condition="):
        textvae.train(labeled, tmp_path / "run", model_class=model_class())


def test_a_frozen_decoder_may_leave_the_encoder_to_a_loss_of_its_own(config, tmp_path):
    class Frozen(textvae.TextVAE):
        def make_decoder(self, config):
            return super().make_decoder(config).requires_grad_(False)

    refined = textvae.Inference(method="semi_amortized", encoder="kl", steps=2)
    textvae.train(replace(config, inference=refined), tmp_path / "run", model_class=Frozen)
