"""Records of parquet files and of ``datasets``: only the columns that are read are decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textvae.errors import UserError, first_line
from textvae.text.data.columns import Columns, Row
from textvae.text.data.layout import Layout
from textvae.text.data.streams import InputFile

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS_AT_ONCE = 1000


def parquet_layout(file: InputFile, layout: Layout) -> Layout:
    """Detect the columns from the schema.

    Args:
        file: The file.
        layout: The options.

    Raises:
        UserError: It is not a parquet file, a column is missing, or two have the same name.
    """
    from pyarrow import parquet

    with _readable(file.where):
        schema = parquet.ParquetFile(file.path).schema_arrow
    columns = layout.columns.resolve(_fields(schema), file.where)
    count = Counter(schema.names)
    if twice := [name for name in columns.named if count[name] > 1]:
        raise UserError(f"{file.where}: {count[twice[0]]} columns are named {twice[0]!r}")
    return replace(layout, columns=columns)


def _fields(schema: Any) -> dict[str, Any]:
    """Return names and nested names of an Arrow schema or struct."""
    return {field.name: _fields(field.type) if _is_struct(field) else None for field in schema}


def _is_struct(field: Any) -> bool:
    from pyarrow import types

    return types.is_struct(field.type)


def parquet_records(file: InputFile, layout: Layout) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream the rows.

    Args:
        file: The file.
        layout: As ``parquet_layout`` returned it.

    Yields:
        Row number, from 1, and the values of the columns that are read.

    Raises:
        UserError: The file is damaged, or has a value that Python cannot represent.
    """
    from pyarrow import parquet

    with _readable(file.where):
        table = parquet.ParquetFile(file.path)
        roots = _roots(layout.columns, table.schema_arrow.names)
        row = 0
        for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=roots):
            for record in _records(batch, layout.columns, file.where, row):
                row += 1
                yield row, record


def _roots(columns: Columns, present: list[str]) -> list[str]:
    """Return the columns that contain the (nested) columns that are read."""
    return [name if name in present else name.split(".")[0] for name in columns.named]


def _records(batch: Any, columns: Columns, where: str, before: int) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError):  # one by one, to find the row and the column
        names = batch.schema.names
        return [
            {
                name: _value(batch.column(j)[i], name, columns, f"{where}, row {before + i + 1}")
                for j, name in enumerate(names)
            }
            for i in range(batch.num_rows)
        ]


def _value(scalar: Any, name: str, columns: Columns, where: str) -> Any:
    """Return a value; None for one that cannot be read in a label column that nobody named."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        why = f"not UTF-8 ({error.reason})"
    except (ValueError, OverflowError) as error:  # such as a date after the year 9999
        reason = first_line(error)
        why = f"a value that cannot be read ({reason})"
    if name == columns.label and not columns.label_named:
        return None
    raise UserError(f"{where}: {why} in column {name!r}")


@contextmanager
def _readable(where: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        why = first_line(error)
        raise UserError(f"{where}: not a readable parquet file ({why})") from None


def dataset_columns(dataset: Dataset, columns: Columns, where: str) -> Columns:
    """Detect the columns of a ``datasets.Dataset``.

    Raises:
        UserError: A column is missing.
    """
    features: Mapping[str, Any] = dataset.features
    return columns.resolve(features, where)


def dataset_rows(dataset: Dataset, columns: Columns, where: str) -> Iterator[Row]:
    """Stream the rows of a ``datasets.Dataset``.

    Args:
        dataset: The dataset.
        columns: As ``dataset_columns`` returned them.
        where: Its name in messages.

    Raises:
        UserError: A text is not a string, or a value cannot be represented.
    """
    chosen = dataset.select_columns(_roots(columns, dataset.column_names)).with_format("arrow")
    row = 0
    for batch in chosen.iter(batch_size=_ROWS_AT_ONCE):
        for record in _records(batch, columns, where, row):
            row += 1
            yield columns.pick(record, where, row)
