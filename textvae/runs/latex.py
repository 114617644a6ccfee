"""Tables in LaTeX, for a paper."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What a backslash before it does not print.
WORDS = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
SIGNS = {"±": r"$\pm$", "–": "--"}


def latex_table(rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """Return a table that needs the package booktabs.

    Args:
        rows: The header first; all columns but the first are aligned to the right.
        notes: Lines above it, as comments.
    """
    header, *lines = [" & ".join(map(_cell, row)) + r" \\" for row in rows]
    parts = [
        rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
        *(r"\toprule", header, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"),
    ]
    return "\n".join([*(f"% {note}" for note in notes), *parts]) + "\n"


def _cell(text: str) -> str:
    """Return a text with what is special in LaTeX escaped, and its numbers in math mode."""
    escaped = re.sub(r"[\\^~_%&#${}]", lambda found: WORDS.get(found[0], "\\" + found[0]), text)
    for sign, written in SIGNS.items():
        escaped = escaped.replace(sign, written)
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", escaped)
