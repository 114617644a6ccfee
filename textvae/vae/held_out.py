"""Training examples that are held out for validation and test, if a dataset lacks these splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textvae.errors import UserError, quantity

SHARE = 0.05  # of the examples, for each missing split


def held_out(count: int, missing: Sequence[str], where: str, noun: str) -> dict[str, np.ndarray]:
    """Draw the examples of the missing splits, which are the same for every run.

    Args:
        count: Number of training examples.
        missing: The names of the missing splits.
        where: The dataset, for messages.
        noun: What its examples are called.

    Returns:
        Rows by split in ascending order, those that remain for ``train`` first.

    Raises:
        UserError: There are too few examples.
    """
    size = max(1, round(SHARE * count))
    if count <= size * len(missing):
        raise UserError(
            f"{where}: {quantity(count, noun)}, too few to hold out {' and '.join(missing)}: add "
            "some, or use a folder with train, valid, and test"
        )
    order = np.random.default_rng(0).permutation(count)
    rows = {"train": order[size * len(missing) :]}
    rows |= {split: order[i * size : (i + 1) * size] for i, split in enumerate(missing)}
    return {split: np.sort(part) for split, part in rows.items()}
