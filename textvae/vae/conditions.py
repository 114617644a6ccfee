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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from textvae.errors import UserError
from textvae.runs.files import read_record, write_json
from textvae.vae.batch import Split
from textvae.vae.noise import RowNoise

ConditionKind = Literal["none", "label", "number"]
Given: TypeAlias = "str | float | Sequence[str | float | None]"  # for all examples, or one for each
logger = logging.getLogger(__name__)

QUANTILES = 1001  # of the numbers in training, kept to draw from
SHOWN = 20  # labels in a message


class Classes(NamedTuple):
    """y is one of the labels in the training data."""

    names: tuple[str, ...]
    counts: tuple[int, ...]  # how often each occurs in training

    def codes(self, values: Sequence[Any], by_number: bool = False) -> Tensor:
        """Return the numbers of some labels, (N,).

        Args:
            values: Their names, or their numbers from 0 as integers.
            by_number: Whether a string that is no name may be a number, unless names are numbers.

        Raises:
            UserError: There is no such label, or it does not occur in training.
        """
        places = {name: i for i, name in enumerate(self.names) if self.counts[i]}
        if by_number and not any(math.isfinite(_as_number(name)) for name in places):
            places = {str(place): place for place in places.values()} | places
        return torch.tensor([self._place(value, places) for value in values], dtype=torch.long)

    def _place(self, value: Any, places: Mapping[str, int]) -> int:
        if str(value) in places:
            return places[str(value)]
        if isinstance(value, int) and value in places.values():
            return value
        known = [name for name, count in zip(self.names, self.counts, strict=True) if count]
        more = f", … ({len(known)} in all)" if len(known) > SHOWN else ""
        choice = f"choose from {', '.join(known[:SHOWN])}{more}"
        if value is None:
            raise UserError(
                f"an example has no label, and this model depends on it (--condition): {choice}"
            )
        raise UserError(f"the model was not trained with the label {str(value)!r}: {choice}")

    def draw(self, uniforms: Tensor) -> Tensor:
        """Return labels drawn as often as they occur in training, (N,), from uniform numbers."""
        shares = torch.tensor(self.counts, dtype=torch.float64).cumsum(0)
        return torch.searchsorted(shares, uniforms.double() * shares[-1], right=True)


class Numbers(NamedTuple):
    """y is a number, with the mean 0 and the deviation 1 in training."""

    mean: float
    deviation: float
    quantiles: tuple[float, ...]  # evenly spaced, from the smallest number to the largest

    def codes(self, values: Sequence[Any], by_number: bool = False) -> Tensor:
        """Return some numbers in standard units, (N,).

        Args:
            values: Numbers, or strings that are numbers.
            by_number: Has no effect, because all of them are numbers.

        Raises:
            UserError: One is not a number.
        """
        numbers = torch.tensor([_number(value) for value in values], dtype=torch.float64)
        return self._standard(numbers)

    def _standard(self, numbers: Tensor) -> Tensor:
        return ((numbers - self.mean) / self.deviation).float()

    def draw(self, uniforms: Tensor) -> Tensor:
        """Return numbers distributed as in training, (N,), from uniform numbers."""
        levels = np.linspace(0, 1, len(self.quantiles))
        return self._standard(torch.from_numpy(np.interp(uniforms, levels, self.quantiles)))


Condition: TypeAlias = "Classes | Numbers"


def _as_number(value: Any) -> float:
    """Return a value as a number; NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _number(value: Any) -> float:
    number = _as_number(value)
    if math.isfinite(number):
        return number
    what = "an example has no number" if value is None else f"{value!r} is not a number"
    raise UserError(f"{what}, and this model is conditioned on a number (--condition)")


def fit_condition(kind: ConditionKind, split: Split) -> Condition | None:
    """Learn from the training split what a model is conditioned on.

    Args:
        kind: ``none``, ``label``, or ``number``.
        split: The training split; numbers are the names of its labels.

    Raises:
        UserError: An example has no label, or all numbers are the same.
    """
    if kind == "none":
        return None
    labels, names = _complete(split, "train", kind)
    if kind == "label":
        counts = np.bincount(labels, minlength=len(names))
        return Classes(tuple(names), tuple(counts.tolist()))
    values = {place: _number(names[place]) for place in np.unique(labels)}
    numbers = np.array([values[place] for place in labels])
    deviation = float(numbers.std())
    if deviation == 0:
        raise UserError("--model.condition number: all training examples have the same number")
    quantiles = np.quantile(numbers, np.linspace(0, 1, QUANTILES))
    return Numbers(float(numbers.mean()), deviation, tuple(quantiles.tolist()))


def add_conditions(
    splits: Mapping[str, Any], condition: Condition | None, given: Given | None = None
) -> None:
    """Let the batches of some splits contain y, if the model is conditioned on it.

    Args:
        splits: Splits with an attribute ``conditions``, by name.
        condition: What the model is conditioned on.
        given: y of all examples; None: their labels.

    Raises:
        UserError: An example has no label, or one that the model was not trained with; or y is
            given, but the model is not conditioned on it.
    """
    for name, split in splits.items():
        if given is not None:
            codes = codes_of(condition, given, len(split))
            if split.labels is not None:
                logger.info("%s: the labels of the examples are replaced by %s", name, given)
            split.conditions = None if codes is None else codes.numpy()
        elif condition is not None:
            split.conditions = _codes_in(condition, split, name)


def _codes_in(condition: Condition, split: Split, name: str) -> np.ndarray:
    """Return y of every example of a split, (N,)."""
    labels, names = _complete(split, name, _noun(condition))
    codes = np.zeros(len(names), np.float32 if isinstance(condition, Numbers) else np.int64)
    present = np.unique(labels)
    codes[present] = condition.codes([names[place] for place in present]).numpy()
    return codes[labels]


def _complete(split: Split, name: str, noun: str) -> tuple[np.ndarray, list[str]]:
    """Return the label of every example and the names of the labels."""
    labels, names = split.labels, split.label_names
    if labels is None or names is None:
        same = f"; if all have the same, give --condition {noun.upper()}" if name == "new" else ""
        raise UserError(
            f"the {name} examples have no {noun}s, but the model is conditioned on them: write "
            f"`{noun}<TAB>text` on each line, use a file with a {noun} column "
            f"(--data.label_column), or, for images, add an array named labels{same}"
        )
    if missing := int((labels < 0).sum()):
        own = ", or give them a label of their own, such as unknown" if noun == "label" else ""
        raise UserError(
            f"{missing} of {len(labels)} {name} examples have no {noun} (-1, null, or "
            f"empty), but the model is conditioned on it: leave them out{own}"
        )
    return np.asarray(labels), names


def _noun(condition: Condition) -> str:
    return "number" if isinstance(condition, Numbers) else "label"


def codes_of(
    condition: Condition | None,
    given: Given | None,
    count: int,
    noise: RowNoise | None = None,
) -> Tensor | None:
    """Return y of some examples, (N,); None if the model is not conditioned on anything.

    Args:
        condition: What the model is conditioned on.
        given: Labels or numbers: one for all examples, or one for each; None: draw them.
        count: N.
        noise: Source of the draws; None if y has to be given.

    Raises:
        UserError: y is missing, does not fit the model, or there are more or fewer than examples.
    """
    if condition is None:
        if given is not None:
            raise UserError("this model is not conditioned on labels: leave out the condition")
        return None
    if isinstance(given, np.ndarray | np.generic | Tensor):
        given = given.tolist()
    if given is None and noise is not None:
        return condition.draw(noise.uniform(1, 1)[0, :, 0])
    if given is None:
        raise UserError(
            f"this model is conditioned on the {_noun(condition)} of an example: pass it with "
            "--condition"
        )
    if isinstance(given, str | int | float):
        return condition.codes([given], by_number=True).expand(count)
    if len(given) != count:
        raise UserError(f"{len(given)} conditions for {count} examples: give one for each")
    return condition.codes(given)


def scale_of(condition: Condition | None) -> tuple[Any, ...]:
    """Return what the codes of a condition mean: its labels, or the scale of its numbers."""
    match condition:
        case Classes(names=names):
            return names
        case Numbers(mean=mean, deviation=deviation):
            return mean, deviation
    return ()


def example_of(condition: Condition | None) -> str:
    """Return the argument of a method for some y, as Python code; empty without a condition."""
    match condition:
        case Classes(names=names):
            return f", condition={names[0]!r}"
        case Numbers(mean=mean):
            return f", condition={mean:.3g}"
    return ""


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


def check_condition(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a model that determine its condition.

    Raises:
        UserError: They do not fit the other arguments.
    """
    kind = arguments["condition"]
    if kind == "none":
        return
    if arguments["injection"] == "none":
        raise UserError(
            f"model: condition {kind} enters the decoder where z does, and injection none leaves "
            "no way in: choose another injection, such as input or skip"
        )
    if arguments["prior"] == "vamp":
        raise UserError(
            f"model: condition {kind} does not fit prior vamp, whose learned inputs have no label: "
            "choose standard or mixture"
        )
