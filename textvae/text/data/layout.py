"""How documents are laid out in files: the options, and what is detected where they say nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

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
_KINDS = {form: form for form in FORMATS}  # the format of the files that usually have it
_KINDS |= {"label-tab-text": "lines", "documents": "lines", "torchtext-csv": "csv"}
_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}


class Usual(NamedTuple):
    """The options of the training data, from which other files are read alike.

    Attributes:
        place: The training file, or the folder or dataset with it.
        format: One of ``FORMATS``, or ``auto``.
        text_column: The text column, or several.
        label_column: The label column.
        delimiter: What separates the columns of a table.
        header: Whether the first row of a table names its columns.
    """

    place: str = ""
    format: str = "auto"
    text_column: str | None = None
    label_column: str | None = None
    delimiter: str | None = None
    header: bool | None = None

    def are_of(self, extension: str, kind: str | None) -> bool:
        """Return whether the options fit a file with this extension, whose usual format is kind."""
        own = extension_of(Path(self.place))
        if own and own == extension:
            return True
        return kind is not None and kind == EXTENSIONS.get(own, _KINDS.get(self.format, "csv"))


UNKNOWN = Usual()


@dataclass(frozen=True)
class Layout:
    """How the documents of a file are laid out.

    Attributes:
        format: One of ``FORMATS``, or ``auto`` to detect it.
        columns: The columns to read.
        delimiter: What separates the columns of a table; None to detect it.
        header: Whether the first row of a table names its columns; None to detect it.
        usual: The options of the training data, used for a file of the same kind if neither format,
            delimiter, nor header is given.
        detected: Whether the format was detected from the first lines; later ones may differ.
    """

    format: str = "auto"
    columns: Columns = field(default_factory=Columns)
    delimiter: str | None = None
    header: bool | None = None
    usual: Usual = UNKNOWN
    detected: bool = False

    @classmethod
    def parse(
        cls,
        format: str = "auto",
        text_column: str | None = None,
        label_column: str | None = None,
        labels: bool = True,
        delimiter: str | None = None,
        header: bool | None = None,
        usual: Usual = UNKNOWN,
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
            usual: The options of the training data. Its columns are used if a file has them and
                none were named.
            numeric: Whether the labels are numbers.

        Raises:
            UserError: A value is out of range.
        """
        if format not in ("auto", *FORMATS):
            raise UserError(f"format {format!r}: must be auto or one of {', '.join(FORMATS)}")
        columns = Columns.parse(
            text_column, label_column, labels, (usual.text_column, usual.label_column), numeric
        )
        return cls(format, columns, _character(delimiter), header, usual)

    def for_file(self, extension: str, kind: str | None) -> Layout:
        """Return the layout with the options of the training data, if they are of such a file.

        Args:
            extension: That of the file.
            kind: The format that it stands for, if any.
        """
        asked = (self.format, self.delimiter, self.header) != ("auto", None, None)
        usual = self.usual
        if asked or not usual.are_of(extension, kind):
            return self
        delimiter = _character(usual.delimiter)
        return replace(self, format=usual.format, delimiter=delimiter, header=usual.header)

    def identity(self) -> list[Any]:
        """Return what the rows depend on besides the files, as JSON."""
        columns = asdict(self.columns)
        del columns["usual"], columns["label_seen"]  # only ways to find the others
        for kind in ("numeric", "verbatim"):
            if not columns[kind]:  # as before there were such labels
                del columns[kind]
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


def _character(delimiter: str | None) -> str | None:
    """Return the character that a delimiter names.

    Raises:
        UserError: It names none.
    """
    if delimiter is None:
        return None
    delimiter = _DELIMITERS.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise UserError(
            f"delimiter {delimiter!r}: must be one character, or one of "
            f"{', '.join(name for name in _DELIMITERS if name.isalpha())}"
        )
    return delimiter


def extension_of(path: Path) -> str:
    """Return the extension of a file in lower case, without that of its compression."""
    name = path.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name.rpartition(".")[2] if "." in name else ""
