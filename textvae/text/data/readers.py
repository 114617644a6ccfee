r"""Stream ``(line, text, label)`` from files of any supported format; errors name the line.

| format | files | a document is |
|---|---|---|
| ``lines`` | .txt .text | a line |
| ``label-tab-text`` | .txt .text | a line ``label<TAB>text`` |
| ``documents`` | .txt .text | a file; its folder is the label |
| ``jsonl``, ``json`` | .jsonl .ndjson .json | an object on a line, or in one JSON array |
| ``csv``, ``tsv`` | .csv .tsv | a row; quotes have no meaning in .tsv |
| ``torchtext-csv`` | .csv | a row ``label, text, text …``, no header (YahooAnswers, AG_NEWS) |
| ``parquet`` | .parquet | a row |

Any file except .parquet may be compressed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from textvae.errors import UserError
from textvae.text.data.arrow_records import parquet_layout, parquet_records
from textvae.text.data.columns import Columns, Row
from textvae.text.data.json_records import json_layout, json_records
from textvae.text.data.layout import EXTENSIONS, PLAIN, TABLES, Layout, extension_of
from textvae.text.data.streams import InputFile, read_lines
from textvae.text.data.tables import table_layout, table_records

_SAMPLE = 1000  # lines read to detect a format
_LABEL = re.compile(r"[^\s]{0,32}")


def detect_layout(file: InputFile, options: Layout) -> Layout:
    """Detect the layout of a file from its extension and its first lines.

    Args:
        file: The file.
        options: What is known already.

    Returns:
        A layout that leaves nothing to detect.

    Raises:
        UserError: The layout is ambiguous, or an option does not fit it; the message names the
            option that settles it.
    """
    extension = extension_of(Path(file.where))
    kind = EXTENSIONS.get(extension, None if file.copy is None else "lines")  # a pipe has none
    options = options.for_file(extension, kind)
    found = _format_of(file, options, kind)
    layout = replace(options, format=found, detected=options.format != found)
    if layout.format in TABLES:
        return table_layout(file, layout)
    if layout.delimiter is not None or layout.header is not None:
        raise UserError(
            f"{file.where}: read as {layout.format}: --data.delimiter and --data.header apply only "
            "to tables (csv, tsv)"
        )
    match layout.format:
        case "json" | "jsonl":
            return json_layout(file, layout)
        case "parquet":
            return parquet_layout(file, layout)
    if layout.columns.named:
        raise UserError(
            f"{file.where}: no column {layout.columns.named[0]!r}: it was read as {layout.format}, "
            "and only csv, tsv, jsonl, json, and parquet files have columns"
            + ("" if layout.columns.verbatim else "; if it is named in a config, set it to null")
        )
    return layout


def _format_of(file: InputFile, options: Layout, kind: str | None) -> str:
    if options.format != "auto":
        return options.format
    if kind is None:
        raise UserError(
            f"{file.where}: unknown extension; use one of {', '.join('.' + e for e in EXTENSIONS)},"
            " or set --data.format"
        )
    if kind != "lines":
        return kind
    if options.delimiter is not None:
        return "csv"
    return _format_of_lines(file)


def _format_of_lines(file: InputFile) -> str:
    first, without = "", None
    labeled = neither = 0
    lines = ((number, text) for number, text in read_lines(file) if text.strip())
    for number, text in islice(lines, _SAMPLE):
        first = first or text
        label, tab, rest = text.partition("\t")
        if not (tab and "\t" not in rest and rest.strip() and is_label(label.strip())):
            neither += 1
            without = without or number
        elif label.strip():
            labeled += 1
    if {"label", "text"}.issubset(first.split("\t")):
        return "tsv"
    if neither and labeled > neither:
        raise UserError(
            f"{file.where}, line {without}: not `label<TAB>text`, unlike most lines; fix the line, "
            "or set --data.format lines if tabs have no meaning"
        )
    if _is_json_object(first):
        raise UserError(
            f"{file.where}: its first line is a JSON object: set --data.format jsonl to read it as "
            "JSON Lines, or --data.format lines to read it as text"
        )
    if _is_header(first):
        raise UserError(
            f"{file.where}: its first line looks like the header of a table: set --data.format csv "
            "to read it as a table, or --data.format lines to read it as text"
        )
    return "label-tab-text" if labeled and not neither else "lines"


def _is_header(line: str) -> bool:
    """Return whether a line consists of names between commas, one of which is ``text``."""
    names = [name.strip() for name in line.split(",")]
    return len(names) > 1 and "text" in names and all(name.isidentifier() for name in names)


def _is_json_object(line: str) -> bool:
    """Return whether a line is a JSON object with at least one field."""
    if not (line.startswith("{") and line.rstrip().endswith("}")):
        return False
    try:
        return bool(json.loads(line))
    except (ValueError, RecursionError):
        return False


def read_rows(file: InputFile, layout: Layout) -> Iterator[Row]:
    """Stream the rows of a file, including blank ones, which the caller counts.

    Args:
        file: The file.
        layout: As ``detect_layout`` returned it.

    Returns:
        Line, text and label of each row.

    Raises:
        UserError: If there is a problem with the file; the message names the line.
    """
    match layout.format:
        case "lines":
            return ((line, text.strip(), None) for line, text in read_lines(file))
        case "label-tab-text":
            return _labeled_lines(file, layout)
        case "documents":
            return _document(file, layout.columns)
        case "jsonl" | "json":
            records = json_records(file, layout)
        case "parquet":
            records = parquet_records(file, layout)
        case _:
            records = table_records(file, layout)
    return (layout.columns.pick(record, file.where, line) for line, record in records)


def is_label(name: str) -> bool:
    """Whether a name before a tab is taken for a label; an empty one is for unlabeled texts."""
    return _LABEL.fullmatch(name) is not None


def has_labels(layout: Layout) -> bool:
    """Whether rows of this layout may have labels."""
    if layout.format in PLAIN:
        return layout.columns.labels and layout.format != "lines"
    return layout.columns.label is not None


def _labeled_lines(file: InputFile, layout: Layout) -> Iterator[Row]:
    columns = layout.columns
    for number, line in read_lines(file):
        label, tab, text = line.partition("\t")
        if not line.strip():
            yield number, None, None
        elif not tab:
            raise UserError(f"{file.where}, line {number}: no label; expected `label<TAB>text`")
        elif layout.detected and not is_label(label.strip()):
            raise UserError(
                f"{file.where}, line {number}: what comes before the tab does not look like a "
                f"label, unlike in the first {_SAMPLE:,} lines; set --data.format label-tab-text "
                "if it is one, or --data.format lines if tabs have no meaning"
            )
        else:
            read = columns.read_label(label, file.where, number) if columns.labels else None
            yield number, text.strip(), read


def _document(file: InputFile, columns: Columns) -> Iterator[Row]:
    text = "\n".join(line for _, line in read_lines(file)).strip()
    name = file.path.parent.name
    yield 1, text, columns.read_label(name, file.where, 1) if columns.labels else None
