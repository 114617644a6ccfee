"""What training minimizes: the negative ELBO, with a schedule for the KL weight and free bits.

    elbo = E_q[log p(x|z)] - KL(q(z|x) || p(z))                     (Kingma & Welling 2014)
    loss = mean over examples of  -E_q[log p(x|z)] + beta * KL      (beta = 1: minus the ELBO)

KL annealing: Bowman et al. 2016 (linear), Fu et al. 2019 (cyclical). Constant beta other than 1:
Higgins et al. 2017. Free bits: Kingma et al. 2016.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from textvae.vae.contracts import Terms

FreeBitsPer = Literal["dim", "sample", "batch"]


def kl_weight(
    step: int,
    schedule: Literal["constant", "linear", "cyclical"] = "constant",
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
            ``steps``; ``cyclical`` restarts every ``steps``: each cycle rises from ``start`` to
            beta during its first ``ramp`` fraction, then stays at beta.
        beta: The final weight.
        start: The weight at the start of a rise.
        steps: Length of the rise, or of a cycle.
        ramp: Fraction of a cycle during which the weight rises.

    Raises:
        ValueError: Unknown schedule.
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
    """Return the mean KL with ``target`` free nats, a scalar.

    A KL below the target counts as the target, so it has no gradient.

    Args:
        kl: (B, Z) nats.
        target: Free nats in total; with ``dim``, each dimension gets ``target / Z`` of them.
        per: What is compared with the target: the batch mean of each dimension (``dim``), each
            example's sum (``sample``), or the batch mean of the sum (``batch``).

    Raises:
        ValueError: Unknown ``per``.
    """
    match per:
        case "dim":
            return kl.mean(0).clamp(min=target / max(1, kl.size(1))).sum()
        case "sample":
            return kl.sum(-1).clamp(min=target).mean()
        case "batch":
            return kl.sum(-1).mean().clamp(min=target)
    raise ValueError(f"unknown free_bits_per {per!r}: dim, sample or batch")


def elbo(
    terms: Terms, beta: float = 1.0, free_nats: float = 0.0, per: FreeBitsPer = "dim"
) -> Tensor:
    """Return the negative ELBO as a loss, a scalar in nats per example.

    Args:
        terms: What ``VAE.forward`` returned.
        beta: Weight of the KL.
        free_nats: Nats of KL that are not penalized; see ``free_bits``.
        per: What ``free_nats`` is compared with.
    """
    kl = free_bits(terms.kl, free_nats, per) if free_nats > 0 else terms.kl.sum(-1).mean()
    loss = beta * kl - terms.rec.mean()
    return loss if terms.encoder_loss is None else loss + terms.encoder_loss.mean()
