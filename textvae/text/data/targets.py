"""Other columns of a corpus that was read already: what a probe predicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from textvae.errors import UserError
from textvae.text.data.corpus import EncodedSplit, read_corpus
from textvae.text.data.labels import number_of
from textvae.text.data.source import without_guesses


def read_targets(
    splits: Mapping[str, EncodedSplit], column: str, **options: Any
) -> dict[str, list[str | None]]:
    """Read a column: numbers if all its values are numbers, else the names of classes.

    Args:
        splits: The splits of the corpus.
        column: The name of the column.
        options: The options of ``read_corpus`` that the corpus was read with.

    Returns:
        For every split, the value of each document; None if it is missing.

    Raises:
        UserError: There is no such column.
    """
    options |= {"label_column": column, "labels": True}
    corpus = read_corpus(**options)
    for name, dataset in corpus.items():
        if "label" not in dataset.column_names:
            raise UserError(f"column {column!r} is empty in the {name} split")
    classes = {name: getattr(d.features["label"], "names", None) for name, d in corpus.items()}
    if not any(classes.values()) and all(are_numbers(d["label"]) for d in corpus.values()):
        with without_guesses():  # they are in the log already
            corpus = read_corpus(**options, numeric=True)  # where -1 is one, too
    return {
        name: splits[name].kept(_named(dataset["label"][:], classes[name]))
        for name, dataset in corpus.items()
    }


def _named(values: list[Any], classes: list[str] | None) -> list[Any]:
    """Return the names in place of the indices of a dataset with classes; -1 means no class."""
    if classes is None:
        return values
    return [None if value is None or value < 0 else classes[value] for value in values]


def are_numbers(names: Iterable[Any]) -> bool:
    """Return whether all values are numbers, as far as they are not missing."""
    try:
        for name in names:
            number_of(name)
    except ValueError:
        return False
    return True
