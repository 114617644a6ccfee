"""The loss, the KL weight, and free bits, checked by hand."""

import math

import pytest
import torch

from textvae.vae.batch import Batch
from textvae.vae.contracts import Terms
from textvae.vae.objectives import elbo, free_bits, kl_weight
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.vae import VAE

KL = [[0.1, 2.0], [0.5, 4.0]]  # (B, Z): sums 2.1 and 4.5, means of the dimensions 0.3 and 3.0


def terms_of(rec: list[float], kl: torch.Tensor) -> Terms:
    log_px = torch.tensor([rec])  # one draw
    zeros = torch.zeros_like(log_px)
    q = DiagGaussian(torch.zeros_like(kl), torch.zeros_like(kl))
    return Terms(q, q.mean[None], log_px, zeros, zeros, kl)


def terms() -> Terms:
    return terms_of([-10.0, -20.0], torch.tensor(KL))


def test_the_loss_is_minus_the_mean_elbo():
    assert terms().elbo.tolist() == pytest.approx([-12.1, -24.5])
    assert float(elbo(terms())) == pytest.approx((12.1 + 24.5) / 2)


@pytest.mark.parametrize("beta", [0.0, 0.25, 3.0])
def test_beta_weights_only_the_kl(beta):
    assert float(elbo(terms(), beta)) == pytest.approx(15 + beta * 3.3)


def test_free_bits_are_weighted_like_the_kl():
    expected = 15 + 0.5 * (1.0 + 3.0)  # 2 nats over 2 dimensions: the first costs its 1
    assert float(elbo(terms(), 0.5, free_nats=2.0)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("per", "target", "expected", "gradient"),
    [
        # dim: each dimension's batch mean, 0.3 and 3.0, against target / 2
        ("dim", 0.2, 0.3 + 3.0, [[0.5, 0.5], [0.5, 0.5]]),
        ("dim", 2.0, 1.0 + 3.0, [[0.0, 0.5], [0.0, 0.5]]),
        ("dim", 8.0, 4.0 + 4.0, [[0.0, 0.0], [0.0, 0.0]]),
        # sample: each example's sum, 2.1 and 4.5
        ("sample", 2.0, (2.1 + 4.5) / 2, [[0.5, 0.5], [0.5, 0.5]]),
        ("sample", 3.0, (3.0 + 4.5) / 2, [[0.0, 0.0], [0.5, 0.5]]),
        ("sample", 5.0, 5.0, [[0.0, 0.0], [0.0, 0.0]]),
        # batch: the mean of the sums, 3.3
        ("batch", 3.0, 3.3, [[0.5, 0.5], [0.5, 0.5]]),
        ("batch", 4.0, 4.0, [[0.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_free_bits(per, target, expected, gradient):
    kl = torch.tensor(KL, requires_grad=True)
    paid = free_bits(kl, target, per)
    paid.backward()
    assert float(paid.detach()) == pytest.approx(expected)
    assert kl.grad.tolist() == gradient


def test_no_free_bits_is_the_plain_kl():
    for per in ("dim", "sample", "batch"):
        assert float(free_bits(torch.tensor(KL), 0.0, per)) == pytest.approx(3.3)


def test_free_bits_without_a_latent_cost_nothing():
    nothing = terms_of([-1.0, -3.0], torch.zeros(2, 0))
    assert float(elbo(nothing, 1.0, 0.0)) == pytest.approx(2.0)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="free_bits_per 'word'"):
        free_bits(torch.tensor(KL), 1.0, "word")
    with pytest.raises(ValueError, match="KL schedule 'cosine'"):
        kl_weight(1, "cosine", steps=3)


def test_a_constant_weight():
    assert [kl_weight(s, "constant", beta=0.4, start=0.1, steps=5) for s in (0, 3, 99)] == [0.4] * 3


def test_a_linear_weight():
    weights = [kl_weight(s, "linear", beta=1.0, start=0.1, steps=10) for s in (0, 1, 5, 10, 11, 99)]
    assert weights == pytest.approx([0.1, 0.19, 0.55, 1.0, 1.0, 1.0])


def test_a_linear_weight_over_no_steps_is_final_immediately():
    assert kl_weight(0, "linear", beta=0.7, start=0.1, steps=0) == 0.7


def test_a_cyclical_weight():
    weights = [kl_weight(s, "cyclical", beta=1.0, start=0.0, steps=8, ramp=0.5) for s in range(18)]
    cycle = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    assert weights == pytest.approx([*cycle, *cycle, 0.0, 0.25])


def test_a_cycle_that_rises_to_its_end_from_above_0():
    weights = [kl_weight(s, "cyclical", beta=2.0, start=1.0, steps=4, ramp=1.0) for s in range(5)]
    assert weights == pytest.approx([1.0, 1.25, 1.5, 1.75, 1.0])


class Fixed(torch.nn.Module):
    """A decoder with log-probability -1 per token; an encoder with a KL of 0.5 per dimension."""

    def forward(self, batch: Batch) -> DiagGaussian:
        return DiagGaussian(torch.ones(len(batch), 3), torch.zeros(len(batch), 3))

    def log_prob(self, batch: Batch, z: torch.Tensor) -> torch.Tensor:
        return -batch.lengths.float().expand(len(z), -1)


def test_sums_over_tokens_and_dimensions_means_over_examples_and_draws():
    lengths = torch.tensor([2, 7])
    batch = Batch(
        x=torch.zeros(2, 8), lengths=lengths, units=lengths, num_bytes=lengths, index=lengths
    )
    vae = VAE(Fixed(), Fixed(), prior=3)
    found = vae(batch, samples=4)
    assert found.rec.tolist() == [-2.0, -7.0]
    assert found.elbo.tolist() == [-3.5, -8.5]
    assert math.isclose(float(elbo(found)), 6.0)
