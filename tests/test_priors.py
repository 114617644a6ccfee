"""Learned priors: their densities, draws, and gradients, alone and in a model."""

import math

import pytest
import torch
from conftest import step_noise
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import textvae
from textvae.config.inference import Inference
from textvae.errors import UserError
from textvae.text.data.batches import text_batch
from textvae.vae import priors
from textvae.vae.batch import Batch
from textvae.vae.inference import infer
from textvae.vae.noise import Purpose, RowNoise, second_stream
from textvae.vae.posteriors import DiagGaussian, kl
from textvae.vae.priors import MixturePrior, StandardNormal, VampPrior, check_density
from textvae.vae.vae import VAE
from textvae.vae.von_mises_fisher import UniformSphere

LATENT, WORDS = 2, 5


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(WORDS), nn.Linear(WORDS, 2 * LATENT)

    def forward(self, batch):
        return DiagGaussian(*self.head(self.norm(batch.x)).chunk(2, dim=-1))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(LATENT, 6), nn.Tanh(), nn.Linear(6, WORDS))

    def log_prob(self, batch, z):
        return (batch.x * self.net(z).log_softmax(-1)).sum(-1)


def mixture(components=3) -> MixturePrior:
    torch.manual_seed(0)
    prior = MixturePrior(LATENT, components).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter))
    return prior


def vamp_model() -> VAE:
    torch.manual_seed(0)
    inputs = torch.randn(4, WORDS)
    return VAE(Encoder(), Decoder(), VampPrior(LATENT, inputs)).double()


def reference(prior: MixturePrior) -> MixtureSameFamily:
    parts = Independent(Normal(prior.means, (0.5 * prior.logvars).exp()), 1)
    return MixtureSameFamily(Categorical(logits=prior.logits), parts)


def noise(count, seed=0):
    return RowNoise(seed, Purpose.LATENT, range(count))


class Own(torch.nn.Module):
    """N(0, I) with a constant missing or added, and perhaps other draws at every call."""

    def __init__(self, shift: float = 0.0, scale: float = 1.0, seeded: bool = True) -> None:
        super().__init__()
        self.latent_dim, self.shift, self.scale, self.seeded = 3, shift, scale, seeded

    def log_prob(self, z):
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) + self.shift

    def sample(self, count, noise=None):
        known = noise is not None and self.seeded
        drawn = noise.normal(1, 3)[0] if known else torch.randn(count, 3)
        return self.scale * drawn


class Cube(torch.nn.Module):
    """Uniform on a cube: a Gaussian also draws where its density is 0."""

    latent_dim = 2

    def log_prob(self, z):
        inside = (z.abs() <= 2).all(-1)
        return torch.where(inside, -2 * math.log(4), -math.inf)

    def sample(self, count, noise=None):
        return 4 * noise.uniform(1, 2)[0].float() - 2


@torch.no_grad()
@pytest.mark.parametrize("kind", ["own", "cube", "few", "many", "sphere"])
def test_the_density_of_a_right_prior_passes(kind):
    torch.manual_seed(0)
    priors = {"own": Own(), "cube": Cube(), "few": MixturePrior(3, 2), "many": MixturePrior(40)}
    check_density((priors | {"sphere": UniformSphere(3)})[kind])


class Wrong(Own):
    """Draws of another kind or shape."""

    def __init__(self, draws) -> None:
        super().__init__()
        self.draws = draws

    def sample(self, count, noise=None):
        return self.draws


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (Wrong(None), r"must return a tensor \(2000, 3\), not NoneType"),
        (Wrong(torch.zeros(5, 3)), r"must return a tensor \(2000, 3\), not \(5, 3\)"),
        (Own(shift=0.4), r"log_prob is too high, by 0\.\d\d nats"),
        (Own(shift=1.5 * math.log(2 * math.pi)), r"is too high, by 2\.\d\d nats .* a constant"),
        (Own(shift=-0.4), r"log_prob is too low, by 0\.\d\d nats"),
        (Own(scale=2.0), "is too low"),  # the density of other draws
        (Own(scale=0.4), "is too low|is too high"),
        (Own(seeded=False), "two calls with the same noise differ"),
    ],
)
def test_a_wrong_density_of_a_prior_is_refused(prior, message):
    with pytest.raises(ValueError, match=message):
        check_density(prior)


def test_the_mixture_is_that_of_torch():
    prior, z = mixture(), torch.randn(4, 6, LATENT).double()
    torch.testing.assert_close(prior.log_prob(z), reference(prior).log_prob(z))
    for d in range(LATENT):
        parts = Normal(prior.means[:, d], (0.5 * prior.logvars[:, d]).exp())
        one = MixtureSameFamily(Categorical(logits=prior.logits), parts)
        torch.testing.assert_close(prior.marginal_log_prob(z)[..., d], one.log_prob(z[..., d]))


def test_the_vamp_prior_is_the_mean_of_the_posteriors_of_its_inputs():
    model = vamp_model().eval()
    prior, z = model.prior, torch.randn(4, 6, LATENT).double()
    q = model.posterior(Batch(prior.inputs))
    densities = torch.stack([DiagGaussian(*(p[c] for p in q)).log_prob(z) for c in range(4)])
    torch.testing.assert_close(prior.log_prob(z), densities.logsumexp(0) - math.log(4))
    one_by_one = torch.stack(
        [DiagGaussian(*(p[c] for p in q)).marginal_log_prob(z) for c in range(4)]
    )
    expected = one_by_one.logsumexp(0) - math.log(4)
    torch.testing.assert_close(prior.marginal_log_prob(z), expected)


@pytest.mark.parametrize("make", [mixture, lambda: vamp_model().prior], ids=["mixture", "vamp"])
def test_gradients_are_those_of_finite_differences(make):
    prior = make()
    z = torch.randn(2, 3, LATENT).double().requires_grad_()
    parameters = list(prior.parameters())
    assert len(parameters) == (3 if isinstance(prior, MixturePrior) else 5)
    assert torch.autograd.gradcheck(lambda z, *_: prior.log_prob(z), (z, *parameters))


@pytest.mark.parametrize("make", [mixture, lambda: vamp_model().prior], ids=["mixture", "vamp"])
def test_draws_are_those_of_the_density(make):
    prior, count = make().float(), 40_000
    z = prior.sample(count, noise(count)).double()
    assert z.shape == (count, LATENT) and not z.requires_grad
    ticks = torch.linspace(-12, 12, 481, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1)
    mass = prior.double().log_prob(grid).exp().detach() * (ticks[1] - ticks[0]) ** 2
    assert float(mass.sum()) == pytest.approx(1, abs=1e-3)
    mean = (mass[..., None] * grid).sum((0, 1))
    variance = (mass[..., None] * (grid - mean).square()).sum((0, 1))
    torch.testing.assert_close(z.mean(0), mean, atol=0.03, rtol=0.02)
    torch.testing.assert_close(z.var(0), variance, atol=0.03, rtol=0.03)
    quadrant = mass[(grid[..., 0] < 0) & (grid[..., 1] < 0)].sum()
    found = (z < 0).all(1).double().mean()
    assert float(found) == pytest.approx(float(quadrant), abs=0.02)


@pytest.mark.parametrize("make", [mixture, lambda: vamp_model().prior], ids=["mixture", "vamp"])
def test_a_row_of_draws_depends_only_on_the_seed_and_the_row(make):
    prior = make().float()
    assert torch.equal(prior.sample(9, noise(9))[:4], prior.sample(4, noise(4)))
    assert not torch.equal(prior.sample(4, noise(4)), prior.sample(4, noise(4, seed=1)))
    torch.manual_seed(3)
    first = prior.sample(4)
    torch.manual_seed(3)
    assert torch.equal(prior.sample(4), first)


def test_the_component_and_the_normal_draws_are_independent():
    rows = noise(20_000)
    component, eps = rows.uniform(1, 1)[0, :, 0], second_stream(rows).normal(1, 1)[0, :, 0]
    both = torch.stack([component.double(), eps.double().square()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.02


def test_the_estimated_kl_is_unbiased():
    prior = mixture(components=1)  # a Gaussian, whose KL is known
    torch.manual_seed(1)
    q = DiagGaussian(torch.randn(3, LATENT).double(), torch.randn(3, LATENT).double())
    p = DiagGaussian(prior.means.expand(3, -1), prior.logvars.expand(3, -1))
    estimate = kl(q, prior, q.rsample(200_000))
    assert estimate.shape == (3, 1)
    torch.testing.assert_close(estimate[:, 0], q.kl_to(p).sum(-1), atol=0.03, rtol=0.02)


def test_a_mixture_in_parts_is_the_whole(monkeypatch):
    prior, z = mixture(5), torch.randn(2, 7, LATENT, dtype=torch.float64, requires_grad=True)
    whole = prior.log_prob(z)
    (slope,) = torch.autograd.grad(whole.sum(), z)
    monkeypatch.setattr(priors, "MAX_PAIRS", 15)
    parts = prior.log_prob(z)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), z)[0], slope)
    assert prior.log_prob(z[:0]).shape == (0, 7)


def test_the_mixture_starts_with_the_variance_of_the_standard_normal():
    torch.manual_seed(0)
    z = MixturePrior(8, 500).sample(20_000)
    torch.testing.assert_close(z.var(0), torch.ones(8), atol=0.1, rtol=0)


def test_pseudo_inputs_leave_batch_normalization_alone():
    model, z = vamp_model().train(), torch.randn(3, LATENT).double()
    before = model.encoder.norm.running_mean.clone()
    density = model.prior.log_prob(z)
    assert torch.equal(model.encoder.norm.running_mean, before)
    assert model.encoder.norm.training
    assert torch.equal(density, model.eval().prior.log_prob(z))


def test_a_step_computes_log_p_of_z_once(monkeypatch):
    model, calls = vamp_model(), []
    log_prob = model.prior.log_prob
    monkeypatch.setattr(model.prior, "log_prob", lambda z: calls.append(z) or log_prob(z))
    terms = model(Batch(torch.rand(3, WORDS).double()), 2)
    assert len(calls) == 1
    estimate = (terms.log_qz - terms.log_pz).mean(0)[:, None]
    torch.testing.assert_close(terms.kl, estimate)
    torch.testing.assert_close(terms.kl, kl(terms.q, model.prior, terms.z))


def test_refinement_differentiates_through_a_vamp_prior():
    """The gradients of inputs and shared encoder, through all steps, by finite differences."""
    model = vamp_model().eval()
    batch = Batch(torch.rand(3, WORDS).double() * 4)
    draws = torch.randn(3, 3, LATENT).double()
    options = Inference(
        "semi_amortized", steps=2, lr=0.3, hvp="exact", decoder_terms="all", max_growth=0.0
    )

    def loss(*_):
        q = infer(model, batch, options, 0.8, step_noise(draws[:2])).posterior
        z = q.mean + torch.exp(0.5 * q.logvar) * draws[2]
        return (kl(q, model.prior, z[None]).sum(-1) - model.log_likelihood(batch, z[None])).mean()

    asked = [model.prior.inputs, model.encoder.head.weight]
    assert torch.autograd.gradcheck(loss, asked, atol=1e-6)


TOKENIZER = textvae.WordTokenizer.train(["a b c d e f g h"])


def text_model(**options):
    torch.manual_seed(0)
    sizes = {"embedding_dim": 6, "encoder_hidden": 7, "decoder_hidden": 7, "latent_dim": 3}
    return textvae.TextVAE(len(TOKENIZER), **{**sizes, "prior_components": 5, **options})


def image_model(**options):
    torch.manual_seed(0)
    sizes = {"encoder_hidden": 8, "encoder_layers": 2, "decoder_hidden": 4, "decoder_layers": 2}
    return textvae.ImageVAE(8, 8, **{**sizes, "latent_dim": 3, "prior_components": 5, **options})


BATCHES = {
    text_model: text_batch([torch.tensor([5, 6, 7]), torch.tensor([8])], [0, 1]),
    image_model: Batch((torch.rand(4, 1, 8, 8) > 0.5).float()),
}


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
@pytest.mark.parametrize("make", [text_model, image_model])
def test_a_learned_prior_trains_and_is_saved(make, prior, tmp_path):
    model = make(prior=prior)
    model.tokenizer = TOKENIZER  # of the text model
    textvae.elbo(model(BATCHES[make], samples=2)).backward()
    untrained = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untrained
    model.eval().save_pretrained(tmp_path)
    loaded = textvae.load(str(tmp_path))
    assert loaded.config["prior"] == prior
    z = model.draw_z(4, seed=0)
    assert torch.equal(loaded.draw_z(4, seed=0), z)
    assert torch.equal(loaded.prior.log_prob(z), model.prior.log_prob(z))
    if prior == "vamp":
        assert loaded.prior.encoder is loaded.encoder


@pytest.mark.parametrize("make", [text_model, image_model])
def test_the_standard_prior_has_no_parameters(make):
    model = make()
    assert isinstance(model.prior, StandardNormal) and not list(model.prior.parameters())


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_a_prior_without_meaning_is_one_line(prior):
    none = {"injection": "none"}
    with pytest.raises(UserError, match=f"prior {prior} needs a latent variable, but latent_dim"):
        text_model(prior=prior, latent_dim=0)
    with pytest.raises(UserError, match="is not a distribution on the unit sphere"):
        image_model(prior=prior, posterior="vmf", **none)
    if prior == "vamp":
        with pytest.raises(UserError, match="prior vamp needs an encoder"):
            text_model(prior=prior, encoder_layers=0)
        with pytest.raises(UserError, match="follows the quantiles of N"):
            image_model(prior=prior, latent_dim=2).walk(3)
