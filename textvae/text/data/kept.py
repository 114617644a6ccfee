"""Other columns of a file, such as an id, which a command copies to its output as they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.runs.files import expanded
from textvae.text.data.layout import Layout
from textvae.text.data.source import without_guesses
from textvae.text.data.sources import document_parts
from textvae.text.data.streams import STANDARD_INPUT

Kept = dict[str, list[str | None]]  # the values of every column; None: missing


def kept_parts(
    place: str | Path, columns: Sequence[str], size: int | None = None, **options: Any
) -> Callable[[], Iterator[Kept]]:
    """Read columns in parts that are aligned with those of ``document_parts``.

    Args:
        place: A file.
        columns: The names of the columns.
        size: Rows in a part; None: all of them.
        options: The layout of the file, as for ``Layout.parse``.

    Returns:
        A function that reads the file from its start; it can be called again.

    Raises:
        UserError: There is no such column, or the file can be read only once.
    """
    if not columns:
        return lambda: repeat({})
    if not all(columns):
        raise UserError("--keep: a column has no name: name it in the file first")
    path = expanded(place)
    if str(place) == STANDARD_INPUT or (path.exists() and not (path.is_file() or path.is_dir())):
        raise UserError(
            "--keep: standard input and pipes can be read only once: save the text first"
        )
    layout = Layout.parse(**options)
    with without_guesses():  # they are in the log already
        parts = {name: document_parts(place, _of_column(layout, name), size) for name in columns}

    def read() -> Iterator[Kept]:
        for each in zip(*(part() for part in parts.values()), strict=True):
            yield {name: values for name, (_, values) in zip(parts, each, strict=True)}

    return read


def check_not_taken(columns: Sequence[str], taken: Collection[str]) -> None:
    """Check that a kept column does not replace one of the output.

    Raises:
        UserError: It would.
    """
    if wrong := [name for name in columns if name in taken]:
        raise UserError(f"--keep {wrong[0]}: the output has a column of that name already")


def _of_column(layout: Layout, name: str) -> Layout:
    """Return a layout in which a column is the label, but whatever it holds is kept."""
    columns = replace(layout.columns, label=name, labels=True, label_named=True, verbatim=True)
    return replace(layout, columns=columns)
