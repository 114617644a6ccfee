"""The evidence lower bound, its KL weight, free bits, and the loss that training minimises.

    elbo = E_q[log p(x|z)] - KL(q(z|x) || p(z))                     (Kingma & Welling 2014)
    loss = mean over examples of  -E_q[log p(x|z)] + beta * KL      (beta = 1: minus the ELBO)

KL annealing: Bowman et al. 2016 (linear); Fu et al. 2019 (cyclical); any other constant beta:
Higgins et al. 2017. Free bits: Kingma et al. 2016; over single dimensions: Li et al. 2019.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

FreeBitsPer = Literal["dim", "sample", "batch"]


class ElboTerms(NamedTuple):
    """The ELBO's two terms, in nats; and, where q was refined, what belongs to that."""

    rec: Tensor  # (B,) E_q[log p(x|z)], at most 0 for discrete data
    kl: Tensor  # (B, Z) KL(q(z|x) || p(z)) by dimension
    encoder_loss: Tensor | None = None  # (B,) what trains the encoder, if not the ELBO does
    path: Tensor | None = None  # (K, B) the ELBO before each refinement step, estimated

    @property
    def elbo(self) -> Tensor:
        """(B,) a lower bound of log p(x), nats per example."""
        return self.rec - self.kl.sum(-1)


def kl_weight(
    step: int,
    schedule: Literal["constant", "linear", "cyclical"] = "constant",
    *,
    beta: float = 1.0,
    start: float = 0.0,
    steps: int = 0,
    ramp: float = 0.5,
) -> float:
    """beta at an optimiser step (counted from 0).

    Args:
        schedule: ``constant`` is beta throughout; ``linear`` rises from ``start`` to beta over
            ``steps``; ``cyclical`` repeats that rise: a cycle lasts ``steps``, its first ``ramp``
            share rises and the rest stays at beta.
    """
    if steps <= 0:
        return beta
    match schedule:
        case "constant":
            return beta
        case "linear":
            share = step / steps
        case "cyclical":
            share = (step % steps) / (ramp * steps)
        case _:
            raise ValueError(f"unknown KL schedule {schedule!r}: constant, linear or cyclical")
    return start + (beta - start) * min(1.0, share)


def free_bits(kl: Tensor, target: float, per: FreeBitsPer = "dim") -> Tensor:
    """The KL that is paid for when ``target`` nats of it are free; KL below the target costs the
    target, so that it has no gradient. Returns a scalar, the mean over examples.

    Args:
        kl: (B, Z) nats.
        target: nats free in total; for ``dim`` each dimension gets ``target / Z`` of them.
        per: what the threshold applies to: the batch mean of each dimension (``dim``, Li et al.
            2019), each example's sum (``sample``), or the batch mean of the sum (``batch``).
    """
    match per:
        case "dim":
            return kl.mean(0).clamp(min=target / max(1, kl.size(1))).sum()
        case "sample":
            return kl.sum(-1).clamp(min=target).mean()
        case "batch":
            return kl.sum(-1).mean().clamp(min=target)
    raise ValueError(f"unknown free_bits_per {per!r}: dim, sample or batch")


def objective(
    terms: ElboTerms, beta: float = 1.0, free_nats: float = 0.0, per: FreeBitsPer = "dim"
) -> Tensor:
    """The loss in nats per example (a scalar): minus the ELBO at beta = 1 without free bits."""
    kl = free_bits(terms.kl, free_nats, per) if free_nats > 0 else terms.kl.sum(-1).mean()
    loss = beta * kl - terms.rec.mean()
    return loss if terms.encoder_loss is None else loss + terms.encoder_loss.mean()
