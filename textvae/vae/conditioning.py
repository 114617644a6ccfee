"""What the examples of a split are conditioned on: from their labels, or as it is given."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Set, Sized
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from textvae.config.choices import ConditionKind
from textvae.errors import UserError, quantity
from textvae.vae.batch import Split
from textvae.vae.conditions import Classes, Condition, Given, Numbers
from textvae.vae.noise import RowNoise

logger = logging.getLogger(__name__)


def check_condition(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a model that determine its condition.

    Raises:
        UserError: They do not fit the other arguments.
    """
    kind = arguments["condition"]
    if kind == "none":
        return
    if kind == "label" and arguments.get("num_labels", 1) < 1:
        raise UserError("model: condition label needs num_labels, how many labels there are")
    if arguments["injection"] == "none":
        raise UserError(
            f"model: condition {kind} needs an injection through which it enters the decoder, as z "
            "does: input or skip, not none"
        )
    if arguments["prior"] == "vamp":
        raise UserError(
            f"model: condition {kind} does not fit prior vamp, whose learned inputs have no label: "
            "choose standard or mixture"
        )


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
    return (Classes if kind == "label" else Numbers).fit(labels, names)


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
                logger.info("the labels of the %s examples are replaced by %s", name, given)
            split.conditions = None if codes is None else codes.numpy()
        elif condition is not None:
            split.conditions = _codes_in(condition, split, name)


def _codes_in(condition: Condition, split: Split, name: str) -> np.ndarray:
    """Return y of every example of a split, (N,)."""
    labels, names = _complete(split, name, condition.noun)
    codes = np.zeros(len(names), np.float32 if isinstance(condition, Numbers) else np.int64)
    present = np.unique(labels)
    try:
        codes[present] = condition.codes([names[place] for place in present]).numpy()
    except UserError as error:
        raise UserError(f"the {name} examples: {error}") from None
    return codes[labels]


def _complete(split: Split, name: str, noun: str) -> tuple[np.ndarray, list[str]]:
    """Return the label of every example and the names of the labels."""
    labels, names = split.labels, split.label_names
    if labels is None or names is None:
        raise no_labels(name, noun)
    if missing := int((labels < 0).sum()):
        own = ", or give them a label of their own, such as unknown" if noun == "label" else ""
        raise UserError(
            f"{missing} of {len(labels)} {name} examples have no {noun} (-1, null, or "
            f"empty), but the model is conditioned on it: leave them out{own}"
        )
    return np.asarray(labels), names


def no_labels(name: str, noun: str) -> UserError:
    """Return the error for a split of which no example has a label.

    Args:
        name: The name of the split.
        noun: What a label is: ``label`` or ``number``.
    """
    same = f"; if all have the same, give --condition {noun.upper()}" if name == "new" else ""
    return UserError(
        f"the {name} examples have no {noun}s, but the model is conditioned on them: write "
        f"`{noun}<TAB>text` on each line, use a file with a {noun} column "
        f"(--data.label_column), or, for images, add an array named labels{same}"
    )


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
            f"this model is conditioned on the {condition.noun} of an example: pass it with "
            f"--condition, or in Python condition= ({condition.choice})"
        )
    if isinstance(given, str | Real):
        return condition.codes([given], by_number=True).expand(count)
    if isinstance(given, Iterator):
        given = list(given)
    if not isinstance(given, Sized) or isinstance(given, bytes | Set | Mapping):
        raise TypeError(
            f"condition must be a label or a number, or a list of them, not {given!r:.50}"
        )
    if len(given) != count:
        raise UserError(
            f"{quantity(len(given), 'condition')} for {quantity(count, 'example')}: give one for "
            "each, or a single one for all"
        )
    return condition.codes(given)
