"""Labels as files give them: one class has one name, and a missing label is None.

A label can also be a number that is measured, such as a rating or a weight: -1 is then a number.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from textvae.vae.conditions import as_integer

if TYPE_CHECKING:
    from datasets import Dataset

# Unlabeled: -1 as in many published datasets, and what programs write into text for null and NaN.
MISSING = ("", "-1", "null", "NULL", "NaN", "nan", "<NA>", "N/A", "n/a")
NO_NUMBER = frozenset(MISSING) - {"-1"}
LABELS_AT_ONCE = 10_000
MOST_DIGITS = 4000  # of a label that is sorted as a number: Python converts no more


def label_of(value: Any) -> str | None:
    """Return the name of a class, or None for a missing label.

    ``1``, ``1.0`` and ``"1"`` are the same class.

    Args:
        value: A value of a label column.

    Raises:
        ValueError: It is not a single string or number; the message is its type.
    """
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        return None
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        value = int(value)
    if not isinstance(value, str | int | float | Decimal):
        raise ValueError(type(value).__name__)
    name = as_integer(str(value).strip())
    return None if name in MISSING else name


def number_of(value: Any) -> str | None:
    """Return a number as a string that ``float`` reads back exactly, or None if it is missing.

    Args:
        value: A value of a column of numbers.

    Raises:
        ValueError: It is not a finite number; the message is what it is.
    """
    if value is None or (isinstance(value, str) and value.strip() in NO_NUMBER):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(repr(value)) from None
    except OverflowError:
        raise ValueError("an integer that is too large") from None
    if math.isnan(number) and not isinstance(value, str):
        return None
    if not math.isfinite(number):
        raise ValueError(repr(value))
    return repr(number).removesuffix(".0")


def numbered_labels(
    corpus: dict[str, Dataset],
) -> tuple[list[str] | None, dict[str, dict[Any, int]]]:
    """Give every label of a corpus an index, the same in all splits.

    The classes of a split have the names, and the order, of that split alone.

    Args:
        corpus: Datasets by split, perhaps with a column ``label`` of strings or classes.

    Returns:
        The names of the labels, and by split the index of each of its labels; a split whose labels
        are these indices already is left out. None, and nothing, if there are no labels.
    """
    labeled = {name: d for name, d in corpus.items() if "label" in d.column_names}
    if not labeled:
        return None, {}
    classes = {
        name: list(getattr(d.features["label"], "names", None) or ()) for name, d in labeled.items()
    }
    known = dict.fromkeys(label for names in classes.values() for label in names)
    found = {label for name, d in labeled.items() if not classes[name] for label in _labels_in(d)}
    ordered = [*known, *_in_order(found - known.keys())]
    places = {label: i for i, label in enumerate(ordered)}
    ids: dict[str, dict[Any, int]] = {}
    for name, names in classes.items():
        if names != ordered:
            ids[name] = (
                {-1: -1} | {i: places[label] for i, label in enumerate(names)}
                if names
                else dict(places)
            )
    return ordered, ids


def _labels_in(dataset: Dataset) -> set[str]:
    """Return the labels of a split: not by its method ``unique``, which writes into the cache."""
    columns = dataset.select_columns("label").with_format("arrow").iter(LABELS_AT_ONCE)
    found = {label for batch in columns for label in batch["label"].unique().to_pylist()}
    return found - {None}


def _in_order(labels: set[str]) -> list[str]:
    """Sort labels: numbers by their value if all of them are."""
    digits = {label: label.removeprefix("-") for label in labels}
    numeric = all(d.isdecimal() and len(d) <= MOST_DIGITS for d in digits.values())
    return sorted(labels, key=lambda label: (int(label) if numeric else 0, label))
