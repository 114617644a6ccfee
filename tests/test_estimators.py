"""The estimators against models whose log p(x) and mutual information are known."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import FixedNoise, LargestTensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from textvae.vae.batch import Batch
from textvae.vae.estimators import (
    PointwiseInformation,
    active_units,
    importance_bound,
    importance_estimate,
    mean_variances,
    minibatch_information,
    mixture_log_prob,
    mutual_information,
    pointwise_information,
    summarize_information,
)
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.posteriors import ConstantEncoder, DiagGaussian, kl
from textvae.vae.priors import StandardNormal

LOADINGS = torch.tensor([[1.0, 0.5], [1.0, -0.5], [0.0, 2.0]], dtype=torch.float64)
OFFSET = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
NOISE_SD = 0.7
PRIOR = StandardNormal(2)


def batch_of(x):
    ones = torch.ones(len(x), dtype=torch.long)
    return Batch(x, lengths=10 * ones, units=ones, num_bytes=ones, index=torch.arange(len(x)))


class LinearGaussian:
    """p(z) = N(0, I), p(x|z) = N(Wz + b, s^2 I); the columns of W are orthogonal, so that the exact
    posterior is diagonal. ``shift`` and ``widen`` make q wrong."""

    prior = PRIOR

    def __init__(self, shift=0.0, widen=0.0):
        self.shift, self.widen, self.calls = shift, widen, 0

    def posterior(self, batch):
        precision = 1 + LOADINGS.square().sum(0) / NOISE_SD**2  # (Z,)
        mean = (batch.x - OFFSET) @ LOADINGS / NOISE_SD**2 / precision
        return DiagGaussian(mean + self.shift, (-precision.log() + self.widen).expand_as(mean))

    def log_likelihood(self, batch, z):
        self.calls += 1
        return Normal(z @ LOADINGS.t() + OFFSET, NOISE_SD).log_prob(batch.x).sum(-1)

    @staticmethod
    def log_marginal(x):
        covariance = LOADINGS @ LOADINGS.t() + NOISE_SD**2 * torch.eye(3, dtype=torch.float64)
        return MultivariateNormal(OFFSET, covariance).log_prob(x)


class Language:
    """A model without a latent variable."""

    calls, prior = 0, StandardNormal(0)

    def posterior(self, batch):
        return ConstantEncoder(0)(batch)

    def log_likelihood(self, batch, z):
        self.calls += 1
        return -batch.x.float().sum(-1).expand(z.size(0), -1)


@pytest.fixture
def x():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def estimate_from(model, batch, draws, **options):
    """The estimate from given standard normal draws (K, B, Z)."""
    return importance_estimate(model, batch, len(draws), noise=FixedNoise(draws), **options)


def information(q, draws=None, **options):
    """Mutual information with the KL to N(0, I), from given standard normal draws (S, N, Z)."""
    given = {} if draws is None else {"samples": len(draws), "noise": FixedNoise(draws)}
    return mutual_information(q, kl(q, StandardNormal(q.mean.size(1))), **given, **options)


def test_there_is_a_kl_for_each_posterior():
    q = DiagGaussian(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="7 KLs of 3 posteriors: give one for each"):
        mutual_information(q, torch.ones(7))


def sigma_points(rows, latent_dim):
    """2Z points with mean 0 and covariance I: they integrate any quadratic exactly."""
    axes = math.sqrt(latent_dim) * torch.eye(latent_dim, dtype=torch.float64)
    return torch.cat([axes, -axes])[:, None].expand(-1, rows, -1)


def test_elbo_with_the_exact_posterior_is_log_p(x):
    model, batch = LinearGaussian(), batch_of(x)
    rec = estimate_from(model, batch, sigma_points(5, 2)).rec
    elbo = rec - model.posterior(batch).kl_to(PRIOR).sum(-1)
    torch.testing.assert_close(elbo, model.log_marginal(x))


@pytest.mark.parametrize("samples", [1, 3, 50])
def test_bound_with_the_exact_posterior_is_log_p_for_every_k(x, samples):
    bound = importance_bound(LinearGaussian(), batch_of(x), samples)
    torch.testing.assert_close(bound, LinearGaussian.log_marginal(x))


def test_bounds_rise_with_k_towards_log_p(x):
    repeats = 4000  # of one x, so that the mean over rows is the expectation
    model, batch = LinearGaussian(shift=0.4, widen=0.8), batch_of(x[:1].expand(repeats, 3))
    log_p = float(model.log_marginal(x[0]))
    exact_elbo = estimate_from(model, batch_of(x[:1]), sigma_points(1, 2)).rec
    exact_elbo = float(exact_elbo - model.posterior(batch_of(x[:1])).kl_to(PRIOR).sum())
    bounds = {k: estimate_from(model, batch, normal(k, repeats, 2)).bound for k in (1, 5, 50)}
    error = {k: float(bound.std()) / math.sqrt(repeats) for k, bound in bounds.items()}
    means = {k: float(bound.mean()) for k, bound in bounds.items()}
    assert means[1] == pytest.approx(exact_elbo, abs=4 * error[1])
    assert means[1] + 4 * error[1] < means[5] - 4 * error[5]
    assert means[5] + 4 * error[5] < means[50] - 4 * error[50]
    assert means[50] < log_p
    assert means[50] == pytest.approx(log_p, abs=0.05)


def test_one_draw_is_the_elbo_with_the_same_noise(x):
    model, batch, noise = LinearGaussian(shift=0.4), batch_of(x), normal(1, 5, 2)
    q = model.posterior(batch)
    z = q.mean + torch.exp(0.5 * q.logvar) * noise
    expected = model.log_likelihood(batch, z) + PRIOR.log_prob(z) - q.log_prob(z)
    torch.testing.assert_close(estimate_from(model, batch, noise).bound, expected[0])


def test_many_draws_by_hand(x):
    model, batch, noise = LinearGaussian(shift=0.4), batch_of(x), normal(4, 5, 2)
    single = [estimate_from(model, batch, noise[k : k + 1]).bound.exp() for k in range(4)]
    expected = torch.log(sum(single) / 4)
    torch.testing.assert_close(estimate_from(model, batch, noise).bound, expected)


@pytest.mark.parametrize("max_symbols", [1, 100, 150, 200, 349])  # 50 symbols a draw
def test_uneven_chunks_change_nothing(x, max_symbols):
    batch, noise = batch_of(x), normal(7, 5, 2)
    whole, cut = LinearGaussian(shift=0.4), LinearGaussian(shift=0.4)
    expected = estimate_from(whole, batch, noise)
    found = estimate_from(cut, batch, noise, max_symbols=max_symbols)
    assert whole.calls == 1
    assert cut.calls == math.ceil(7 / max(1, max_symbols // 50))
    torch.testing.assert_close(found.bound, expected.bound)
    torch.testing.assert_close(found.rec, expected.rec)


def test_draws_are_as_long_as_the_longest_example(x):
    model, batch = LinearGaussian(), replace(batch_of(x), lengths=torch.tensor([1, 2, 10, 4, 3]))
    estimate_from(model, batch, normal(4, 5, 2), max_symbols=100)  # 50 symbols a draw
    assert model.calls == 2


def test_a_refined_posterior_is_the_proposal(x):
    wrong, right, batch = LinearGaussian(shift=2.0), LinearGaussian(), batch_of(x)
    bound = importance_bound(wrong, batch, 3, posterior=right.posterior(batch))
    torch.testing.assert_close(bound, right.log_marginal(x))


def test_without_a_latent_one_pass_is_exact(x):
    model, batch = Language(), batch_of(x)
    estimate = importance_estimate(model, batch, 200)
    assert model.calls == 1
    assert estimate.bound.equal(-x.float().sum(-1))
    assert estimate.rec.equal(estimate.bound)


def test_no_draw_is_an_error(x):
    with pytest.raises(ValueError, match="at least 1"):
        importance_bound(LinearGaussian(), batch_of(x), 0)


def test_mixture_density_agrees_with_torch():
    q, z = DiagGaussian(normal(6, 3), 0.3 * normal(6, 3, seed=2)), normal(11, 3, seed=3)
    components = Independent(Normal(q.mean, torch.exp(0.5 * q.logvar)), 1)
    expected = MixtureSameFamily(Categorical(torch.ones(6)), components).log_prob(z)
    torch.testing.assert_close(mixture_log_prob(q, z), expected)
    torch.testing.assert_close(mixture_log_prob(q, z, max_pairs=12), expected)  # rows in pairs


def test_information_of_separated_posteriors_is_ln_n():
    means = 50.0 * torch.arange(300.0)[:, None].expand(300, 2)
    result = information(DiagGaussian(means, torch.zeros(300, 2)))
    assert result.mi == pytest.approx(math.log(300), abs=1e-7)
    assert result.ceiling == pytest.approx(math.log(300))
    assert result.standard_error < 1e-7


def test_information_of_separated_narrow_posteriors_in_float32():
    q = DiagGaussian(torch.linspace(-3, 3, 40)[:, None], torch.full((40, 1), -16.0))
    assert information(q).mi == pytest.approx(math.log(40), abs=1e-6)


def test_information_of_identical_posteriors_is_exactly_zero():
    q = DiagGaussian(torch.full((50, 4), 0.3), torch.full((50, 4), -1.7))
    result = information(q, normal(3, 50, 4))
    assert (result.mi, result.standard_error) == (0.0, 0.0)
    assert result.marginal_kl == result.kl > 0
    prior = ConstantEncoder(4)(batch_of(torch.zeros(50, 1)))
    assert information(prior).marginal_kl == 0


def test_information_without_a_latent_is_zero():
    result = information(ConstantEncoder(0)(batch_of(torch.zeros(50, 1))))
    assert (result.mi, result.kl, result.marginal_kl) == (0.0, 0.0, 0.0)


def integrated(mean, logvar):
    """I and KL(q(z) || p) of a one-dimensional q, by a fine sum over z."""
    z = torch.linspace(-15, 15, 300_001, dtype=torch.float64)
    components = Normal(mean, torch.exp(0.5 * logvar)).log_prob(z)  # (N, grid)
    marginal = components.logsumexp(0) - math.log(len(mean))
    step = float(z[1] - z[0])
    mi = (components.exp() * (components - marginal)).sum(1).mean() * step
    log_p = Normal(0.0, 1.0).log_prob(z)
    return float(mi), float((marginal.exp() * (marginal - log_p)).sum() * step)


@pytest.mark.parametrize("spread", [0.1, 1.0, 2.5])
def test_information_agrees_with_numerical_integration(spread):
    mean, logvar = spread * normal(8, 1), 0.5 * normal(8, 1, seed=2)
    expected, marginal_kl = integrated(mean, logvar)
    result = information(DiagGaussian(mean, logvar), normal(10_000, 8, 1, seed=3))
    assert result.mi == pytest.approx(expected, rel=0.02)
    assert result.marginal_kl == pytest.approx(marginal_kl, rel=0.02, abs=0.002)
    assert result.kl == pytest.approx(result.mi + result.marginal_kl)


def test_no_draw_exceeds_the_ceiling():
    for seed in range(5):
        q = DiagGaussian(3 * normal(60, 2, seed=seed), normal(60, 2, seed=seed + 9) - 2)
        noise = RowNoise(seed, Purpose.MIXTURE, range(60))
        found = pointwise_information(q, 3, noise=noise)  # (K, N)
        assert found.lower.max() <= math.log(60) + 1e-9
        assert found.lower.max() > math.log(60) - 1  # some come near


def test_information_is_computed_over_the_whole_set():
    means = 100.0 * torch.arange(64.0)[:, None]
    whole = information(DiagGaussian(means, torch.zeros(64, 1))).mi
    part = information(DiagGaussian(means[:8], torch.zeros(8, 1))).mi
    assert whole == pytest.approx(math.log(64))
    assert part == pytest.approx(math.log(8))


def test_chunks_of_pairs_change_nothing():
    q, noise = DiagGaussian(normal(50, 3), -normal(50, 3).abs()), normal(2, 50, 3, seed=4)
    whole = information(q, noise)
    cut = information(q, noise, max_pairs=170)  # 3 draws at once, the last 2
    assert cut.mi == pytest.approx(whole.mi, abs=1e-12)


def test_standard_error_is_that_of_the_mean_over_examples():
    q = DiagGaussian(normal(200, 2), torch.full((200, 2), -1.0, dtype=torch.float64))
    results = [information(q, normal(1, 200, 2, seed=s)) for s in range(60)]
    spread = float(torch.tensor([r.mi for r in results]).std())
    assert 0.5 * spread < results[0].standard_error < 2 * spread


def test_information_is_summarized_by_hand():
    lower = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
    by_example = PointwiseInformation(lower, lower + 0.5)
    found = summarize_information(by_example, torch.full((4, 2), 2.0))
    assert (found.mi, found.kl, found.marginal_kl, found.upper) == (3, 4, 1, 3.5)
    assert summarize_information(by_example, torch.full((4, 2), 1.6)).upper == pytest.approx(3.2)
    assert summarize_information(by_example, torch.full((4, 2), 1.0)).upper == 3  # never below
    assert found.standard_error == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    one = PointwiseInformation(lower[:1], lower[:1])
    assert summarize_information(one, torch.ones(1)).standard_error == 0


def test_both_estimates_of_information_by_hand():
    q = DiagGaussian(normal(5, 2), normal(5, 2, seed=2))
    noise = normal(3, 5, 2, seed=3)
    found = pointwise_information(q, 3, noise=FixedNoise(noise))
    for n in range(5):
        log_q = Independent(Normal(q.mean[:, None], torch.exp(0.5 * q.logvar)[:, None]), 1)
        z = q.mean[n] + torch.exp(0.5 * q.logvar[n]) * noise[:, n]  # (3, Z)
        densities = log_q.log_prob(z).exp()  # (5, 3)
        others = densities[[m for m in range(5) if m != n]].mean(0)
        lower, upper = (torch.log(densities[n] / p).mean() for p in (densities.mean(0), others))
        torch.testing.assert_close(found.lower[n], lower)
        torch.testing.assert_close(found.upper[n], upper)


@pytest.mark.parametrize("count", [100, 1000])
@pytest.mark.parametrize("nats", [2.0, 4.0, 6.0])
def test_the_information_of_all_examples_lies_between_the_estimates(nats, count):
    """q(z) is the prior, so that MI = KL; few examples show only a part of much information."""
    sd = math.exp(-nats / 8)  # of 8 dimensions
    found = []
    for seed in range(20):
        means = math.sqrt(1 - sd**2) * normal(count, 8, seed=seed)
        q = DiagGaussian(means, torch.full((count, 8), 2 * math.log(sd), dtype=torch.float64))
        found.append(
            pointwise_information(q, noise=FixedNoise(normal(1, count, 8, seed=seed + 99)))
        )
    lower, upper = (torch.stack([each[i].mean() for each in found]) for i in (0, 1))
    assert lower.mean() < nats + 4 * lower.std() / 20**0.5
    assert upper.mean() > nats - 4 * upper.std() / 20**0.5
    if nats == 6:
        assert lower.max() < nats < upper.min()


def test_the_effective_sample_size_is_at_most_k_however_unlikely_an_example():
    class Unlikely(LinearGaussian):
        def log_likelihood(self, batch, z):
            return torch.full(z.shape[:2], -30_000.3)

        def posterior(self, batch):  # the prior
            return DiagGaussian(torch.zeros(len(batch), 2), torch.zeros(len(batch), 2))

    found = importance_estimate(Unlikely(), batch_of(normal(4, 3)), 200)
    torch.testing.assert_close(found.effective, torch.full((4,), 200.0).double())


def test_one_example_tells_nothing():
    q = DiagGaussian(normal(1, 2), normal(1, 2))
    found = information(q)
    assert found.mi == 0 and found.upper == found.kl > 0  # of others, only the KL is known


def test_the_effective_sample_size_by_hand():
    model, batch = LinearGaussian(widen=1.0), batch_of(normal(4, 3))
    draws = normal(6, 4, 2, seed=5)
    found = estimate_from(model, batch, draws)
    z = model.posterior(batch).rsample(6, FixedNoise(draws))
    q = model.posterior(batch)
    weight = model.log_likelihood(batch, z) + PRIOR.log_prob(z) - q.log_prob(z)
    weight = weight.exp()
    torch.testing.assert_close(found.effective, weight.sum(0) ** 2 / weight.square().sum(0))
    exact = estimate_from(LinearGaussian(), batch, draws)  # all weights are p(x)
    torch.testing.assert_close(exact.effective, torch.full((4,), 6.0, dtype=torch.float64))


def test_active_units_by_hand():
    sd = torch.tensor([0.0, 0.09, 0.11, 0.15, 1.0], dtype=torch.float64)  # var 0.0081 … 1
    means = 5.0 + sd * torch.tensor([1.0, -1.0] * 500, dtype=torch.float64)[:, None]
    torch.testing.assert_close(mean_variances(means), sd.square())
    assert active_units(means) == 3
    assert active_units(means, threshold=0.02) == 2
    assert active_units(means, threshold=1.0) == 1  # the threshold itself counts


def test_active_units_are_computed_over_the_whole_set():
    means = torch.cat([torch.tensor([[1.0, 0.0]] * 10), torch.tensor([[-1.0, 0.0]] * 10)])
    assert active_units(means) == 1
    assert active_units(means[10:]) == 0


class Plain(DiagGaussian):
    """The same posterior without its shortcuts."""

    kl_to = pairwise_log_prob = None


def test_a_posterior_without_shortcuts_has_the_same_information():
    q, noise = DiagGaussian(normal(50, 3), -normal(50, 3).abs()), normal(400, 50, 3, seed=4)
    plain, prior = Plain(*q), StandardNormal(3)
    draws = q.rsample(400, FixedNoise(noise))
    estimated = kl(plain, prior, draws)  # kl_to is None: from the draws
    assert estimated.shape == (50, 1)
    found = mutual_information(plain, estimated, 400, noise=FixedNoise(noise), max_pairs=600)
    expected = information(q, noise)
    assert found.mi == pytest.approx(expected.mi, abs=1e-9)
    assert found.kl == pytest.approx(expected.kl, rel=0.02)
    assert found.kl == found.mi + found.marginal_kl


@pytest.mark.parametrize("kind", [DiagGaussian, Plain])
def test_memory_of_pairs_is_bounded(kind):
    q = kind(normal(400, 2), -normal(400, 2).abs())
    with LargestTensor() as largest:
        mutual_information(q, torch.zeros(400), max_pairs=4000)
    assert largest.bytes <= 8 * 4000


def test_minibatch_information_by_hand():
    """Four posteriors N(m, 1) in batches of 2, 1 and 1, one draw each."""
    means = torch.tensor([[0.0], [2.0], [5.0], [9.0]], dtype=torch.float64)
    draws = torch.tensor([0.5, -1.0, 0.3, 2.0], dtype=torch.float64).reshape(1, 4, 1)
    batches = [torch.tensor([0, 1]), torch.tensor([3]), torch.tensor([2])]
    found = minibatch_information(
        DiagGaussian(means, torch.zeros(4, 1)), batches, noise=FixedNoise(draws)
    )
    # z = 0.5 and 1: log N(z; own) - log (N(z; 0) + N(z; 2)) / 2; a batch of one has no information
    first = -(0.5**2) / 2 - math.log((math.exp(-(0.5**2) / 2) + math.exp(-(1.5**2) / 2)) / 2)
    second = -(1.0**2) / 2 - math.log((math.exp(-(1.0**2) / 2) + math.exp(-(1.0**2) / 2)) / 2)
    assert found == pytest.approx((first + second) / 4, abs=1e-12)


def test_minibatch_information_cannot_exceed_the_batch():
    means = 100.0 * torch.arange(64.0)[:, None]
    q = DiagGaussian(means, torch.zeros(64, 1))
    batches = list(torch.arange(64).split(8))
    assert minibatch_information(q, batches) == pytest.approx(math.log(8))
    assert minibatch_information(q, [torch.arange(64)]) == pytest.approx(information(q).mi)


def test_minibatch_information_is_that_of_the_closed_form_in_expectation():
    """The code of vae-lagging-encoder: E[log q(z|x)] in closed form, log q(z) at one draw."""
    q = DiagGaussian(normal(6, 3), 0.5 * normal(6, 3, seed=2))
    batches = [torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5])]
    expected = 0.0
    for rows in batches:
        mean, logvar = q.mean[rows], q.logvar[rows]
        neg_entropy = (-1.5 * math.log(2 * math.pi) - 0.5 * (1 + logvar).sum(-1)).mean()
        z = mean + torch.exp(0.5 * logvar) * normal(20_000, 3, 3, seed=5)
        components = Normal(mean, torch.exp(0.5 * logvar)).log_prob(z[:, :, None]).sum(-1)
        expected += 3 * float(neg_entropy - (components.logsumexp(-1) - math.log(3)).mean())
    found = minibatch_information(q, batches, 20_000, noise=FixedNoise(normal(20_000, 6, 3)))
    assert found == pytest.approx(expected / 6, abs=0.02)


def test_minibatch_information_without_a_latent_is_zero():
    q = ConstantEncoder(0)(batch_of(torch.zeros(50, 1)))
    assert minibatch_information(q, [torch.arange(50)]) == 0.0


MEMORY = """
import torch
from textvae.training.devices import keep_freed_memory, peak_memory_mb
from textvae.vae.mixtures import mixture_log_prob
from textvae.vae.posteriors import DiagGaussian

keep_freed_memory()  # as in training
torch.set_num_threads(1)
gaps = [torch.randn(size) for size in range(50, 3000, 7)]
del gaps[::2]
q = DiagGaussian(torch.randn(10_000, 8, dtype=torch.float64), torch.zeros(10_000, 8).double())
before = peak_memory_mb()
mixture_log_prob(q, q.center(), max_pairs=2**20)  # 96 times 8 MB
print(peak_memory_mb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_information_of_many_examples_needs_the_memory_of_one_part():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200
