"""Tables in files (.jsonl or .parquet), written row by row in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.runs.files import check_writable, json_line, replacing

FORMATS = (".jsonl", ".parquet")
ROWS_AT_ONCE = 1000  # in a row group of a .parquet file

Row = Mapping[str, Any]  # numbers, strings and None by column


def check_table_file(path: Path) -> None:
    """Check that a table can be written to a file, before its rows are computed.

    Raises:
        UserError: Its extension is neither .jsonl nor .parquet, or it cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: tables are written as {' or '.join(FORMATS)}")
    check_writable(path)


def write_table(path: Path, rows: Iterable[Row], numbers: Collection[str] = ()) -> int:
    """Write a table, completely or not at all.

    Args:
        path: A .jsonl or .parquet file.
        rows: Rows with the same columns; at least one for a .parquet file.
        numbers: Columns of numbers that may be None; the types of the other columns are those of
            the first row.

    Returns:
        The number of rows.

    Raises:
        UserError: The file has another extension, or cannot be written.
    """
    check_table_file(path)
    with replacing(path) as temporary:
        if path.suffix.lower() == ".jsonl":
            return _write_jsonl(temporary, iter(rows))
        return _write_parquet(temporary, iter(rows), numbers)


def _write_jsonl(path: Path, rows: Iterator[Row]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json_line(row) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterator[Row], numbers: Collection[str]) -> int:
    import pyarrow
    import pyarrow.parquet

    first = next(rows, None)
    if first is None:
        raise ValueError("a table needs at least one row")
    types = {int: pyarrow.int64(), float: pyarrow.float64()}
    columns = {name: types.get(type(value), pyarrow.string()) for name, value in first.items()}
    columns |= dict.fromkeys(numbers, pyarrow.float64())
    schema = pyarrow.schema(columns.items())
    rows, count = chain([first], rows), 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(chunk, schema=schema))
            count += len(chunk)
    return count
