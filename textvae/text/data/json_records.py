"""Records of JSON files: an object per line, or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from textvae.errors import UserError
from textvae.text.data.columns import has_column
from textvae.text.data.layout import Layout
from textvae.text.data.streams import InputFile, read_lines

_LONGEST_ARRAY_LINE = 2**30  # bytes; an array is often a single line


def json_layout(file: InputFile, layout: Layout) -> Layout:
    """Detect the columns from the first object, which may lack a named label column.

    Args:
        file: The file.
        layout: The options; its format is ``json`` or ``jsonl``.

    Raises:
        UserError: A column is missing.
    """
    columns, records = layout.columns, json_records(file, layout)
    if (first := next(records, None)) is None:
        return layout
    line, record = first
    named = columns.label
    if named and not has_column(record, named) and _any_has(named, records):
        record = {**record, named: None}
    columns = columns.resolve(record, f"{file.where}, line {line}")
    usual = columns.usual[1] or "label"  # later objects may have it
    if columns.labels and not columns.label and usual not in columns.text:
        columns = replace(columns, label=usual, label_seen=False)
    return replace(layout, columns=columns)


def _any_has(name: str, records: Iterator[tuple[int, dict[str, Any]]]) -> bool:
    return any(has_column(record, name) for _, record in records)


def json_records(file: InputFile, layout: Layout) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream the objects.

    Args:
        file: The file.
        layout: Its format is ``json`` or ``jsonl``.

    Yields:
        Line (or the number of the object in an array), and object.

    Raises:
        UserError: A line is not a JSON object.
    """
    array = layout.format == "json"
    every = read_lines(file, _LONGEST_ARRAY_LINE) if array else read_lines(file)
    for number, text in every:
        if not text.strip():
            continue
        if array and text.lstrip().startswith("["):
            whole = "\n".join([text, *(rest for _, rest in every)])
            records = _parsed(whole, file, number)
            yield from ((i, _an_object(r, file, i)) for i, r in enumerate(records, start=1))
            return
        yield number, _an_object(_parsed(text, file, number), file, number)


def _parsed(text: str, file: InputFile, line: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except ValueError as error:
        line += getattr(error, "lineno", 1) - 1
        why = getattr(error, "msg", f"{error}").removesuffix(" starting at")
    except RecursionError:
        why = "nested too deeply"
    raise UserError(f"{file.where}, line {line}: not JSON: {why}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return record


def _an_object(record: Any, file: InputFile, line: int) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise UserError(
            f'{file.where}, line {line}: expected a JSON object, such as {{"text": "…"}}'
        )
    return record
