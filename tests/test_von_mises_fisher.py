"""The von Mises-Fisher posterior against numerical integration, known moments and differences."""

import math

import pytest
import torch
from scipy import integrate, special

from textvae.errors import UserError
from textvae.evaluation.evaluate import evaluate
from textvae.evaluation.latent.arithmetic import moved
from textvae.images.datasets import as_batch
from textvae.images.model import ImageVAE
from textvae.vae.estimators import active_units, mixture_log_prob, mutual_information
from textvae.vae.heads import VonMisesFisherHead
from textvae.vae.interpolation import between
from textvae.vae.noise import Purpose, RowNoise, SeededNoise
from textvae.vae.objectives import elbo
from textvae.vae.posteriors import concatenate, kl, select
from textvae.vae.priors import StandardNormal
from textvae.vae.von_mises_fisher import (
    PROPOSALS,
    UniformSphere,
    VonMisesFisher,
    log_bessel,
    mean_length,
)

KAPPAS = (0.3, 5.0, 13.0, 80.0)
DIMENSIONS = (2, 3, 4, 32)


def posterior(size, kappa=13.0, count=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(count, size, generator=generator, dtype=dtype)
    return VonMisesFisher(direction, torch.full((count, 1), kappa, dtype=dtype))


def integral(function, q, size):
    """Of a function of z (M, Z) over the circle or the sphere, by trapezoids: error below 1e-9."""
    angle = torch.linspace(0, 2 * math.pi, 2001, dtype=torch.float64)[:-1]
    if size == 2:
        z = torch.stack([angle.cos(), angle.sin()], dim=-1)
        return function(z).sum(0) * (2 * math.pi / len(angle))
    nodes, weights = special.roots_legendre(200)
    height, weights = torch.tensor(nodes), torch.tensor(weights)
    angle = angle[::10]
    radius = (1 - height.square()).sqrt()[:, None]
    parts = radius * angle.cos(), radius * angle.sin(), height[:, None].expand(-1, len(angle))
    values = function(torch.stack(parts, dim=-1).view(-1, 3))
    values = values.view(len(height), len(angle), -1).sum(1) * (2 * math.pi / len(angle))
    return (values * weights[:, None]).sum(0)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kappa", KAPPAS)
def test_density_and_kl_are_those_of_numerical_integration(size, kappa):
    q, prior = posterior(size, kappa), UniformSphere(size)

    def log_q(z):
        return q.log_prob(z[:, None])  # (M, B)

    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(integral(lambda z: log_q(z).exp(), q, size), ones)
    torch.testing.assert_close(
        integral(lambda z: prior.log_prob(z)[:, None].exp(), q, size), ones[:1]
    )
    found = integral(lambda z: log_q(z).exp() * (log_q(z) - prior.log_prob(z)[:, None]), q, size)
    torch.testing.assert_close(kl(q, prior)[:, 0], found)
    other = VonMisesFisher(q.direction.flip(0), 0.4 * q.kappa)
    theirs = integral(lambda z: log_q(z).exp() * (log_q(z) - other.log_prob(z[:, None])), q, size)
    torch.testing.assert_close(kl(q, other)[:, 0], theirs)


@pytest.mark.parametrize("size", [4, 32])
def test_kl_in_more_dimensions_is_an_integral_along_the_mean(size):
    q, prior, kappa = posterior(size, 20.0), UniformSphere(size), 20.0

    def weight(w):
        return math.exp(kappa * (w - 1)) * (1 - w * w) ** ((size - 3) / 2)

    total, moment = (
        integrate.quad(f, -1, 1, epsabs=1e-14)[0] for f in (weight, lambda w: w * weight(w))
    )
    area = 2 * math.pi ** ((size - 1) / 2) / math.gamma((size - 1) / 2)  # of the sphere around mu
    expected = kappa * moment / total - math.log(total * area) - kappa - prior.log_density
    torch.testing.assert_close(kl(q, prior)[:, 0], torch.full((3,), expected).double())
    assert mean_length(kappa, size) == pytest.approx(moment / total, rel=1e-9)


@pytest.mark.parametrize("x", [1e-3, 0.3, 13.0, 500.0])
@pytest.mark.parametrize("order", [0.0, 0.5, 15.0, 16.0])
def test_log_bessel_is_that_of_scipy(order, x):
    expected = math.log(special.ive(order, x)) + x
    assert log_bessel(order, x) == pytest.approx(expected, rel=1e-10, abs=1e-9)


def test_log_bessel_where_the_function_itself_underflows():
    assert special.ive(600.0, 13.0) == 0
    leading = 600 * math.log(6.5) - math.lgamma(601)  # the first term of the series
    assert log_bessel(600.0, 13.0) == pytest.approx(leading, rel=1e-3)
    assert 0 < mean_length(13.0, 1202) < 0.02


@pytest.mark.parametrize("size", DIMENSIONS)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_draws_have_the_moments_of_q(size, kappa):
    torch.manual_seed(1)
    q, length = posterior(size, kappa, count=2), mean_length(kappa, size)
    z = q.rsample(60_000)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(60_000, 2, dtype=torch.float64))
    torch.testing.assert_close(z.mean(0), length * q.center(), atol=0.02, rtol=0)
    along = (z * q.center()).sum(-1)
    second = 1 - (size - 1) * length / kappa  # E[(mu . z)^2]
    torch.testing.assert_close(along.mean(), torch.tensor(length).double(), atol=0.006, rtol=0)
    moment = torch.tensor(second).double()
    torch.testing.assert_close(along.square().mean(), moment, atol=0.006, rtol=0)
    estimate = (q.log_prob(z) - UniformSphere(size).log_prob(z)).mean(0)
    torch.testing.assert_close(estimate, kl(q, UniformSphere(size))[:, 0], atol=0.12, rtol=0.02)


@pytest.mark.parametrize("size", [2, 3, 32])
def test_draws_have_the_distribution_of_q_along_the_mean(size):
    """Kolmogorov-Smirnov distance from the integrated density: below its 99.9 % quantile."""
    torch.manual_seed(2)
    q, count = posterior(size, count=1), 20_000
    along = (q.rsample(count) * q.center()).sum(-1)[:, 0].sort().values
    angle = torch.linspace(math.pi, 0, 20_001, dtype=torch.float64)  # w = cos(angle)
    density = torch.exp(13.0 * (angle.cos() - 1)) * angle.sin() ** (size - 2)
    below = torch.cumulative_trapezoid(density, dx=math.pi / 20_000)
    below = torch.cat([below.new_zeros(1), below]) / below[-1]
    at = below[torch.searchsorted(angle.cos(), along).clamp(max=20_000)]
    empirical = (torch.arange(count) + 0.5) / count
    assert float((at - empirical).abs().max()) < 1.95 / math.sqrt(count)


def test_the_proposals_suffice():
    """Acceptance is least likely on a circle with a large kappa: sqrt(e / (2 pi)) = 0.66."""
    assert (1 - math.sqrt(math.e / (2 * math.pi))) ** PROPOSALS < 1e-7


@pytest.mark.parametrize("size", [2, 3, 5])
def test_gradients_flow_to_the_direction_only(size):
    q = posterior(size, count=2)
    direction, kappa = q.direction.requires_grad_(), q.kappa.requires_grad_()

    def loss(direction):
        torch.manual_seed(3)  # the same noise at every call
        q = VonMisesFisher(direction, kappa)
        z = q.rsample(4)
        target = torch.linspace(-1, 1, size, dtype=torch.float64)
        return (z * target).sum() + z[..., 0].square().sum() + 0.3 * q.log_prob(z).sum()

    assert torch.autograd.gradcheck(loss, (direction,))
    assert torch.autograd.gradgradcheck(loss, (direction,))
    loss(direction).backward()
    assert kappa.grad is None


def test_the_gradient_of_an_expectation():
    """E[z] = A mu, so the mean gradient of c . z is A times that of c . mu."""
    torch.manual_seed(4)
    direction = torch.tensor([[0.3, -0.5, 1.2]], dtype=torch.float64, requires_grad=True)
    q = VonMisesFisher(direction, torch.full((1, 1), 5.0, dtype=torch.float64))
    c = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
    (found,) = torch.autograd.grad((q.rsample(200_000)[:, 0] @ c).mean(), direction)
    (exact,) = torch.autograd.grad(mean_length(5.0, 3) * (q.center() @ c).sum(), direction)
    torch.testing.assert_close(found, exact, atol=0.01, rtol=0)


@pytest.mark.parametrize("size", [2, 3, 32])
def test_draws_are_on_the_sphere_in_single_precision(size):
    q = posterior(size, kappa=1e4, dtype=torch.float32)
    torch.manual_seed(0)
    length = q.rsample(50_000).double().norm(dim=-1)
    assert (length - 1).abs().max() < 2e-6


def test_draws_are_a_function_of_the_noise():
    q = posterior(4, dtype=torch.float32)
    rows = RowNoise(5, Purpose.LATENT, [7, 8, 9])
    many = q.rsample(6, rows)
    assert torch.equal(q.rsample(2, rows), many[:2])  # whatever their number
    alone = select(q, torch.tensor([1])).rsample(6, rows._replace(rows=[8]))
    torch.testing.assert_close(alone, many[:, 1:2])  # and the batch
    seeded = SeededNoise(6, 3, torch.device("cpu"))
    assert torch.equal(q.rsample(2, seeded), q.rsample(2, seeded))


def test_it_is_a_posterior_like_any_other():
    q = posterior(6, count=9)
    again = concatenate([select(q, torch.arange(4)), select(q, torch.arange(4, 9))])
    assert torch.equal(again.direction, q.direction) and torch.equal(again.kappa, q.kappa)
    z = q.rsample(1)[0]
    torch.testing.assert_close(q.pairwise_log_prob(z), q.log_prob(z[:, None]))
    assert mixture_log_prob(q, z).shape == (9,)
    longer = VonMisesFisher(3 * q.direction, q.kappa)
    torch.testing.assert_close(longer.log_prob(z), q.log_prob(z))
    assert q.kl_to(StandardNormal(6)) is None


def test_information_is_in_the_directions():
    prior = UniformSphere(8)
    spread, same = posterior(8, 13.0, 2000), posterior(8, 13.0, 2000)
    same = VonMisesFisher(same.direction[:1].expand(2000, -1), same.kappa)
    torch.manual_seed(7)
    found = mutual_information(spread, kl(spread, prior))
    assert 3 < found.mi < found.ceiling and abs(found.marginal_kl) < 0.15
    assert mutual_information(same, kl(same, prior)).mi == 0
    assert active_units(spread.center()) == 8 and active_units(same.center()) == 0


def test_samples_of_the_prior_are_uniform():
    prior, noise = UniformSphere(4), RowNoise(3, Purpose.LATENT, range(20_000))
    z = prior.sample(20_000, noise)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(20_000))
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=0.02, rtol=0)
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(4) / 4, atol=0.02, rtol=0)
    assert torch.equal(prior.sample(5, noise._replace(rows=range(5))), z[:5])


def test_a_head_makes_directions_in_full_precision():
    head = VonMisesFisherHead(5, 3, kappa=7.0)
    with torch.autocast("cpu", torch.bfloat16):
        q = head(torch.randn(2, 5).bfloat16())
    assert q.direction.dtype == q.kappa.dtype == torch.float32
    torch.testing.assert_close(q.direction.norm(dim=-1), torch.ones(2))
    assert torch.equal(q.kappa, torch.full((2, 1), 7.0))


def images(count=6):
    noise = torch.rand(count, 8, 8, generator=torch.Generator().manual_seed(0))
    return (noise < 0.3).float()


def model(latent_dim=4, **options):
    torch.manual_seed(0)
    sizes = {"encoder_hidden": 12, "encoder_layers": 2, "decoder_hidden": 12, "decoder_layers": 2}
    kind = {"encoder": "mlp", "decoder": "mlp", "posterior": "vmf"}
    return ImageVAE(8, 8, latent_dim, **{**sizes, **kind, **options})


def test_a_model_on_the_sphere(tmp_path):
    made, batch = model(), as_batch(images(), torch.arange(6))
    terms = made.train()(batch, samples=2)
    torch.testing.assert_close(terms.kl, kl(terms.q, UniformSphere(4)))
    elbo(terms).backward()
    assert all(p.grad is not None for p in made.parameters())

    made.eval()
    card = evaluate(made, lambda: [batch], samples=3)
    assert card["kl"] == pytest.approx(float(terms.kl[0, 0]), rel=1e-5)
    assert card["kl_estimated"] is False and math.isfinite(card["iw"])
    q = made.encode(images(), refine_steps=3)
    assert not torch.allclose(q.center(), made.encode(images(), refine_steps=0).center())
    assert made.sample(3).shape == (3, 8, 8)
    made.save_pretrained(tmp_path)
    loaded = ImageVAE.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.encode(images()).center(), made.encode(images()).center())


def test_interpolation_stays_on_the_sphere(monkeypatch):
    made = model().eval()
    seen = []
    monkeypatch.setattr(made, "decode", lambda z, **_: seen.append(z))
    made.interpolate(*images(2), steps=5)
    made.interpolate(*images(2), steps=5, kind="linear")
    start, end = made.encode(images(2)).center()
    torch.testing.assert_close(seen[0], between(start, end, 5, "spherical"))
    torch.testing.assert_close(seen[0].norm(dim=-1), torch.ones(5))
    torch.testing.assert_close(seen[1], between(start, end, 5, "linear"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 1}, "latent_dim of at least 2"),
        ({"head": "du"}, "normalizes the means of a Gaussian"),
        ({"encoder_layers": 0}, "posterior vmf needs an encoder"),
    ],
)
def test_what_has_no_meaning_on_a_sphere_is_one_line(options, message):
    with pytest.raises(UserError, match=message):
        model(**options)


def test_a_walk_needs_a_plane():
    with pytest.raises(UserError, match="circle"):
        model(2).walk(3)


def test_every_example_has_its_own_concentration():
    directions = torch.nn.functional.normalize(torch.randn(2, 3, dtype=torch.float64), dim=-1)
    both = VonMisesFisher(directions, torch.tensor([[2.0], [20.0]], dtype=torch.float64))
    found = kl(both, UniformSphere(3))
    for row in range(2):
        alone = VonMisesFisher(both.direction[row : row + 1], both.kappa[row : row + 1])
        torch.testing.assert_close(found[row : row + 1], kl(alone, UniformSphere(3)))
        z = alone.rsample(4)
        torch.testing.assert_close(both.log_prob(z)[:, row], alone.log_prob(z)[:, 0])


def test_arithmetic_stays_on_the_sphere():
    z = torch.nn.functional.normalize(torch.randn(5, 4), dim=-1)
    found = moved(model(posterior="vmf"), z, torch.ones(4), 2.0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
