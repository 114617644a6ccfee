"""Print sentences as lines or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

WIDTH = 9  # of a column of numbers


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
