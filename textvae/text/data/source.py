"""A split that has not been read yet: what is left of the differences between file formats."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from textvae.errors import UserError
from textvae.text.data.columns import Row

SPLITS = ("train", "valid", "test")
guesses = logging.getLogger("textvae.text.data.guesses")  # how files are read, and their content
ALIASES = {"val": "valid", "validation": "valid", "dev": "valid"}


@dataclass(frozen=True)
class Source:
    """A split that has not been read yet.

    Attributes:
        where: Its name in messages.
        identity: Serializable as JSON; sources with equal identities have equal rows.
        rows: Opens a stream of ``(line, text, label)``.
        described: How it is read, in words.
        labeled: Whether rows may have labels.
        label_names: Names of the labels, if labels are indices into them (hub).
    """

    where: str
    identity: dict[str, Any]
    rows: Callable[[], Iterator[Row]]
    described: str = ""
    labeled: bool = True
    label_names: tuple[str, ...] | None = None

    def label_name(self, label: str | None) -> str | None:
        """Return the name of the label of a row; None if it is missing."""
        if label is None or self.label_names is None:
            return label
        return self.label_names[int(label)] if label != "-1" else None


def utf8(text: str, where: str) -> bytes:
    """Return a text in UTF-8.

    Raises:
        UserError: It has a lone surrogate: half a character, or a byte that was not UTF-8.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: a lone surrogate, which is not a character") from None


@contextmanager
def without_guesses() -> Iterator[None]:
    """Do not log how files are read: for those whose first reader has logged it."""
    guesses.disabled, before = True, guesses.disabled
    try:
        yield
    finally:
        guesses.disabled = before
