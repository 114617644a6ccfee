"""Labels of examples, by name or by number."""

from __future__ import annotations

import numpy as np

from textvae.errors import UserError
from textvae.vae.batch import Split
from textvae.vae.conditions import has_numbers, some_of


def label_names(split: Split) -> list[str]:
    """Return the names of the labels of a split; their numbers if they have no names.

    Raises:
        UserError: The split has no labels.
    """
    if split.labels is None or split.labels.max(initial=-1) < 0:
        raise UserError(
            "this needs labels, and there are none: write `label<TAB>text` on each line, or use a "
            "file with a label column"
        )
    if split.label_names:
        return list(split.label_names)
    return [str(number) for number in range(int(split.labels.max(initial=-1)) + 1)]


def label_of(split: Split, row: int) -> str | None:
    """Return the name of the label of an example, or its number; None if it has none."""
    if split.labels is None or split.labels[row] < 0:
        return None
    number = int(split.labels[row])
    return split.label_names[number] if split.label_names else str(number)


def find_label(split: Split, label: str | int) -> int:
    """Return the number of a label.

    Args:
        split: The labeled examples.
        label: Its name; or else, unless labels are numbers themselves, its number, from 0.

    Raises:
        UserError: There is no such label, or no example has it.
    """
    names, labels, label = label_names(split), np.asarray(split.labels), str(label)
    number = names.index(label) if label in names else -1
    if number < 0 and label.isdecimal() and int(label) < len(names) and not has_numbers(names):
        number = int(label)
    if number < 0 or number not in labels:
        present = [names[i] for i in np.unique(labels) if i >= 0]
        raise UserError(f"no example has the label {label!r}: choose from {some_of(present)}")
    return number
