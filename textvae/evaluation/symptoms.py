"""What a diagnosis is based on: the metrics of a latent variable, each with its interval.

All intervals are over examples (``textvae.evaluation.intervals``), except that of ``hole_share``,
which is a share of draws. The interval of ``mi`` extends to that of its upper bound, because N
examples cannot show information close to ln N, and that of ``marginal_kl``, KL - MI, extends
downward accordingly. Two metrics exist only here, in nats per example:

    read       shuffle gap - MI / 2: negative if the decoder reads less than half of what the
               encoder writes
    overshoot  the ELBO after the last refinement step, minus the highest ELBO before it
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from textvae.evaluation.intervals import Interval, of_means, of_share, of_variances
from textvae.evaluation.per_example import ExampleStats
from textvae.vae.estimators import PointwiseInformation

READ_SHARE = 0.5  # of the MI: an exact posterior has a shuffle gap of at least the whole MI


@dataclass(frozen=True)
class Symptoms:
    """The metrics of one model on one dataset.

    Attributes:
        count: N.
        distinct: Number of different examples among them.
        latent_dim: Z.
        au_threshold: Variance of a posterior mean that makes a dimension active.
        figures: By the key of the metrics card, or as described above.
        variances: Variance of the posterior mean of every dimension, before any refinement.
        dimension_gaps: Shuffle gap of every dimension, if it was measured.
    """

    count: int
    distinct: int
    latent_dim: int
    au_threshold: float
    figures: dict[str, Interval]
    variances: list[Interval]
    dimension_gaps: list[Interval] | None = None

    def before_refinement(self, key: str) -> Interval:
        """Return a metric of the encoder's own posterior, which is the only one without steps."""
        return self.figures.get(f"encoder_{key}", self.figures[key])


def symptoms_of(
    stats: ExampleStats,
    information: PointwiseInformation,
    own_information: PointwiseInformation | None,
    gaps: Tensor | None,
    hole_share: float | None,
    *,
    hole_draws: int,
    au_threshold: float,
    seed: int,
) -> Symptoms:
    """Compute the intervals of all metrics.

    Args:
        stats: The statistics of N examples.
        information: (N,) pointwise mutual information.
        own_information: The same before refinement; None without refinement or an encoder.
        gaps: (N,) shuffle gaps, if they were measured.
        hole_share: Share of the prior's draws that fall into holes, if it was measured.
        hole_draws: Number of these draws, or of the examples that stand for q(z) if they are fewer:
            the edge of q(z) is only as certain as their number.
        au_threshold: Variance of a posterior mean that makes a dimension active.
        seed: Seed of the resamples.
    """
    columns = _columns(stats, information.lower, own_information and own_information.lower, gaps)
    means = of_means(torch.stack([column.double() for column in columns.values()], 1), seed)
    figures = dict(zip(columns, means, strict=True))
    uppers = [each.upper for each in (information, own_information) if each is not None]
    ends = of_means(torch.stack([each.double() for each in uppers], 1), seed)
    for prefix, end in zip(("", "encoder_"), ends, strict=False):  # the last without refinement
        _widen(figures, prefix, end)
    variances, figures["au"] = of_variances(stats.posterior.center(), au_threshold, seed)
    if own_information is not None:
        own = stats.own_posterior.center()
        variances, figures["encoder_au"] = of_variances(own, au_threshold, seed)
    if hole_share is not None:
        figures["hole_share"] = of_share(hole_share, hole_draws)
    return Symptoms(
        count=len(stats.index),
        distinct=len(stats.fingerprint.unique()),
        latent_dim=len(variances),
        au_threshold=au_threshold,
        figures=figures,
        variances=variances,
    )


def _widen(figures: dict[str, Interval], prefix: str, upper: Interval) -> None:
    """Extend the interval of the MI to that of its upper bound, and that of KL - MI downward.

    Args:
        figures: Intervals by key, changed in place.
        prefix: Of the keys: ``encoder_`` for those before refinement.
        upper: The upper bound of the MI.
    """
    mi, kl = figures[f"{prefix}mi"], figures[f"{prefix}kl"]
    figures[f"{prefix}mi"] = mi._replace(high=max(mi.high, min(upper.high, kl.high)))
    figures[f"{prefix}mi_upper"] = upper._replace(value=max(mi.value, min(upper.value, kl.value)))
    if not prefix:
        rest = figures["marginal_kl"]
        figures["marginal_kl"] = rest._replace(low=min(rest.low, max(0.0, kl.low - upper.high)))


def _columns(
    stats: ExampleStats,
    information: Tensor,
    own_information: Tensor | None,
    gaps: Tensor | None,
) -> dict[str, Tensor]:
    """Return values of every example, (N,) each, whose means are those of the card."""
    kl, elbo = stats.total_kl, stats.elbo
    columns = {"rec": stats.rec, "elbo": elbo, "kl": kl, "mi": information}
    columns["marginal_kl"] = kl - information
    if gaps is not None:
        columns |= {"shuffle_gap": gaps, "read": gaps - READ_SHARE * information}
    if stats.path.size(1):
        best = int(stats.path.double().mean(0).argmax())
        columns["overshoot"] = elbo - stats.path[:, best]
    if own_information is not None:
        own_kl = stats.own_kl.double().sum(1)
        columns |= {"encoder_kl": own_kl, "encoder_mi": own_information}
        columns["gap"] = elbo - (stats.own_rec.double() - own_kl)
    return columns
