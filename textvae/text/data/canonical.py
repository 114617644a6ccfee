"""The form `data/<set>/prepare.py` leaves a corpus in: train.txt, valid.txt, test.txt.

One document a line, `label<TAB>text` where there are labels, UTF-8, LF.
"""

from collections.abc import Iterable
from pathlib import Path

from textvae.runs.files import replace_file


def write_split(path: Path, rows: Iterable[tuple[str, str | None]]) -> int:
    """Write `(text, label)` rows, all or none: the file appears when it is whole.

    White space within a document becomes single spaces if it holds a line end or a tab.

    Returns:
        The number of documents.

    Raises:
        UserError: the folder cannot be written to.
    """
    count = 0

    def write(temporary: Path) -> None:
        nonlocal count
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for text, label in rows:
                if any(mark in text for mark in "\n\r\t"):
                    text = " ".join(text.split())
                file.write(f"{text}\n" if label is None else f"{label}\t{text}\n")
                count += 1

    replace_file(path, write)
    return count
