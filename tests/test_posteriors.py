"""Posteriors, priors and the KL against torch.distributions, moments and finite differences."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from textvae.vae.batch import Batch
from textvae.vae.heads import GaussianHead
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.posteriors import (
    ConstantEncoder,
    DiagGaussian,
    concatenate,
    kl,
    select,
)
from textvae.vae.priors import StandardNormal

PRIOR = StandardNormal(4)


@pytest.fixture
def q() -> DiagGaussian:
    torch.manual_seed(0)
    return DiagGaussian(torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4).double())


def reference(q: DiagGaussian) -> Independent:
    return Independent(Normal(q.mean, (0.5 * q.logvar).exp()), 1)


def test_log_prob_is_that_of_torch(q):
    z = torch.randn(5, 3, 4).double()
    torch.testing.assert_close(q.log_prob(z), reference(q).log_prob(z))
    assert q.log_prob(z).shape == (5, 3)


def test_kl_to_prior_is_that_of_torch_in_every_dimension(q):
    prior = Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))
    own = Normal(q.mean, (0.5 * q.logvar).exp())
    torch.testing.assert_close(kl(q, PRIOR), kl_divergence(own, prior))


def test_kl_is_the_mean_of_log_q_minus_log_p(q):
    torch.manual_seed(1)
    z = q.rsample(200_000)
    estimate = (q.log_prob(z) - PRIOR.log_prob(z)).mean(0)
    torch.testing.assert_close(estimate, kl(q, PRIOR).sum(-1), atol=0.05, rtol=0.02)


def test_log_prior_is_the_standard_normal():
    z = torch.randn(7, 4).double()
    expected = Independent(Normal(torch.zeros(4).double(), 1.0), 1).log_prob(z)
    torch.testing.assert_close(PRIOR.log_prob(z), expected)


def test_the_standard_gaussian_is_the_prior_and_its_kl_exactly_0():
    q = ConstantEncoder(3)(Batch(torch.zeros(2, 1)))
    assert torch.equal(kl(q, PRIOR), torch.zeros(2, 3))
    z = torch.randn(4, 2, 3)
    torch.testing.assert_close(q.log_prob(z), PRIOR.log_prob(z))


def test_draws_have_the_moments_of_q(q):
    torch.manual_seed(2)
    z = q.rsample(200_000)
    assert z.shape == (200_000, 3, 4)
    torch.testing.assert_close(z.mean(0), q.mean, atol=0.02, rtol=0.01)
    torch.testing.assert_close(z.var(0), q.logvar.exp(), atol=0.02, rtol=0.02)


def test_draws_of_one_example_are_independent_of_each_other(q):
    torch.manual_seed(3)
    z = (q.rsample(50_000)[:, 0] - q.mean[0]) / (0.5 * q.logvar[0]).exp()
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(4).double(), atol=0.03, rtol=0)


def test_gradients_flow_through_the_draw():
    torch.manual_seed(4)
    mean = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    logvar = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def loss(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)  # the same noise at every call
        q = DiagGaussian(mean, logvar)
        z = q.rsample(2)
        return z.square().sum() + kl(q, PRIOR).sum() - q.log_prob(z).sum()

    assert torch.autograd.gradcheck(loss, (mean, logvar))


def test_no_latent_is_a_gaussian_too():
    q = ConstantEncoder(0)(Batch(torch.zeros(2, 1)))
    z = q.rsample(3)
    assert z.shape == (3, 2, 0)
    assert torch.equal(q.log_prob(z), torch.zeros(3, 2))
    assert torch.equal(kl(q, PRIOR).sum(-1), torch.zeros(2))


class Plain:
    """A posterior without a closed form."""

    def __init__(self, q):
        self.rsample, self.log_prob, self.center = q.rsample, q.log_prob, q.center


def test_without_a_closed_form_the_kl_is_the_mean_log_ratio_of_the_draws(q):
    torch.manual_seed(6)
    z = q.rsample(100_000)
    estimate = kl(Plain(q), PRIOR, z)
    assert estimate.shape == (3, 1)
    torch.testing.assert_close(estimate[:, 0], kl(q, PRIOR).sum(-1), atol=0.05, rtol=0.02)


def test_kl_to_other_gaussians_is_that_of_torch(q):
    other = DiagGaussian(q.mean.flip(0), 0.3 * q.logvar.flip(0))
    own, theirs = (Normal(p.mean, (0.5 * p.logvar).exp()) for p in (q, other))
    torch.testing.assert_close(kl(q, other), kl_divergence(own, theirs))


def test_pairs_are_those_of_broadcasting(q):
    z = torch.randn(7, 4).double()
    torch.testing.assert_close(q.pairwise_log_prob(z), q.log_prob(z[:, None]))


def test_pairs_of_very_narrow_gaussians_do_not_cancel():
    mean = torch.tensor([[3.3, -7.1], [0.2, 5.0]], dtype=torch.float64)
    q = DiagGaussian(mean, torch.full_like(mean, -35.0))
    z = mean + 0.5 * math.exp(-17.5)  # half a deviation away
    torch.testing.assert_close(q.pairwise_log_prob(z).diagonal(), q.log_prob(z))


def test_pairs_of_means_far_from_0_do_not_cancel():
    mean = torch.tensor([[3000.0, -3000.0], [3001.0, 2990.0]], dtype=torch.float64)
    q = DiagGaussian(mean, torch.full_like(mean, -19.0))
    z = mean + 0.5 * math.exp(-9.5)
    expected = Normal(mean, math.exp(-9.5)).log_prob(z).sum(1)
    torch.testing.assert_close(q.pairwise_log_prob(z).diagonal(), expected, rtol=1e-5, atol=1e-5)


def test_a_head_computes_in_full_precision_for_any_input():
    head = GaussianHead(5, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(torch.randn(3, 5).bfloat16())
    assert found.mean.dtype == found.logvar.dtype == torch.float32
    assert found.mean.shape == (3, 2)


def test_posteriors_are_joined_and_selected_by_example(q):
    joined = concatenate([select(q, torch.tensor([2])), select(q, torch.tensor([0, 1]))])
    assert torch.equal(joined.mean, q.mean[[2, 0, 1]])
    assert torch.equal(joined.logvar, q.logvar[[2, 0, 1]])


def test_a_prior_draws_the_same_rows_however_many():
    noise = RowNoise(3, Purpose.LATENT, range(9))
    many, few = PRIOR.sample(9, noise), PRIOR.sample(4, noise._replace(rows=range(4)))
    assert torch.equal(many[:4], few)
    assert many.shape == (9, 4)
