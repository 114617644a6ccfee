"""Print sentences as lines or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence


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
    ) -> None:
        """Print the sentences in order; ``columns`` applies only to images."""
        for i, output in enumerate(outputs):
            if self.format == "jsonl":
                row = {"text": output}
                row = row if sources is None else {"source": sources[i], **row}
                print(json.dumps(row, ensure_ascii=False))
                continue
            if sources is not None and self.show_sources:
                print(f"> {sources[i]}")
            print(output.replace("\n", " "))
