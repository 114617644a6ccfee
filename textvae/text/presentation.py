"""Read sentences from a file or standard input, and print sentences as lines or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from textvae.errors import UserError
from textvae.text.data.readers import decoded_lines, read_lines

WIDTH = 9  # of a column of numbers


def read_sentences(source: str) -> list[str]:
    """Read one sentence per line.

    Args:
        source: A file, or ``-`` for standard input.

    Raises:
        UserError: It cannot be read, is not UTF-8, or has only blank lines.
    """
    if source == "-":
        where, rows = "standard input", decoded_lines(sys.stdin.buffer, "standard input")
    else:
        where, rows = source, read_lines(Path(source))
    lines = [line for _, line in rows]
    if not any(line.strip() for line in lines):
        raise UserError(f"{where} has no sentences")
    return lines


class SentencePrinter:
    """Prints sentences to standard output.

    Args:
        format: ``text`` for one sentence per line, ``jsonl`` for one JSON object per line. The
            objects include the sources if there are any.
        show_sources: In ``text`` format, print each source above its output.
    """

    at_once = 1024

    def __init__(self, format: str = "text", show_sources: bool = False) -> None:
        self.format, self.show_sources = format, show_sources

    def show(
        self,
        outputs: Sequence[str],
        *,
        sources: Sequence[str] | None = None,
        columns: int | None = None,
        details: Sequence[Mapping[str, float]] | None = None,
    ) -> None:
        """Print the sentences in order, with their numbers if any; ``columns`` has no effect."""
        details = details or [{}] * len(outputs)
        if self.format == "text" and outputs and details[0]:
            print(" ".join(f"{name:>{WIDTH}}" for name in details[0]))
        for i, output in enumerate(outputs):
            if self.format == "jsonl":
                row = {**details[i], "text": output}
                row = row if sources is None else {"source": sources[i], **row}
                print(json.dumps(row, ensure_ascii=False))
                continue
            if sources is not None and self.show_sources:
                print(f"> {sources[i]}")
            words = [*map(_aligned, details[i].values()), output.replace("\n", " ")]
            print(" ".join(words))


def _aligned(value: float) -> str:
    return f"{value:{WIDTH}}" if isinstance(value, int) else f"{value:{WIDTH}.2f}"
