"""How far a metric may be from its value over all possible examples: 95% intervals.

A metric is computed again for 1000 resamples of the N examples (the bootstrap, Efron 1979), and its
interval is where 95% of the results lie. Percentiles of the bootstrap are too narrow for small N.
They are moved outward as far as those of the t distribution are from those of the normal one (the
expanded percentile interval, Hesterberg 2015):

    alpha' / 2 = Phi( sqrt(N / (N - 1)) * t_{alpha/2, N-1} )

An interval always contains its value, although a resample has fewer different examples, so that
its variances, and the counts of those above a threshold, tend to be smaller. That of a variance of
few examples, which is skewed, is also wide enough for the ratio of the value to the resamples (the
basic bootstrap of its logarithm). The resamples are a function of the seed and N. The
interval of a share of independent draws is Wilson's (1927).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from torch import Tensor

from textvae.vae.noise import numpy_generator

RESAMPLES = 1000
LEVEL = 0.95
FEW = 100  # examples; with more, the percentiles of a variance cover it often enough
AT_ONCE = 2**22  # weights held at once


class Interval(NamedTuple):
    """A value and the ends of its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def standard_error(self) -> float:
        """The standard error of a normal distribution whose 95% interval is as wide."""
        from scipy.special import ndtri

        return (self.high - self.low) / (2 * float(ndtri(0.5 + LEVEL / 2)))

    def below(self, threshold: float, margin: float | None = None) -> bool | None:
        """Return whether the value lies below a threshold; None if the interval does not tell.

        Args:
            threshold: The threshold.
            margin: An interval that ends within this distance of the threshold, on both sides, is
                narrow enough for the value to decide; half of the threshold by default.
        """
        if self.high < threshold:
            return True
        if self.low >= threshold:
            return False
        margin = abs(threshold) / 2 if margin is None else margin
        narrow = threshold - margin < self.low and self.high < threshold + margin
        return self.value < threshold if narrow else None


def of_means(columns: Tensor, seed: int = 0) -> list[Interval]:
    """Return the interval of the mean of every column.

    Args:
        columns: (N, C) values of N examples.
        seed: Seed of the resamples.
    """
    values = _array(columns)
    with np.errstate(invalid="ignore"):  # of a model whose ELBO is not a number
        means = np.concatenate([weights @ values for weights in _resamples(len(values), seed)])
    return [
        _interval(value, resampled, len(values))
        for value, resampled in zip(values.mean(0), means.T, strict=True)
    ]


def of_statistic(
    columns: Tensor, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> Interval:
    """Return the interval of a function of the means of several columns, such as a ratio.

    Args:
        columns: (N, C) values of N examples.
        statistic: Maps means (R, C) to values (R,).
        seed: Seed of the resamples.
    """
    values = _array(columns)
    means = np.concatenate([weights @ values for weights in _resamples(len(values), seed)])
    return _interval(statistic(values.mean(0)[None])[0], statistic(means), len(values))


def of_variances(
    columns: Tensor, threshold: float, seed: int = 0
) -> tuple[list[Interval], Interval]:
    """Return the interval of the variance of every column, and of how many reach a threshold.

    Args:
        columns: (N, C) values of N examples, such as posterior means.
        threshold: The variance that counts.
        seed: Seed of the resamples.
    """
    values = _array(columns)
    values = values - values.mean(0)  # squares of large numbers would cancel
    variances = np.concatenate(
        [
            (weights @ values**2 - (weights @ values) ** 2).clip(min=0)
            for weights in _resamples(len(values), seed)
        ]
    )  # (R, C)
    found = (values**2).mean(0)
    each = [
        _of_ratios(_interval(value, resampled, len(values)), len(values))
        for value, resampled in zip(found, variances.T, strict=True)
    ]
    reach = (variances >= threshold).sum(1)
    return each, _interval((found >= threshold).sum(), reach, len(values))


def _of_ratios(found: Interval, count: int) -> Interval:
    """Widen an interval of few examples: both ends are as far from the value, as ratios."""
    value, low, high = found
    if count >= FEW or not (low > 0 and math.isfinite(high)):
        return found
    return Interval(value, min(low, value * (value / high)), max(high, value * (value / low)))


def of_share(share: float, draws: int) -> Interval:
    """Return Wilson's interval of a share of independent draws."""
    from scipy.special import ndtri

    z2 = ndtri(0.5 + LEVEL / 2) ** 2
    center = (share + z2 / (2 * draws)) / (1 + z2 / draws)
    half = math.sqrt(z2 * (share * (1 - share) / draws + z2 / (4 * draws**2))) / (1 + z2 / draws)
    return Interval(share, max(0.0, center - half), min(1.0, center + half))


def _array(columns: Tensor) -> np.ndarray:
    return columns.double().cpu().numpy()


def _resamples(count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the weights of the examples in all resamples, (R, N), a few resamples at a time."""
    random, left = numpy_generator(seed), RESAMPLES
    while left:
        some = min(left, max(1, AT_ONCE // count))
        chosen = random.integers(count, size=(some, count))
        yield np.stack([np.bincount(row, minlength=count) for row in chosen]) / count
        left -= some


def _interval(value: float, resampled: np.ndarray, count: int) -> Interval:
    from scipy.special import ndtr, stdtrit

    if count < 2:
        return Interval(float(value), -math.inf, math.inf)
    tail = ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, (1 - LEVEL) / 2))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(value), float(min(low, value)), float(max(high, value)))
