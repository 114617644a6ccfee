"""Tables in Markdown that can also be read as text."""

from __future__ import annotations

from collections.abc import Container, Sequence


def markdown_table(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> str:
    """Return a table whose columns are aligned in the text as well.

    Args:
        rows: The header, then the rows; a vertical bar in a cell is escaped.
        right: The columns that are aligned to the right.
    """
    cells = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [str.rjust if column in right else str.ljust for column in range(len(widths))]

    def line(row: Sequence[str]) -> str:
        padded = (side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * (width + 1)}{'-:'[i in right]}" for i, width in enumerate(widths)]
    return "\n".join([line(cells[0]), f"|{'|'.join(rule)}|", *map(line, cells[1:])])
