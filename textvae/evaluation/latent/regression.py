"""What the latent variable knows about a number: ridge regression on posterior means.

    y ~ w . E_q[z|x] + b,    w, b = argmin sum_n (y_n - w . m_n - b)^2 + alpha |w|^2

on the standardized means of the training split, with the alpha that predicts left-out examples best
(generalized cross-validation). Scored on another split by the share of the variance explained,
R^2 = 1 - sum (y - prediction)^2 / sum (y - mean of y)^2, and by the mean absolute error, whose
baseline is to predict the median of the training split for every example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from textvae.errors import UserError
from textvae.evaluation.intervals import Interval, of_means, of_statistic

ALPHAS = np.logspace(-2, 5, 15)


class Regression(NamedTuple):
    """A linear function of the posterior mean."""

    coefficients: np.ndarray  # (Z,)
    intercept: float

    def predict(self, means: np.ndarray) -> np.ndarray:
        """Return the predicted number of every example, (N,), for means (N, Z)."""
        return means @ self.coefficients + self.intercept

    def as_record(self) -> dict[str, Any]:
        """Return the function as part of a card."""
        return {"coefficients": self.coefficients.tolist(), "intercept": self.intercept}

    @classmethod
    def of_record(cls, record: Mapping[str, Any], where: str, latent_dim: int) -> Regression:
        """Return the function in a card.

        Args:
            record: The card.
            where: Its file, for messages.
            latent_dim: Z of the model.

        Raises:
            UserError: It has none, or one for another model.
        """
        try:
            found = cls(np.array(record["coefficients"], float), float(record["intercept"]))
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{where} does not hold a regression probe") from None
        if found.coefficients.shape != (latent_dim,) or not np.isfinite(found.coefficients).all():
            raise UserError(f"{where} belongs to another model: run textvae probe again")
        return found


def fit_regression(means: np.ndarray, numbers: np.ndarray) -> Regression:
    """Fit the regression to means (N, Z) and numbers (N,)."""
    from sklearn.linear_model import RidgeCV

    center, scale = means.mean(0), means.std(0).clip(min=1e-8)
    ridge = RidgeCV(ALPHAS).fit((means - center) / scale, numbers)
    coefficients = ridge.coef_ / scale
    return Regression(coefficients, float(ridge.intercept_ - center @ coefficients))


def score_regression(predicted: np.ndarray, numbers: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Return R^2 and the mean absolute error with their 95% intervals, as part of a card.

    Args:
        predicted: (N,).
        numbers: (N,) what was to be predicted.
        seed: Seed of the resamples.
    """
    error, centered = numbers - predicted, numbers - numbers.mean()
    columns = torch.from_numpy(np.stack([error**2, centered**2, centered, abs(error)], axis=1))

    def explained(means: np.ndarray) -> np.ndarray:
        variance = means[:, 1] - means[:, 2] ** 2
        known = variance > 1e-12 * means[:, 1]  # else all numbers of a resample are the same
        return 1 - np.divide(means[:, 0], variance, out=np.full(len(means), np.nan), where=known)

    found = {
        "r2": of_statistic(columns[:, :3], explained, seed),
        "mae": of_means(columns[:, 3:], seed)[0],
    }
    card: dict[str, Any] = {key: interval.value for key, interval in found.items()}
    card |= {f"{key}_interval": _ends(interval) for key, interval in found.items()}
    for key in ("r2_interval", "mae_interval"):
        if not np.isfinite(card[key]).all():  # too few examples
            card[key] = None
    if np.ptp(numbers) == 0:  # there is no variance to explain
        card |= {"r2": None, "r2_interval": None}
    return card


def _ends(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
