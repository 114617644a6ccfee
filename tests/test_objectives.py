"""Objectives, the KL weight, and free bits, checked by hand."""

import math
from typing import NamedTuple

import pytest
import torch
from test_estimators import LinearGaussian, batch_of

from textvae.builders.model import build_objective, check_model
from textvae.config.combinations import NEEDS, options_without_effect
from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.vae.batch import Batch
from textvae.vae.contracts import AdaptiveObjective, Terms
from textvae.vae.objectives import (
    WithDensityGap,
    WithMinimumKL,
    WithMMD,
    density_gap,
    elbo,
    free_bits,
    iwae,
    kl_weight,
    mmd,
)
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.priors import StandardNormal
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
    assert float(elbo(terms(), 0.5, free_nats=2.0, per="dim")) == pytest.approx(expected)


def test_free_bits_are_per_example_and_dimension_by_default():
    expected = 15 + 0.5 * (0.3 + 2.0 + 0.5 + 4.0) / 2  # 0.3 nats per entry: only 0.1 costs more
    assert float(elbo(terms(), 0.5, free_nats=0.6)) == pytest.approx(expected)
    assert float(elbo(terms(), 0.5, free_nats=0.6, per="dim")) < expected - 0.01


@pytest.mark.parametrize(
    ("per", "target", "expected", "gradient"),
    [
        # element: each entry, 0.1, 2.0, 0.5, and 4.0, against target / 2
        ("element", 0.1, 3.3, [[0.5, 0.5], [0.5, 0.5]]),
        ("element", 0.6, (0.3 + 2.0 + 0.5 + 4.0) / 2, [[0.0, 0.5], [0.5, 0.5]]),
        ("element", 2.0, (1.0 + 2.0 + 1.0 + 4.0) / 2, [[0.0, 0.5], [0.0, 0.5]]),
        ("element", 6.0, (3.0 + 3.0 + 3.0 + 4.0) / 2, [[0.0, 0.0], [0.0, 0.5]]),
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
    for per in ("element", "dim", "sample", "batch"):
        assert float(free_bits(torch.tensor(KL), 0.0, per)) == pytest.approx(3.3)


def test_free_bits_without_a_latent_cost_nothing():
    nothing = terms_of([-1.0, -3.0], torch.zeros(2, 0))
    for per in ("element", "dim", "sample", "batch"):
        for target in (0.0, 3.0):
            assert float(elbo(nothing, 1.0, target, per)) == pytest.approx(2.0)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="free_bits_per 'word'"):
        free_bits(torch.tensor(KL), 1.0, "word")
    with pytest.raises(ValueError, match="KL schedule 'none of them'"):
        kl_weight(1, "none of them")
    with pytest.raises(ValueError, match=r"ramp 0\.0: must be above 0"):
        kl_weight(1, "cyclical", steps=3, ramp=0.0)


def test_a_constant_weight():
    assert [kl_weight(s, "constant", beta=0.4, start=0.1, steps=5) for s in (0, 3, 99)] == [0.4] * 3


def test_a_linear_weight():
    weights = [kl_weight(s, "linear", beta=1.0, start=0.1, steps=10) for s in (0, 1, 5, 10, 11, 99)]
    assert weights == pytest.approx([0.1, 0.19, 0.55, 1.0, 1.0, 1.0])


def test_a_linear_weight_over_no_steps_is_final_immediately():
    assert kl_weight(0, "linear", beta=0.7, start=0.1, steps=0) == 0.7


def test_a_logistic_weight_is_a_sigmoid_from_start_to_beta():
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    low, high = sigmoid(-5), sigmoid(5)
    shares = [(sigmoid(10 * (s / 8 - 0.5)) - low) / (high - low) for s in range(9)]
    for beta, start in ((1.0, 0.0), (0.25, 0.1), (3.0, 0.5), (0.5, 2.0)):
        weights = [kl_weight(s, "logistic", beta=beta, start=start, steps=8) for s in range(9)]
        assert weights == pytest.approx([start + (beta - start) * share for share in shares])
        assert (weights[0], weights[4]) == pytest.approx((start, (start + beta) / 2))
        assert kl_weight(99, "logistic", beta=beta, start=start, steps=8) == pytest.approx(beta)


def test_a_cyclical_weight():
    weights = [kl_weight(s, "cyclical", beta=1.0, start=0.0, steps=8, ramp=0.5) for s in range(18)]
    cycle = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    assert weights == pytest.approx([*cycle, *cycle, 0.0, 0.25])


def test_a_cycle_that_rises_to_its_end_from_above_0():
    weights = [kl_weight(s, "cyclical", beta=2.0, start=1.0, steps=4, ramp=1.0) for s in range(5)]
    assert weights == pytest.approx([1.0, 1.25, 1.5, 1.75, 1.0])


def test_warm_ups_of_other_code_are_those_of_its_page():
    """docs/from-other-code.md, with 100 updates per epoch, counted from 1 there."""
    for update in range(1, 1500):
        of_sa_vae = min(1.0, 0.1 + update / (10 * 100))  # warmup 10
        assert kl_weight(update, "linear", start=0.1, steps=900) == pytest.approx(of_sa_vae)
        of_li = min(1.0, 0.1 + update * (1 - 0.1) / (10 * 100))  # warm_up 10, kl_start 0.1
        assert kl_weight(update, "linear", start=0.1, steps=1000) == pytest.approx(of_li)
        restarted = update % 1000
        of_fu = min(1.0, 0.1 + restarted / (5 * 100))  # cycle 10, warmup 5
        found = kl_weight(update, "cyclical", start=0.1, steps=1000, ramp=0.45)
        assert found == pytest.approx(of_fu)
        of_sentence_vae = 1 / (1 + math.exp(-(5 / 250) * (update - 250)))  # x0 = 250, k = 5 / x0
        found = kl_weight(update, "logistic", steps=500)
        assert found == pytest.approx(of_sentence_vae, abs=0.007)


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


def linear_gaussian(samples: int, **wrong: float) -> tuple[Terms, torch.Tensor]:
    """The terms of a VAE whose log p(x) is known, and log p(x)."""
    torch.manual_seed(0)
    model, x = LinearGaussian(**wrong), torch.randn(4, 3, dtype=torch.float64)
    vae = VAE(Wrapped(model), Wrapped(model), model.prior)
    return vae(batch_of(x), samples), model.log_marginal(x)


class Wrapped(torch.nn.Module):
    """The encoder and the decoder of a linear-Gaussian model."""

    def __init__(self, model: LinearGaussian) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> DiagGaussian:
        return self.model.posterior(batch)

    def log_prob(self, batch: Batch, z: torch.Tensor) -> torch.Tensor:
        return self.model.log_likelihood(batch, z)


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_iwae_with_one_draw_is_the_elbo_of_that_draw(beta):
    one, _ = linear_gaussian(1, shift=0.3, widen=0.5)
    estimated = one._replace(kl=(one.log_qz - one.log_pz).mean(0)[:, None])
    torch.testing.assert_close(iwae(one, beta), elbo(estimated, beta))


def test_iwae_converges_to_log_p():
    wrong = {"shift": 0.3, "widen": 0.5}
    losses = []
    for samples in (1, 10, 100, 20_000):
        found, log_p = linear_gaussian(samples, **wrong)
        losses.append(float(iwae(found) + log_p.mean()))
    assert abs(losses[-1]) < 0.01 < losses[0]
    exact, log_p = linear_gaussian(3)  # with the exact posterior, every weight is log p(x)
    torch.testing.assert_close(iwae(exact), -log_p.mean())


def test_iwae_adds_the_loss_of_the_encoder():
    found, _ = linear_gaussian(3)
    extra = torch.arange(4.0, dtype=torch.float64)
    with_encoder = found._replace(encoder_loss=extra)
    torch.testing.assert_close(iwae(with_encoder), iwae(found) + 1.5)


def test_mmd_is_0_for_equal_sets_and_known_for_shifted_ones():
    x = torch.randn(50, 3, dtype=torch.float64)
    assert float(mmd(x, x[torch.randperm(50)])) == pytest.approx(0, abs=1e-12)
    a, b = torch.zeros(4, 2), torch.tensor([[3.0, 4.0]]).expand(6, 2)  # at a distance of 5
    constants = [4 * scale for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
    assert float(mmd(a, b)) == pytest.approx(2 * 7 - 2 * sum(c / (c + 25) for c in constants))
    shifts = [float(mmd(x, x + shift)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert shifts == sorted(shifts) and shifts[1] > 0.01


def test_the_gradient_of_mmd():
    torch.manual_seed(1)
    x, y = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 4))
    assert torch.autograd.gradcheck(mmd, (x, y))


def test_mmd_compares_all_draws_with_the_prior_and_joins_any_objective():
    found, _ = linear_gaussian(3)
    for objective in (elbo, iwae):
        torch.manual_seed(5)
        loss = WithMMD(objective, 10.0)(found, 0.5)
        torch.manual_seed(5)
        draws = StandardNormal(2).sample(12).double()
        expected = objective(found, 0.5) + 10 * mmd(found.z.reshape(12, 2), draws)
        torch.testing.assert_close(loss, expected)


def test_the_prior_does_not_learn_from_the_mmd():
    class Moving(StandardNormal):
        """A prior whose draws have gradients."""

        def __init__(self):
            super().__init__(2)
            self.shift = torch.nn.Parameter(torch.ones(2))

        def sample(self, count, noise=None):
            return super().sample(count, noise) + self.shift

    found, prior = linear_gaussian(3)[0], Moving()
    z = found.z.detach().requires_grad_()
    WithMMD(elbo, 10.0)(found._replace(z=z, prior=prior), 1.0).backward()
    assert float(z.grad.abs().sum()) > 0 and prior.shift.grad is None


def gaussian(means, logvars) -> DiagGaussian:
    return DiagGaussian(
        torch.tensor(means, dtype=torch.float64), torch.tensor(logvars, dtype=torch.float64)
    )


def gap_by_integration(q: DiagGaussian) -> float:
    """The sum over dimensions of the integral of q(z_d) log q(z_d) / p(z_d)."""
    z = torch.linspace(-12, 12, 24001, dtype=torch.float64)[:, None]  # (M, 1)
    prior, total = torch.distributions.Normal(0.0, 1.0), 0.0
    for mean, logvar in zip(q.mean.t(), q.logvar.t(), strict=True):
        components = torch.distributions.Normal(mean, torch.exp(logvar / 2)).log_prob(z)  # (M, B)
        log_q = components.logsumexp(1) - math.log(len(mean))
        gaps = log_q.exp() * (log_q - prior.log_prob(z[:, 0]))
        total += float(torch.trapezoid(gaps, z[:, 0]))
    return total


def test_the_density_gap_is_the_kl_of_the_mixture_in_every_dimension():
    torch.manual_seed(0)
    q = gaussian([[-2.0, 0.3], [0.5, 1.0], [2.5, -0.7]], [[-1.0, -3.0], [0.2, -1.0], [-2.0, 0.0]])
    expected = gap_by_integration(q)
    assert float(density_gap(q, StandardNormal(2), draws=40_000)) == pytest.approx(
        expected, rel=0.01
    )
    assert expected < float(q.kl_to(StandardNormal(2)).sum(-1).mean()) - 1  # the KL is convex


def test_the_density_gap_of_equal_posteriors_is_their_kl():
    torch.manual_seed(0)
    for count in (1, 5):
        q = gaussian([[1.0, -0.5]] * count, [[-1.0, 0.4]] * count)
        kl = float(q.kl_to(StandardNormal(2))[0].sum())
        assert float(density_gap(q, StandardNormal(2), draws=60_000)) == pytest.approx(kl, rel=0.02)


def test_the_density_gap_vanishes_where_the_mixture_is_the_prior():
    torch.manual_seed(0)
    means = math.sqrt(0.75) * torch.randn(2000, 3, dtype=torch.float64)
    q = DiagGaussian(means, torch.full_like(means, math.log(0.25)))  # 0.75 + 0.25 = 1
    assert float(density_gap(q, StandardNormal(3))) == pytest.approx(0, abs=0.02)
    assert float(q.kl_to(StandardNormal(3)).sum(-1).mean()) > 1.5  # although z says a lot


def test_the_gradient_of_the_density_gap():
    def gap(mean, logvar):
        torch.manual_seed(3)
        return density_gap(DiagGaussian(mean, logvar), StandardNormal(2), draws=3)

    torch.manual_seed(1)
    parts = [torch.randn(4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(gap, parts)


def test_the_density_gap_joins_any_objective():
    found, _ = linear_gaussian(3)
    for objective in (elbo, iwae):
        torch.manual_seed(5)
        loss = WithDensityGap(objective, 2.0)(found, 0.5)
        torch.manual_seed(5)
        expected = objective(found, 0.5) + 2 * density_gap(found.q, found.prior)
        torch.testing.assert_close(loss, expected)


def test_the_density_gap_needs_densities_of_single_dimensions():
    class Joint(NamedTuple):
        """A posterior whose dimensions depend on each other."""

        z: torch.Tensor

    with pytest.raises(TypeError, match="the density gap needs Joint"):
        density_gap(Joint(torch.zeros(2, 2)), StandardNormal(2))


def mean(value: torch.Tensor) -> torch.Tensor:
    """The mean over one process."""
    return value


def test_the_multiplier_of_a_minimum_kl_climbs_by_hand():
    objective = WithMinimumKL(elbo, target=6.6, rate=0.1, damping=0.4)  # the KL is 3.3
    assert isinstance(objective, AdaptiveObjective) and not isinstance(elbo, AdaptiveObjective)
    loss = float(objective(terms(), 0.5))
    assert loss == pytest.approx(15 + 0.5 * 3.3 + 0.4 * 0.5 * (6.6 - 3.3))
    objective.after_update(mean)
    assert float(objective.multiplier) == pytest.approx(0.1 * 0.5)
    leaf = torch.tensor(KL, requires_grad=True)
    loss = objective(terms_of([-10.0, -20.0], leaf), 0.5)
    assert float(loss.detach()) == pytest.approx(15 + 0.5 * 3.3 + (0.05 + 0.2) * (6.6 - 3.3))
    loss.backward()
    assert leaf.grad.flatten().tolist() == pytest.approx([(0.5 - 0.25) / 2] * 4)
    much = objective(terms_of([-1.0, -1.0], torch.full((2, 2), 9.9)), 0.5)  # one more batch
    assert float(much) == pytest.approx(1 + 0.5 * 19.8)  # 0.05 + 0.4 (1 - 3) would be negative
    objective.after_update(mean)  # the mean KL is 11.55
    assert float(objective.multiplier) == 0  # 0.05 + 0.1 (1 - 1.75) would be negative
    objective.multiplier = torch.tensor(0.7)
    resumed = WithMinimumKL(elbo, target=6.6)
    resumed.load_state_dict(objective.state_dict())
    assert float(resumed.multiplier) == pytest.approx(0.7)


def test_every_example_of_an_update_counts_the_same_for_a_minimum_kl():
    objective = WithMinimumKL(elbo, target=2.0, rate=0.5)
    for kl in (torch.ones(1, 1), torch.zeros(3, 1)):  # two batches, of which the mean is 0.25
        objective(terms_of([-1.0] * len(kl), kl), 1.0)
    objective.after_update(mean)
    assert float(objective.multiplier) == pytest.approx(0.5 * (1 - 0.25 / 2))


@pytest.mark.parametrize("gain", [0.0, 0.6], ids=["collapsed", "informative"])
def test_the_kl_settles_at_its_minimum(gain):
    """Minimize KL - gain log(1 + KL) subject to KL >= 2: the multiplier is the slope at 2."""
    m = torch.tensor([[0.1]], requires_grad=True)
    objective = WithMinimumKL(elbo, target=2.0)
    optimizer = torch.optim.SGD([m], lr=0.05)
    for _ in range(4000):
        kl = 0.5 * m.square()
        learned = terms_of([0.0], kl)._replace(log_px=gain * kl.log1p())
        optimizer.zero_grad()
        objective(learned, 1.0).backward()
        optimizer.step()
        objective.after_update(mean)
    assert float(0.5 * m.detach().square()) == pytest.approx(2.0, abs=0.01)
    assert float(objective.multiplier) == pytest.approx(1 - gain / 3, abs=0.01)


def config(**sections) -> Config:
    return Config.load(**sections)


def test_the_config_builds_what_it_says():
    found, _ = linear_gaussian(3)

    def loss(**options) -> torch.Tensor:
        torch.manual_seed(2)
        return build_objective(config(objective=options))(found, 0.5)

    torch.manual_seed(2)
    penalty = WithMMD(lambda *_: torch.zeros(()), 2.0)(found)
    torch.testing.assert_close(loss(free_bits=1.0), elbo(found, 0.5, 1.0, "element"))
    torch.testing.assert_close(loss(bound="iwae"), iwae(found, 0.5))
    torch.testing.assert_close(loss(mmd=2.0), elbo(found, 0.5) + penalty)
    torch.manual_seed(2)
    gap = 3 * density_gap(found.q, found.prior)
    torch.testing.assert_close(loss(density_gap=3.0), elbo(found, 0.5) + gap)
    torch.testing.assert_close(loss(bound="iwae", mmd=2.0), iwae(found, 0.5) + penalty)
    assert build_objective(config(objective={"min_kl": 3.0})).target == 3.0


def test_free_bits_of_a_learned_prior_are_not_per_dimension(caplog):
    with caplog.at_level("INFO"):
        build_objective(config(objective={"free_bits": 2.0}))
        assert not caplog.text
        build_objective(config(objective={"free_bits": 2.0}, model={"prior": "mixture"}))
    assert "the KL to a learned prior is not a sum over dimensions" in caplog.text


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"objective": {"bound": "iwae", "free_bits": 2.0}}, "free_bits has no effect"),
        (
            {"objective": {"mmd": 1.0}, "model": {"latent_dim": 0, "injection": "none"}},
            "mmd needs a latent variable",
        ),
        (
            {"objective": {"min_kl": 1.0}, "model": {"encoder_layers": 0}}
            | {"inference": {"method": "svi"}},
            "min_kl trains the encoder",
        ),
        (
            {"objective": {"mmd": 1.0}, "inference": {"method": "semi_amortized", "encoder": "kl"}},
            "mmd trains the encoder",
        ),
        (
            {"objective": {"density_gap": 1.0}, "model": {"latent_dim": 0, "injection": "none"}},
            "density_gap needs a latent variable",
        ),
        (
            {"objective": {"density_gap": 1.0, "beta": 0.0}, "model": {"posterior": "vmf"}},
            "density_gap compares single dimensions",
        ),
        *(
            (
                {"data": {"max_tokens": 500}}
                | {"inference": {"method": "semi_amortized", option: "batch", other: "example"}},
                "makes batches of different sizes",
            )
            for option, other in (("loss_per", "clip_per"), ("clip_per", "loss_per"))
        ),
    ],
)
def test_a_combination_without_meaning_is_one_line(sections, message):
    with pytest.raises(UserError, match=message) as caught:
        check_model(config(**sections))
    assert "\n" not in str(caught.value)


def test_what_refinement_passes_on_may_be_constrained():
    unrolled = {"method": "semi_amortized"}
    constraints = {"mmd": 1.0, "density_gap": 1.0, "min_kl": 2.0}
    check_model(config(objective=constraints, inference=unrolled))


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        (
            {"model": {"kappa": 50.0}},
            "--model.kappa 50.0 has no effect without --model.posterior vmf",
        ),
        (
            {"objective": {"free_bits": 4.0, "beta": 0.0}},
            "--objective.free_bits 4.0 has no effect without an --objective.beta above 0",
        ),
        (
            {"objective": {"bound": "iwae"}},
            "--objective.bound iwae has no effect without --objective.samples above 1",
        ),
        (
            {"model": {"posterior": "vmf"}, "objective": {"beta": 0.5}},
            "--objective.beta 0.5 has no effect without a posterior whose KL is not constant",
        ),
        (
            {"objective": {"beta": 0.0, "kl_schedule": "cyclical", "kl_ramp": 0.25}},
            "--objective.kl_schedule cyclical has no effect without an --objective.beta above 0",
        ),
        (
            {"optim": {"name": "adam", "momentum": 0.9}},
            "--optim.momentum 0.9 has no effect without an SGD optimizer",
        ),
        (
            {"optim": {"schedule": "cosine", "max_decays": 3}},
            "--optim.max_decays 3 has no effect without --optim.schedule plateau",
        ),
        (
            {"train": {"init_parts": "encoder"}},
            "--train.init_parts encoder has no effect without --train.init",
        ),
    ],
)
def test_an_option_that_has_no_effect_is_said_to_have_none(sections, line):
    assert options_without_effect(config(**sections)) == [line]


ENCODERLESS = {"model": {"encoder_layers": 0}, "inference": {"method": "svi"}}


@pytest.mark.parametrize(
    ("option", "value", "needed", "more"),
    [
        ("model.head_scale", 0.3, {"model": {"head": "scale"}}, {}),
        ("model.prior_components", 7, {"model": {"prior": "mixture"}}, {}),
        ("model.condition_dim", 7, {"model": {"condition": "label"}}, {}),
        ("model.encoder_noise_rate", 0.7, {"model": {"encoder_noise": "mask"}}, {}),
        ("model.pooling", "mean", {}, ENCODERLESS),
        ("objective.free_bits_per", "dim", {"objective": {"free_bits": 4.0}}, {}),
        ("objective.kl_ramp", 0.3, {"objective": {"kl_schedule": "cyclical"}}, {}),
        ("objective.bound", "iwae", {"objective": {"samples": 2}}, {}),
        ("optim.momentum", 0.9, {"optim": {"name": "sgd"}}, {"optim": {"name": "adam"}}),
        *(
            (
                "optim.momentum",
                0.9,
                {"optim": {"name": "adam", name: "sgd"}},
                {"optim": {"name": "adam"}},
            )
            for name in ("encoder_name", "autoencode_name")
        ),
        ("optim.encoder_lr", 0.3, {"optim": {"encoder_name": "adam"}}, {}),
        ("optim.autoencode_lr", 0.3, {"optim": {"autoencode_name": "adam"}}, {}),
        ("train.aggressive_patience", 3, {"train": {"procedure": "aggressive"}}, {}),
        ("train.autoencode_decoder", "keep", {"train": {"autoencode_epochs": 1.0}}, {}),
        ("train.init_parts", "decoder", {"train": {"init": "run"}}, {}),
    ],
)
def test_an_option_is_named_only_without_the_one_that_it_needs(option, value, needed, more):
    section, name = option.split(".")

    def lines(sections):
        return options_without_effect(
            config(**sections | {section: sections.get(section, {}) | {name: value}})
        )

    assert lines(needed) == []
    (line,) = lines(more)
    assert line.startswith(f"--{option} {value} has no effect without ")


def test_options_with_an_effect_are_not_named():
    for option in NEEDS:
        section, name = option.split(".")
        assert hasattr(getattr(Config(), section), name)
    assert options_without_effect(config(model={"posterior": "vmf", "kappa": 50.0})) == []
    wae = {"objective": {"beta": 0.0, "mmd": 1.0}, "model": {"posterior": "vmf"}}
    assert options_without_effect(config(**wae)) == []
    assert options_without_effect(config(model={"latent_dim": 0, "kappa": 50.0})) == []


def test_free_bits_that_reach_nothing_are_refused():
    def check(**options):
        check_model(Config.load(objective={"free_bits": 4.0}, **options))

    svi = {"inference": {"method": "svi"}, "model": {"encoder_layers": 0}}
    with pytest.raises(UserError, match="free_bits trains the encoder"):
        check(**svi)
    with pytest.raises(UserError, match="free_bits trains the encoder"):
        check(inference={"method": "semi_amortized", "encoder": "elbo"})
    check(inference=svi["inference"], model=svi["model"] | {"prior": "mixture"})
    check(model={"latent_dim": 0})
    check(inference={"method": "semi_amortized"})


@pytest.mark.parametrize("penalty", [WithMMD, WithDensityGap])
def test_an_adaptive_objective_goes_around_a_penalty(penalty):
    with pytest.raises(TypeError, match=f"put {penalty.__name__} inside WithMinimumKL"):
        penalty(WithMinimumKL(elbo, 1.0), 1.0)
