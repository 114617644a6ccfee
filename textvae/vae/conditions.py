"""Conditions: what x depends on besides z, the label y of each example or a number y.

The encoder and the decoder read y, and the prior does not (Sohn et al. 2015, "Learning structured
output representation using deep conditional generative models"):

    log p(x|y) >= E_q(z|x,y)[log p(x|z,y)] - KL(q(z|x,y) || p(z))

So every bound is one on log p(x|y), and z is left with what y does not say. A label enters as a
learned vector, a number as itself, standardized.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from textvae.config.choices import ConditionKind
from textvae.errors import UserError
from textvae.runs.files import read_record, write_json

logger = logging.getLogger(__name__)

Given: TypeAlias = "str | float | Sequence[str | float | None]"  # for all examples, or one for each

QUANTILES = 1001  # of the numbers in training, kept to draw from
SHOWN = 20  # labels in a message


def as_integer(name: str) -> str:
    """Return ``7`` for ``7.0``, as spreadsheets and pandas write it; other names as they are."""
    return re.sub(r"\A([+-]?\d+)\.0+\Z", r"\1", name)


class Classes(NamedTuple):
    """y is one of the labels in the training data."""

    names: tuple[str, ...]
    counts: tuple[int, ...]  # how often each occurs in training

    @classmethod
    def fit(cls, labels: np.ndarray, names: Sequence[str]) -> Classes:
        """Count the labels of the training split.

        Args:
            labels: (N,) indices into the names.
            names: Their names.

        Raises:
            UserError: All examples have the same label.
        """
        counts = np.bincount(labels, minlength=len(names))
        if np.count_nonzero(counts) < 2:
            raise UserError("--model.condition label: all training examples have the same label")
        return cls(tuple(names), tuple(counts.tolist()))

    @property
    def noun(self) -> str:
        """What y is called in messages."""
        return "label"

    @property
    def scale(self) -> tuple[Any, ...]:
        """What the codes mean."""
        return self.names

    @property
    def example(self) -> str:
        """Some label, as Python code."""
        return repr(self.names[0])

    def codes(self, values: Sequence[Any], by_number: bool = False) -> Tensor:
        """Return the numbers of some labels, (N,).

        Args:
            values: Their names; or their numbers from 0, as integers that are not names.
            by_number: Whether a string may be a number if it is not a name and names are not
                numbers.

        Raises:
            UserError: There is no such label, or it does not occur in training.
        """
        places = {name: i for i, name in enumerate(self.names) if self.counts[i]}
        if by_number and not has_numbers(places):
            places = {str(place): place for place in places.values()} | places
        return torch.tensor([self._place(value, places) for value in values], dtype=torch.long)

    def values(self, codes: Sequence[Any]) -> list[str]:
        """Return the labels with some numbers."""
        return [self.names[int(code)] for code in codes]

    @property
    def choice(self) -> str:
        """What y may be, for the end of a message."""
        known = [name for name, count in zip(self.names, self.counts, strict=True) if count]
        return f"choose from {some_of(known)}"

    def _place(self, value: Any, places: Mapping[str, int]) -> int:
        for name in (str(value), as_integer(str(value))):
            if name in places:
                return places[name]
        if isinstance(value, Integral) and not isinstance(value, bool) and value in places.values():
            return int(value)
        if value is None:
            raise UserError(
                f"an example has no label, but this model is conditioned on it: {self.choice}"
            )
        raise UserError(f"no training example has the label {str(value)!r}: {self.choice}")

    def draw(self, uniforms: Tensor) -> Tensor:
        """Return labels drawn as often as they occur in training, (N,), from uniform numbers."""
        shares = torch.tensor(self.counts, dtype=torch.float64).cumsum(0)
        return torch.searchsorted(shares, uniforms.double() * shares[-1], right=True)


class Numbers(NamedTuple):
    """y is a number, with the mean 0 and the deviation 1 in training."""

    mean: float
    deviation: float
    quantiles: tuple[float, ...]  # evenly spaced, from the smallest number to the largest

    @classmethod
    def fit(cls, labels: np.ndarray, names: Sequence[str]) -> Numbers:
        """Learn how the numbers of the training split are distributed.

        Args:
            labels: (N,) indices into the names.
            names: Numbers, as text.

        Raises:
            UserError: One is not a number or too large, or all are the same.
        """
        values = {place: _number(names[place]) for place in np.unique(labels)}
        numbers = np.array([values[place] for place in labels])
        with np.errstate(over="ignore", invalid="ignore"):
            deviation = float(numbers.std())
        if not math.isfinite(deviation):
            raise UserError(
                f"--model.condition number: {np.abs(numbers).max():g} in the training data is too "
                "large"
            )
        if numbers.min() == numbers.max():  # whose deviation may be rounding
            if len({names[place] for place in values}) > 1:
                raise UserError(
                    f"--model.condition number: the numbers in the training data are too close to "
                    f"{numbers[0]:g} to tell them apart"
                )
            raise UserError("--model.condition number: all training examples have the same number")
        quantiles = np.quantile(numbers, np.linspace(0, 1, QUANTILES))
        return cls(float(numbers.mean()), deviation, tuple(quantiles.tolist()))

    @property
    def noun(self) -> str:
        """What y is called in messages."""
        return "number"

    @property
    def scale(self) -> tuple[Any, ...]:
        """What the codes mean."""
        return self.mean, self.deviation

    @property
    def example(self) -> str:
        """Some number, as Python code."""
        return f"{self.mean:.3g}"

    @property
    def choice(self) -> str:
        """What y may be, for the end of a message."""
        return f"in training, it was from {self.quantiles[0]:g} to {self.quantiles[-1]:g}"

    def codes(self, values: Sequence[Any], by_number: bool = False) -> Tensor:
        """Return some numbers in standard units, (N,).

        Args:
            values: Numbers, or strings that are numbers.
            by_number: Has no effect, because all of them are numbers.

        Raises:
            UserError: One is not a number, or so far from those in training that it overflows.
        """
        numbers = torch.tensor([_number(value) for value in values], dtype=torch.float64)
        codes = self._standard(numbers)
        if not codes.isfinite().all():
            raise UserError(
                f"{numbers[~codes.isfinite()][0]:g} is too far from the numbers in training, which "
                f"lie between {self.quantiles[0]:g} and {self.quantiles[-1]:g}"
            )
        self._warn_of_distant(numbers)
        return codes

    def _warn_of_distant(self, numbers: Tensor) -> None:
        """Warn of a number outside of the range in training by more than its width."""
        low, high = self.quantiles[0], self.quantiles[-1]
        distant = numbers[(numbers - low < low - high) | (numbers - high > high - low)]
        if len(distant):
            logger.warning(
                "%g is far from the numbers in training, which lie between %g and %g: the model "
                "has never seen one like it",
                *(distant[0], low, high),
            )

    def values(self, codes: Sequence[Any]) -> list[float]:
        """Return the numbers with some codes."""
        return [float(code) * self.deviation + self.mean for code in codes]

    def _standard(self, numbers: Tensor) -> Tensor:
        return ((numbers - self.mean) / self.deviation).float()

    def draw(self, uniforms: Tensor) -> Tensor:
        """Return numbers distributed as in training, (N,), from uniform numbers."""
        levels = np.linspace(0, 1, len(self.quantiles))
        return self._standard(torch.from_numpy(np.interp(uniforms, levels, self.quantiles)))


Condition: TypeAlias = "Classes | Numbers"


def some_of(labels: Sequence[str]) -> str:
    """Return some labels as a list in a message, and how many there are if there are more."""
    more = f", … ({len(labels)} in all)" if len(labels) > SHOWN else ""
    return ", ".join(labels[:SHOWN]) + more


def has_numbers(names: Iterable[str]) -> bool:
    """Return whether labels are numbers themselves, so that a number is a name and not a place."""
    return any(math.isfinite(_as_number(name)) for name in names)


def _as_number(value: Any) -> float:
    """Return a value as a number; NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _number(value: Any) -> float:
    number = _as_number(value)
    if math.isfinite(number):
        return number
    what = "an example has no number" if value is None else f"{value!r} is not a number"
    raise UserError(f"{what}, but this model is conditioned on a number")


def save_condition(condition: Condition, path: Path) -> None:
    """Write the condition as JSON."""
    write_json(path, condition._asdict())


def load_condition(
    kind: ConditionKind, path: Path, num_labels: int | None = None
) -> Condition | None:
    """Read what ``save_condition`` wrote; None if the model has no condition.

    Args:
        kind: What the model is conditioned on.
        path: The file.
        num_labels: Number of labels, if it is known.

    Raises:
        UserError: The file is missing or broken.
    """
    if kind == "none":
        return None
    record = read_record(path)
    try:
        if kind == "label":
            names, counts = (tuple(record[name]) for name in Classes._fields)
            known = all(isinstance(name, str) for name in names)
            known = known and len(names) == len(counts) == (num_labels or len(names))
            if known and all(isinstance(n, int) and n >= 0 for n in counts) and sum(counts) > 0:
                return Classes(names, counts)
        else:
            mean, deviation = float(record["mean"]), float(record["deviation"])
            quantiles = tuple(float(number) for number in record["quantiles"])
            if deviation > 0 and quantiles and np.isfinite([mean, deviation, *quantiles]).all():
                return Numbers(mean, deviation, quantiles)
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"{path} does not describe a condition of the kind {kind}")
