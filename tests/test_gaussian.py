"""The diagonal Gaussian against torch.distributions, moments and finite differences."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from textvae.vae.posteriors import DiagGaussian, log_prior


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
    torch.testing.assert_close(q.kl_to_prior(), kl_divergence(own, prior))


def test_kl_is_the_mean_of_log_q_minus_log_p(q):
    torch.manual_seed(1)
    z = q.rsample(200_000)
    estimate = (q.log_prob(z) - log_prior(z)).mean(0)
    torch.testing.assert_close(estimate, q.kl_to_prior().sum(-1), atol=0.05, rtol=0.02)


def test_log_prior_is_the_standard_normal():
    z = torch.randn(7, 4).double()
    expected = Independent(Normal(torch.zeros(4).double(), 1.0), 1).log_prob(z)
    torch.testing.assert_close(log_prior(z), expected)


def test_the_standard_gaussian_is_the_prior_and_its_kl_exactly_0():
    q = DiagGaussian.standard(2, 3, torch.device("cpu"))
    assert torch.equal(q.kl_to_prior(), torch.zeros(2, 3))
    z = torch.randn(4, 2, 3)
    torch.testing.assert_close(q.log_prob(z), log_prior(z))


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
        return z.square().sum() + q.kl_to_prior().sum() - q.log_prob(z).sum()

    assert torch.autograd.gradcheck(loss, (mean, logvar))


def test_no_latent_is_a_gaussian_too():
    q = DiagGaussian.standard(2, 0, torch.device("cpu"))
    z = q.rsample(3)
    assert z.shape == (3, 2, 0)
    assert torch.equal(q.log_prob(z), torch.zeros(3, 2))
    assert torch.equal(q.kl_to_prior().sum(-1), torch.zeros(2))
