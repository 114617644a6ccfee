"""How documents are laid out in files: the options, and what is detected where they say nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.text.data.columns import Columns
from textvae.text.data.streams import SUFFIXES

TABLES = ("csv", "tsv", "torchtext-csv")
PLAIN = ("lines", "label-tab-text", "documents")  # formats without named columns
FORMATS = ("lines", "label-tab-text", "documents", "jsonl", "json", *TABLES, "parquet")
EXTENSIONS = {
    "txt": "lines",
    "text": "lines",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "csv": "csv",
    "tsv": "tsv",
    "parquet": "parquet",
}
_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}


@dataclass(frozen=True)
class Layout:
    """How the documents of a file are laid out.

    Attributes:
        format: One of ``FORMATS``, or ``auto`` to detect it.
        columns: The columns to read.
        delimiter: What separates the columns of a table; None to detect it.
        header: Whether the first row of a table names its columns; None to detect it.
    """

    format: str = "auto"
    columns: Columns = field(default_factory=Columns)
    delimiter: str | None = None
    header: bool | None = None

    @classmethod
    def parse(
        cls,
        format: str = "auto",
        text_column: str | None = None,
        label_column: str | None = None,
        labels: bool = True,
        delimiter: str | None = None,
        header: bool | None = None,
        usual: tuple[str | None, str | None] = (None, None),
        numeric: bool = False,
    ) -> Layout:
        """Parse the options of the commands that read text.

        Args:
            format: One of ``FORMATS``, or ``auto``.
            text_column: Names of text columns, separated by commas.
            label_column: Name of the label column.
            labels: Whether to read labels at all.
            delimiter: A character, or ``tab``, ``comma``, ``semicolon`` or ``pipe``.
            header: Whether the first row names the columns.
            usual: The text and label columns of the training data, used if a file has them and
                none were named.
            numeric: Whether the labels are numbers.

        Raises:
            UserError: A value is out of range.
        """
        if format not in ("auto", *FORMATS):
            raise UserError(f"format {format!r}: must be auto or one of {', '.join(FORMATS)}")
        if delimiter is not None:
            delimiter = _DELIMITERS.get(delimiter, delimiter)
            if len(delimiter) != 1 or delimiter in '\r\n"':
                raise UserError(
                    f"delimiter {delimiter!r}: must be one character, or one of "
                    f"{', '.join(name for name in _DELIMITERS if name.isalpha())}"
                )
        columns = Columns.parse(text_column, label_column, labels, usual, numeric)
        return cls(format, columns, delimiter, header)

    def identity(self) -> list[Any]:
        """Return what the rows depend on besides the files, as JSON."""
        columns = asdict(self.columns)
        del columns["usual"]  # only a way to find the others
        if not self.columns.numeric:  # as before there were such labels
            del columns["numeric"]
        return [self.format, self.delimiter, self.header, columns]

    def describe(self) -> str:
        """Return the layout in words, for the log."""
        parts = [self.format]
        if self.format in TABLES and self.delimiter:
            name = _NAMES.get(self.delimiter, repr(self.delimiter))
            parts += [f"{name}-separated", "header" if self.header else "no header"]
        if self.columns.text:
            parts.append(self.columns.describe())
        return ", ".join(parts)


def extension_of(path: Path) -> str:
    """Return the extension of a file in lower case, without that of its compression."""
    name = path.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name.rpartition(".")[2] if "." in name else ""
