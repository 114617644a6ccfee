"""Tables as text: csv and its kin. Delimiter and header are detected only on clear evidence.

**Delimiter.** The one of comma, semicolon, tab and pipe that gives all rows the same number of
columns, two at least; if several do, the one whose header has the columns asked for.

**Header.** The first row is a header if it holds the columns asked for (``text`` and ``label`` by
default), or if it is a single word in a column of numbers or of longer texts. It is a document if
it is like the rows below: an integer and texts (the layout of torchtext), or a sentence.

What is neither is refused, with the option that settles it.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from textvae.errors import UserError
from textvae.text.data.columns import listed
from textvae.text.data.layout import Layout
from textvae.text.data.streams import LONGEST_LINE, InputFile, read_lines

DELIMITERS = (",", ";", "\t", "|")
YAHOO_COLUMNS = ("label", "question_title", "question_content", "best_answer")
_SAMPLE = 1000  # lines read to detect the layout
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
_INTEGER = re.compile(r"[+-]?\d+")
_WORD = re.compile(r"[^\W\d](?:[\w.-]*\w)?")  # such as a column's name, not the end of a sentence
_SENTENCE = 4  # words


def table_layout(file: InputFile, layout: Layout) -> Layout:
    """Detect delimiter, header and columns of a table.

    Args:
        file: The table.
        layout: The options; its format is one of ``TABLES``.

    Returns:
        A layout that leaves nothing to detect.

    Raises:
        UserError: It is ambiguous, or a column is missing; the message names the option that helps.
    """
    sample = [text for _, text in islice(read_lines(file), _SAMPLE)]
    if not any(line.strip() for line in sample):
        return replace(layout, delimiter=layout.delimiter or ",", header=True)
    if layout.delimiter is not None:
        _check_delimiter(file, sample, layout)
    else:
        tab = layout.format == "tsv"
        layout = replace(layout, delimiter="\t" if tab else _delimiter(file, sample, layout))
    rows = _sample_rows(sample, layout)
    first = [cell.strip() for cell in rows[0]]
    if layout.format == "torchtext-csv" and layout.header is None:
        layout = replace(layout, header=False)
    if layout.header is None:
        layout = replace(layout, header=_has_header(file, first, rows[1:], layout))
    if not layout.header and _is_torchtext(rows):
        torchtext = replace(layout, format="torchtext-csv")
        if set(_names(first, torchtext)).issuperset(layout.columns.named):
            layout = torchtext
    names = _names(first, layout)
    unnamed = ""
    if layout.header:
        unnamed = ", or set --data.header false if the first row is a document"
        if (layout.delimiter, len(names)) == ("\t", 2):
            unnamed += ", or --data.format label-tab-text if every row is a label and a document"
    columns = layout.columns
    if layout.format == "torchtext-csv":
        columns = replace(columns, text=columns.text or tuple(names[1:]))
    columns = columns.resolve(dict.fromkeys(names), file.where, unnamed)
    if twice := [name for name in columns.named if Counter(names)[name] > 1]:
        raise UserError(
            f"{file.where}: {Counter(names)[twice[0]]} columns are named {twice[0]!r}: rename them"
        )
    return replace(layout, columns=columns)


def table_records(file: InputFile, layout: Layout) -> Iterator[tuple[int, dict[str, str]]]:
    """Stream the rows of a table.

    Args:
        file: The table.
        layout: As ``table_layout`` returned it.

    Yields:
        Line, and the cells by column.

    Raises:
        UserError: A row has another number of columns, or is not csv.
    """
    names: list[str] = []
    for line, row in _rows(file, layout):
        if not names:
            names = _names([cell.strip() for cell in row], layout)
            if layout.header:
                continue
        if len(row) != len(names):
            named = f" ({listed(names)})" if layout.header else ""
            raise UserError(
                f"{file.where}, line {line}: {len(row)} columns, expected {len(names)}{named}: "
                f"quote texts that contain {layout.delimiter!r}, or set --data.delimiter, or "
                "--data.format lines if it has no columns"
            )
        yield line, dict(zip(names, row, strict=True))


def _names(first: list[str], layout: Layout) -> list[str]:
    """Return the names of the columns, from the first row."""
    if layout.header:
        return first
    if layout.format == "torchtext-csv":
        texts = [f"text{i}" for i in range(1, len(first))]
        return list(YAHOO_COLUMNS) if len(first) == 4 else ["label", *texts]
    return [str(i) for i in range(1, len(first) + 1)]


def _reader(lines: Iterable[str], layout: Layout) -> csv._reader:  # type: ignore[name-defined]
    csv.field_size_limit(LONGEST_LINE)  # the default of 128 KiB is too small for long documents
    delimiter = layout.delimiter or ","
    if layout.format == "tsv":  # quotes have no meaning there
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _rows(file: InputFile, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    reader = _reader((text + "\n" for _, text in read_lines(file)), layout)
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            why, line = f"{error}", reader.line_num
            if "unexpected end" in why:
                why, line = "a quotation mark in this row is never closed", start
            raise UserError(f"{file.where}, line {line}: not {layout.format}: {why}") from None
        if row is None:
            return
        if row:
            yield reader.line_num, row


def _sample_rows(sample: list[str], layout: Layout) -> list[list[str]]:
    """Return the rows that can be read from the first lines, at least one."""
    rows: list[list[str]] = []
    with suppress(csv.Error):  # the sample may end within a row; the reader reports all else
        rows.extend(row for row in _reader((line + "\n" for line in sample), layout) if row)
    return rows or [[next(line for line in sample if line.strip())]]


def _delimiter(file: InputFile, sample: list[str], layout: Layout) -> str:
    rows = {each: _sample_rows(sample, replace(layout, delimiter=each)) for each in DELIMITERS}
    width = {each: len(rows[each][0]) for each in DELIMITERS}
    found = [each for each in DELIMITERS if width[each] > 1]
    even = [each for each in found if all(len(row) == width[each] for row in rows[each])]
    found = even or found
    if len(found) > 1:
        asked = [each for each in found if _holds_columns(rows[each][0], layout)]
        found = asked if len(asked) == 1 else found
    if len(found) > 1:
        choices = " or ".join(repr(each) for each in found)
        raise UserError(
            f"{file.where}: the columns may be separated by {choices}: set --data.delimiter (or "
            "--data.format lines if it has no columns)"
        )
    return found[0] if found else ","


def _check_delimiter(file: InputFile, sample: list[str], layout: Layout) -> None:
    """Check that a delimiter that is given, such as that of the training data, separates columns.

    Raises:
        UserError: It leaves the first row in one piece, and another one makes the columns of it.
    """
    if len(_sample_rows(sample, layout)[0]) > 1:
        return
    for other in DELIMITERS:
        row = _sample_rows(sample, replace(layout, delimiter=other))[0]
        if len(row) > 1 and _holds_columns(row, layout):
            raise UserError(
                f"{file.where}: its columns ({listed(row)}) are separated by {other!r}, not by "
                f"{layout.delimiter!r}: set --data.delimiter to that"
            )


def _holds_columns(first: list[str], layout: Layout) -> bool:
    """Whether the first row has all columns asked for, or one of the usual ones."""
    cells = {cell.strip() for cell in first}
    if named := layout.columns.named:
        return cells.issuperset(named)
    return not cells.isdisjoint(("text", "label", *layout.columns.usual[0]))


def _is_torchtext(rows: list[list[str]]) -> bool:
    """Whether all rows are an integer and texts."""
    integers = all(len(row) > 1 and _INTEGER.fullmatch(row[0].strip()) for row in rows)
    return integers and not all(_NUMBER.fullmatch(cell.strip()) for cell in rows[0][1:])


def _has_header(file: InputFile, first: list[str], rest: list[list[str]], layout: Layout) -> bool:
    named = layout.columns.named
    if _holds_columns(first, layout):
        return True
    if named and all(name.isdecimal() and 1 <= int(name) <= len(first) for name in named):
        return False
    if named and not _is_torchtext([first, *rest]):
        return True  # the error names the column that is missing
    found = _one_column(first[0], rest) if len(first) == 1 else _several_columns(first, rest)
    if found is None:
        raise UserError(
            f"{file.where}: the first row ({listed(first)}) may be a header or a document: set "
            "--data.header true or --data.header false"
        )
    return found


def _one_column(first: str, rest: list[list[str]]) -> bool | None:
    if _WORD.fullmatch(first):
        return True if _has_texts(rest, 0) else None
    if len(first.split()) >= _SENTENCE or (first.endswith((".", "!", "?", "…")) and " " in first):
        return False
    return None


def _several_columns(first: list[str], rest: list[list[str]]) -> bool | None:
    words = [bool(_WORD.fullmatch(cell)) for cell in first]
    if _is_torchtext([first, *rest]):
        like_names = all(words[1:]) and any(_has_texts(rest, i) for i in range(1, len(first)))
        return None if like_names else False
    if any(_NUMBER.fullmatch(cell) for cell in first):
        return None
    return True  # a header without the usual names: the error lists it


def _has_texts(rest: list[list[str]], column: int) -> bool:
    """Whether most cells of a column have several words."""
    cells = [row[column] for row in rest if column < len(row)]
    return sum(" " in cell.strip() for cell in cells) > len(cells) / 2
