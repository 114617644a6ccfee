"""Which columns of a file or a dataset on the hub are the text and the label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textvae.errors import UserError

Row = tuple[int, str | None, str | None]  # line, text, label


@dataclass(frozen=True)
class Columns:
    """Names of columns.

    Attributes:
        text: Columns of the text, which are joined with spaces; empty if not chosen yet.
        label: Column of the label, or None.
    """

    text: tuple[str, ...] = ()
    label: str | None = None

    @classmethod
    def parse(cls, text: str | None, label: str | None) -> Columns:
        """Parse the options; ``text`` may name several columns, separated by commas."""
        names = (name.strip() for name in (text or "").split(","))
        return cls(tuple(name for name in names if name), label or None)

    def resolve(self, present: list[str], path: object) -> Columns:
        """Check the columns against those of a file, and detect those that were not named.

        Args:
            present: The columns of the file.
            path: The file, for messages.

        Returns:
            The columns to read.

        Raises:
            UserError: If a named column is missing, or the text column cannot be detected.
        """
        text = self.text or (
            ("text",) if "text" in present else tuple(present) * (len(present) == 1)
        )
        if not text:
            raise UserError(
                f"{path}: no column 'text'; set --data.text_column to one of {_listed(present)}"
            )
        label = self.label or ("label" if "label" in present and "label" not in text else None)
        for option, name in [("text_column", n) for n in text] + [("label_column", label)]:
            if name is not None and name not in present:
                raise UserError(f"{path}: no column {name!r} ({option}); it has {_listed(present)}")
        return Columns(text, label)

    def pick(self, record: dict[str, Any], path: object, line: int) -> Row:
        """Get text and label of one record.

        Args:
            record: The values of all columns.
            path: The file, for messages.
            line: The line, for messages.

        Returns:
            Line, text and label.

        Raises:
            UserError: If a column is missing in this record, a text is not a string, or a label is
                null.
        """
        for name in (*self.text, *([self.label] if self.label else [])):
            if name not in record:
                raise UserError(
                    f"{path}, line {line}: no {name!r} here; it has {_listed(list(record))}"
                )
        texts = [record[name] for name in self.text]
        for name, text in zip(self.text, texts, strict=True):
            if not isinstance(text, str | None):
                kind = type(text).__name__
                raise UserError(f"{path}, line {line}: {name!r} is of type {kind}, not a string")
        joined = " ".join(text for text in texts if text)
        if self.label is None:
            return line, joined, None
        label = record[self.label]
        if label is None or label == "":
            raise UserError(f"{path}, line {line}: label {self.label!r} is empty")
        if isinstance(label, dict | list):
            raise UserError(f"{path}, line {line}: label {self.label!r} is not a single value")
        return line, joined, str(label).strip()


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "no columns"
