"""Write sentences as lines or JSON, to a terminal or to a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from textvae.errors import UserError, quantity
from textvae.runs.files import replacing

WIDTH = 9  # of a column of numbers
CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), " ")  # a model of bytes may write them
# Of files that hold something other than lines: what other commands write, tables, and archives.
NOT_LINES = {".png", ".svg", ".npz", ".parquet", ".html", ".json", ".csv", ".tsv"}
NOT_LINES |= {".gz", ".bz2", ".xz", ".zst", ".zip"}


class SentencePrinter:
    """Prints sentences; as a context manager, it completes its file at the end.

    Args:
        format: ``text`` for one sentence per line, ``jsonl`` for one JSON object per line. The
            objects include the sources if there are any.
        show_sources: In ``text`` format, print each source above its output.
        path: The file to write, which appears once it is complete; None: standard output.

    Raises:
        UserError: The path is a folder, or the name of a file that does not consist of lines.
    """

    at_once = 1024

    def __init__(
        self, format: str = "text", show_sources: bool = False, path: Path | None = None
    ) -> None:
        self.format, self.show_sources, self.path = format, show_sources, path
        self.file: TextIO | None = None  # standard output
        self.shown, self._files = 0, ExitStack()
        if path is not None and path.is_dir():
            raise UserError(f"--out {path} is a folder: give the name of a file")
        if path is not None and path.suffix.lower() in NOT_LINES:
            raise UserError(
                f"--out {path}: sentences are written as text, or as JSON objects if the name ends "
                "in .jsonl: give another name"
            )

    def __enter__(self) -> SentencePrinter:
        if self.path is not None:
            temporary = self._files.enter_context(replacing(self.path))
            self.file = self._files.enter_context(temporary.open("w", encoding="utf-8"))
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)
        if self.path is not None and error[0] is None:
            print(f"wrote {quantity(self.shown, 'sentence')} to {self.path}", file=sys.stderr)

    def show(
        self,
        outputs: Sequence[str],
        *,
        sources: Sequence[str] | None = None,
        columns: int | None = None,
        details: Sequence[Mapping[str, float]] | None = None,
        conditions: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Print the sentences in order, with their numbers if any; ``columns`` has no effect.

        ``conditions`` are part of JSON objects only.
        """
        details = details or [{}] * len(outputs)
        self.shown += len(outputs)
        if self.format == "text" and outputs and details[0]:
            self._print(" ".join(f"{name:>{WIDTH}}" for name in details[0]))
        for i, output in enumerate(outputs):
            if self.format == "jsonl":
                under = {name: values[i] for name, values in (conditions or {}).items()}
                row = {**details[i], **under, "text": output}
                row = row if sources is None else {"source": sources[i], **row}
                self._print(json.dumps(row, ensure_ascii=False))
                continue
            if sources is not None and self.show_sources:
                self._print(f"> {on_one_line(sources[i])}")
            words = [*map(_aligned, details[i].values()), on_one_line(output)]
            self._print(" ".join(words))

    def _print(self, line: str) -> None:
        print(line, file=self.file)


def on_one_line(text: str) -> str:
    """Return a text as one line, which a terminal can show and ``textvae`` can read again."""
    return " ".join(text.splitlines()).translate(CONTROLS)


def _aligned(value: float) -> str:
    return f"{value:{WIDTH}}" if isinstance(value, int) else f"{value:{WIDTH}.2f}"
