"""Stream ``(line, text, label)`` from files of any supported format; errors name the line.

| format | files | a document is |
|---|---|---|
| ``lines`` | .txt .text | a line |
| ``label-tab-text`` | .txt .text | a line ``label<TAB>text`` |
| ``jsonl``, ``json`` | .jsonl .json | an object on a line, or in one JSON array |
| ``csv``, ``tsv`` | .csv .tsv | a row below a header; quotes have no meaning in .tsv |
| ``torchtext-csv`` | .csv | a row ``label, text, text …``, no header (YahooAnswers, AG_NEWS) |
| ``parquet`` | .parquet | a row |

All extensions except .parquet may be followed by ``.gz``.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.text.data.columns import Columns, Row

FORMATS = ("lines", "label-tab-text", "jsonl", "json", "csv", "tsv", "torchtext-csv", "parquet")
PLAIN = frozenset({"lines", "label-tab-text"})  # formats without named columns
EXTENSIONS = {
    "txt": "lines",
    "text": "lines",
    "jsonl": "jsonl",
    "json": "json",
    "csv": "csv",
    "tsv": "tsv",
    "parquet": "parquet",
}
YAHOO_COLUMNS = ("label", "question_title", "question_content", "best_answer")
_SAMPLE = 1000  # lines read to detect a format
_LABEL = re.compile(r"[^\s]{1,32}")


def format_of(path: Path) -> str:
    """Detect the format of a file from its extension, and from its content for .txt and .csv.

    Args:
        path: The file.

    Returns:
        One of ``FORMATS``.

    Raises:
        UserError: If the extension is unknown, the file cannot be read, or only some lines of a
            .txt file have a label.
    """
    endings = path.name.lower().removesuffix(".gz").rsplit(".", 1)
    form = EXTENSIONS.get(endings[-1]) if len(endings) == 2 else None
    if form is None:
        raise UserError(
            f"{path}: unknown extension; use one of {', '.join('.' + e for e in EXTENSIONS)}, "
            "or set --data.format"
        )
    if form == "lines" and _has_labels(path):
        return "label-tab-text"
    if form == "csv":
        first = next(_csv_rows(path, "csv"), (1, []))[1]
        if len(first) > 1 and first[0].strip().isdecimal():
            return "torchtext-csv"
    return form


def read_rows(path: Path, form: str, columns: Columns) -> Iterator[Row]:
    """Stream the rows of a file, including blank ones, which the caller counts.

    Args:
        path: The file.
        form: One of ``FORMATS``.
        columns: The columns to read, for formats that have columns.

    Returns:
        Line, text and label of each row.

    Raises:
        UserError: If there is a problem with the file; the message names the line.
    """
    match form:
        case "lines":
            return ((line, text.strip(), None) for line, text in read_lines(path))
        case "label-tab-text":
            return _labeled_lines(path)
        case "jsonl" | "json":
            return _records(path, columns, _json_records(path, form))
        case "csv" | "tsv":
            return _records(path, columns, _csv_records(path, form))
        case "torchtext-csv":
            return _records(path, columns, _csv_records(path, form), headerless=True)
        case "parquet":
            return _records(path, columns, _parquet_records(path))
    raise UserError(f"format {form!r}: must be auto or one of {', '.join(FORMATS)}")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Stream the numbered lines of a UTF-8 file; only LF and CRLF end a line, not U+2028 etc.

    Args:
        path: The file, possibly compressed with gzip.

    Yields:
        Line number, from 1, and text.

    Raises:
        UserError: If the file cannot be read, is binary, or is not UTF-8.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            yield from decoded_lines(file, str(path))
    except (EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip file ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def decoded_lines(stream: Iterable[bytes], where: str) -> Iterator[tuple[int, str]]:
    """Stream the numbered lines of a stream of bytes.

    Args:
        stream: The lines.
        where: Name of the stream, for messages.

    Yields:
        Line number, from 1, and text.

    Raises:
        UserError: If a line is binary or not UTF-8.
    """
    for number, line in enumerate(stream, start=1):
        if b"\0" in line:
            raise UserError(
                f"{where}, line {number}: contains a NUL byte: this is a binary or UTF-16 file, "
                "but textvae reads UTF-8 text"
            )
        text = _decoded(line, where, number)
        yield number, text.removeprefix("\ufeff") if number == 1 else text


def _decoded(line: bytes, where: str, number: int) -> str:
    try:
        return line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at "
            f"{error.start}); convert the file, for example with iconv -t UTF-8"
        ) from None


def _has_labels(path: Path) -> bool:
    without = None
    labeled = seen = 0
    for number, text in read_lines(path):
        if not text.strip():
            continue
        seen += 1
        label, tab, rest = text.partition("\t")
        if tab and "\t" not in rest and rest.strip() and _LABEL.fullmatch(label):
            labeled += 1
        elif without is None:
            without = number
        if seen == _SAMPLE:
            break
    if without is not None and labeled > seen / 2:
        raise UserError(
            f"{path}, line {without}: not `label<TAB>text`, unlike most lines; fix the line, "
            "or set --data.format lines if tabs have no meaning"
        )
    return seen > 0 and labeled == seen


def _labeled_lines(path: Path) -> Iterator[Row]:
    for number, line in read_lines(path):
        label, tab, text = line.partition("\t")
        if not line.strip():
            yield number, None, None
        elif not tab or not label.strip():
            raise UserError(f"{path}, line {number}: no label; expected `label<TAB>text`")
        else:
            yield number, text.strip(), label.strip()


def _records(
    path: Path,
    columns: Columns,
    records: Iterable[tuple[int, dict[str, Any]]],
    headerless: bool = False,
) -> Iterator[Row]:
    resolved = None
    for line, record in records:
        if resolved is None:
            there = list(record)
            if headerless:
                columns = Columns(columns.text or tuple(there[1:]), columns.label or "label")
            resolved = columns.resolve(there, f"{path}, line {line}")
        if resolved.label is None and "label" in record and "label" not in resolved.text:
            raise UserError(f"{path}, line {line}: has a label, but the first line has none")
        yield resolved.pick(record, path, line)


def _json_records(path: Path, form: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = ((n, text) for n, text in read_lines(path) if text.strip())
    for number, text in lines:
        if form == "json" and text.lstrip().startswith("["):
            whole = "\n".join([text, *(rest for _, rest in lines)])
            records = _parsed_json(whole, path, number)
            yield from ((i, _an_object(r, path, i)) for i, r in enumerate(records, start=1))
            return
        yield number, _an_object(_parsed_json(text, path, number), path, number)


def _parsed_json(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        line += getattr(error, "lineno", 1) - 1
        why = getattr(error, "msg", error)
        raise UserError(f"{path}, line {line}: not JSON: {why}") from None


def _an_object(record: Any, path: Path, line: int) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise UserError(f'{path}, line {line}: expected a JSON object, such as {{"text": "…"}}')
    return record


def _csv_records(path: Path, form: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = _csv_rows(path, form)
    header: list[str] | None = None
    for line, row in rows:
        if header is None:
            if form != "torchtext-csv":
                header = [name.strip() for name in row]
                continue
            texts = [f"text{i}" for i in range(1, len(row))]
            header = list(YAHOO_COLUMNS) if len(row) == 4 else ["label", *texts]
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {line}: {len(row)} columns, expected {len(header)} "
                f"({', '.join(header)})"
            )
        yield line, dict(zip(header, row, strict=True))


def _csv_rows(path: Path, form: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is too small for long documents
    lines = (text + "\n" for _, text in read_lines(path))
    if form == "tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: not {form}: {error}") from None
        if row is None:
            return
        if row:
            yield reader.line_num, row


def _parquet_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        row = 0
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1000):
            for record in batch.to_pylist():
                row += 1
                yield row, record
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error})") from None
