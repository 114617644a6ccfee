"""What training minimizes: minus a bound on log p(x), the weight of the KL, penalties.

    elbo = E_q[log p(x|z)] - KL(q(z|x) || p(z))                     (Kingma & Welling 2014)
    loss = mean over examples of  -E_q[log p(x|z)] + beta * KL      (beta = 1: minus the ELBO)

KL annealing: Bowman et al. 2016 (linear, logistic), Fu et al. 2019 (cyclical). Constant beta other
than 1: Higgins et al. 2017. Free bits: Kingma et al. 2016, Li et al. 2019. Importance-weighted
bound: Burda et al. 2016. MMD: Zhao et al. 2019, Tolstikhin et al. 2018. Density gap: Zhang et al.
2022. Bag of words: Zhao et al. 2017. Minimum KL: Pelsmaeker & Aziz 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from textvae.config.choices import FreeBitsPer, Schedule
from textvae.vae.contracts import AdaptiveObjective, Objective, Posterior, Terms

STEEPNESS = 10.0  # of the logistic schedule: the sigmoid's argument goes from -5 to 5
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the MMD's kernels, as in Tolstikhin et al. 2018
GAP_DRAWS = 8  # of z per example, for the density gap


def kl_weight(
    step: int,
    schedule: Schedule = "constant",
    *,
    beta: float = 1.0,
    start: float = 0.0,
    steps: int = 0,
    ramp: float = 0.5,
) -> float:
    """Return the weight of the KL at an optimizer step.

    Args:
        step: Optimizer steps done so far.
        schedule: ``constant`` is beta throughout; ``linear`` rises from ``start`` to beta over
            ``steps``, and so does ``logistic``, along a sigmoid; ``cyclical`` restarts every
            ``steps``: each cycle rises from ``start`` to beta during its first ``ramp`` fraction,
            then stays at beta.
        beta: The final weight.
        start: The weight at the start of a rise.
        steps: Length of the rise, or of a cycle.
        ramp: Fraction of a cycle during which the weight rises.

    Raises:
        ValueError: Unknown schedule, or a cycle without a rise.
    """
    if schedule not in get_args(Schedule):
        raise ValueError(
            f"unknown KL schedule {schedule!r}: choose {', '.join(get_args(Schedule))}"
        )
    if ramp <= 0:
        raise ValueError(f"ramp {ramp}: must be above 0")
    if steps <= 0:
        return beta
    match schedule:
        case "constant":
            return beta
        case "linear":
            share = step / steps
        case "logistic":
            share = _logistic(min(1.0, step / steps))
        case "cyclical":
            share = (step % steps) / (ramp * steps)
    return start + (beta - start) * min(1.0, share)


def _logistic(share: float) -> float:
    """A sigmoid, shifted and scaled to rise from 0 at 0 to 1 at 1: tanh is a sigmoid."""
    half = STEEPNESS / 4
    return (math.tanh(half * (2 * share - 1)) / math.tanh(half) + 1) / 2


def free_bits(kl: Tensor, target: float, per: FreeBitsPer = "element") -> Tensor:
    """Return the mean KL with ``target`` free nats, a scalar.

    A KL below the target counts as the target, so it has no gradient.

    Args:
        kl: (B, Z) nats; (B, 1) with a learned prior, whose KL is not a sum over dimensions.
        target: Free nats in total; with ``element`` and ``dim``, each dimension gets ``target / Z``
            of them (with a learned prior, all of them).
        per: What is compared with the target: each dimension of each example (``element``), the
            batch mean of each dimension (``dim``), each example's sum (``sample``), or the batch
            mean of the sum (``batch``).

    Raises:
        ValueError: Unknown ``per``.
    """
    if not kl.size(1):  # a language model: there is nothing to be free
        return kl.sum(-1).mean()
    match per:
        case "element":
            return kl.clamp(min=target / kl.size(1)).sum(-1).mean()
        case "dim":
            return kl.mean(0).clamp(min=target / kl.size(1)).sum()
        case "sample":
            return kl.sum(-1).clamp(min=target).mean()
        case "batch":
            return kl.sum(-1).mean().clamp(min=target)
    raise ValueError(f"unknown free_bits_per {per!r}: element, dim, sample or batch")


def elbo(
    terms: Terms, beta: float = 1.0, free_nats: float = 0.0, per: FreeBitsPer = "element"
) -> Tensor:
    """Return the negative ELBO as a loss, a scalar in nats per example.

    Args:
        terms: What ``VAE.forward`` returned.
        beta: Weight of the KL.
        free_nats: Nats of KL that are not penalized; see ``free_bits``.
        per: What ``free_nats`` is compared with.
    """
    kl = free_bits(terms.kl, free_nats, per) if free_nats > 0 else terms.kl.sum(-1).mean()
    return _with_encoder_loss(beta * kl - terms.rec.mean(), terms)


def iwae(terms: Terms, beta: float = 1.0) -> Tensor:
    """Return the negative importance-weighted bound as a loss, a scalar in nats per example.

    With one draw, it is the negative ELBO with a KL estimated from that draw.

    Args:
        terms: What ``VAE.forward`` returned, with K draws of z per example.
        beta: Weight of log p(z) - log q(z|x) in the log importance weights.
    """
    log_weights = terms.log_px + beta * (terms.log_pz - terms.log_qz)  # (K, B)
    bound = log_weights.logsumexp(0) - math.log(len(log_weights))
    return _with_encoder_loss(-bound.mean(), terms)


def _with_encoder_loss(loss: Tensor, terms: Terms) -> Tensor:
    return loss if terms.encoder_loss is None else loss + terms.encoder_loss.mean()


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Estimate the squared maximum mean discrepancy of two distributions, a scalar.

    The kernel is a sum of inverse multiquadratics C / (C + ||x - y||^2) with C = 2 Z s for seven
    scales s. The estimate averages over all pairs: it is never negative, and 0 for equal sets.

    Args:
        x: Draws from one distribution (N, Z).
        y: Draws from the other (M, Z).
    """
    return _kernel(x, x).mean() + _kernel(y, y).mean() - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """The kernel of all pairs, (N, M)."""
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    distances = (norms - 2 * x @ y.t()).clamp(min=0)  # rounding can make them negative
    constants = [2 * x.size(1) * scale for scale in SCALES]
    return torch.stack([c / (c + distances) for c in constants]).sum(0)


class _WithPenalty:
    """An objective plus a weighted penalty.

    Args:
        objective: The objective to add it to.
        weight: Its weight.

    Raises:
        TypeError: The objective changes during training, and would not be told of updates.
    """

    def __init__(self, objective: Objective, weight: float) -> None:
        if isinstance(objective, AdaptiveObjective):
            own, inner = type(self).__name__, type(objective).__name__
            raise TypeError(f"put {own} inside {inner}, not {inner} inside {own}")
        self.objective, self.weight = objective, weight

    def __call__(self, terms: Terms, beta: float = 1.0) -> Tensor:
        """The loss, a scalar in nats per example."""
        return self.objective(terms, beta) + self.weight * self.penalty(terms)

    def penalty(self, terms: Terms) -> Tensor:
        """The penalty, a scalar."""
        raise NotImplementedError


class WithMMD(_WithPenalty):
    """An objective plus the MMD between the batch's draws of z and as many draws from the prior.

    The MMD trains the encoder; a prior with trainable parameters does not learn from it.
    """

    def penalty(self, terms: Terms) -> Tensor:
        """The squared maximum mean discrepancy, a scalar."""
        z = terms.z.flatten(0, 1)  # (K*B, Z)
        with torch.no_grad():
            draws = terms.prior.sample(len(z)).to(z)
        return mmd(z, draws)


def density_gap(q: Posterior, prior: Any, draws: int = GAP_DRAWS) -> Tensor:
    """Estimate sum_d KL(q(z_d) || p(z_d)) in nats, with q(z_d) = 1/B sum_b q(z_d|x_b).

    The batch stands for the aggregate posterior (Zhang et al. 2022, equation 11). The fewer its
    examples, the higher the estimate; of a single example, it is the KL itself.

    Args:
        q: Posterior of the B examples of a batch, with ``marginal_log_prob``.
        prior: The prior, with ``marginal_log_prob``.
        draws: Draws of z per example.

    Returns:
        A scalar.

    Raises:
        TypeError: q or the prior cannot compute the densities of single dimensions.
    """
    for part in (q, prior):
        if not hasattr(part, "marginal_log_prob"):
            raise TypeError(f"the density gap needs {type(part).__name__}.marginal_log_prob")
    z = q.rsample(draws).flatten(0, 1)  # (K*B, Z)
    pairs = q.marginal_log_prob(z[:, None])  # type: ignore[attr-defined]  # (K*B, B, Z)
    log_q = pairs.logsumexp(1) - math.log(pairs.size(1))  # (K*B, Z)
    return (log_q - prior.marginal_log_prob(z)).mean(0).sum()


class WithDensityGap(_WithPenalty):
    """An objective plus the KL of every dimension's aggregate posterior to the prior.

    The KL pulls the posterior of each example to the prior; this pulls only their mixture. In a
    small batch, a mixture of narrow posteriors is far from the prior, so some information is lost.
    """

    def penalty(self, terms: Terms) -> Tensor:
        """The density gap of the batch, a scalar in nats."""
        return density_gap(terms.q, terms.prior)


class WithBagOfWords(_WithPenalty):
    """An objective plus the loss of predicting a text's words, in any order, from z alone.

    The decoder can predict a word from the words before it; this loss cannot, so z has to say what
    a text is about (Zhao et al. 2017). It trains the encoder and a layer that only training uses.
    """

    def penalty(self, terms: Terms) -> Tensor:
        """Minus the mean log-probability of the words, in nats per example."""
        if terms.log_bag is None:
            raise TypeError("the model does not predict a bag of words: TextVAE(bag_of_words=True)")
        return -terms.log_bag.mean()


class WithMinimumKL:
    """An objective under the constraint that the mean KL is at least ``target``.

    The loss is the Lagrangian ``objective + weight * (target - KL)``. The model minimizes it, and
    the multiplier maximizes it by gradient ascent: after every update it grows by ``rate`` times
    the fraction of the target that is missing, or shrinks by the excess, down to 0. The weight is
    the multiplier plus ``damping`` times that fraction, but never negative, as in an augmented
    Lagrangian: without it, the multiplier and a KL that nothing else holds would oscillate.

    Args:
        objective: The objective to minimize.
        target: Minimum of the mean KL, nats per example.
        rate: Growth of the multiplier per update if the KL is 0.
        damping: What a KL of 0 adds to the weight at once.
    """

    def __init__(
        self, objective: Objective, target: float, rate: float = 0.01, damping: float = 1.0
    ) -> None:
        self.objective, self.target, self.rate, self.damping = objective, target, rate, damping
        self.multiplier = torch.zeros(())
        self._sums: Tensor | None = None  # KL of the current update's examples, and their number

    def __call__(self, terms: Terms, beta: float = 1.0) -> Tensor:
        """The loss, a scalar in nats per example."""
        kls = terms.kl.sum(-1)  # (B,)
        kl = kls.mean()
        sums = torch.stack([kls.detach().sum(), kl.new_tensor(float(len(kls)))])
        self._sums = sums if self._sums is None else self._sums + sums
        weight = (self.multiplier.to(kl) + self.damping * self._missing(kl.detach())).clamp(min=0)
        return self.objective(terms, beta) + weight * (self.target - kl)

    def _missing(self, kl: Tensor) -> Tensor:
        return 1 - kl / self.target

    def after_update(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Move the multiplier by one step of gradient ascent."""
        if self._sums is None:  # no batch since the last one
            return
        total, count = mean(self._sums)
        kl = total / count
        self.multiplier = (self.multiplier.to(kl) + self.rate * self._missing(kl)).clamp(min=0)
        self._sums = None

    def log_values(self) -> dict[str, float]:
        """Return the multiplier for the training log."""
        return {"multiplier": float(self.multiplier)}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the multiplier."""
        return {"multiplier": self.multiplier}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the multiplier."""
        self.multiplier = state["multiplier"].clone()
