"""Values of an objective in a file, so that a search that is interrupted loses none of them.

The first line names the objective; every other line holds a text and its value. A search with the
same seed asks for the same texts again, and gets their values from the file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textvae.errors import UserError, quantity

logger = logging.getLogger(__name__)

Objective = Callable[[str], float | None]


@contextmanager
def keeping(path: Path, objective: Objective, name: str) -> Iterator[Objective]:
    """Provide an objective that keeps its values in a file.

    Args:
        path: The file; the values that an earlier search has left there are used again.
        objective: The objective.
        name: Its name, which the values belong to.

    Raises:
        UserError: The file belongs to another objective, or it cannot be read.
    """
    known = _read(path, name) if path.exists() else {}
    if known:
        logger.info(
            "%s of an earlier search from %s: delete it if the objective has changed",
            quantity(len(known), "value"),
            path,
        )
    with path.open("w", encoding="utf-8", newline="\n", buffering=1) as file:

        def keep(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")

        def evaluate(text: str) -> float | None:
            if text not in known:
                known[text] = objective(text)
                keep({"text": text, "value": known[text]})
            return known[text]

        keep({"objective": name})
        for text, value in known.items():
            keep({"text": text, "value": value})
        yield evaluate


def _read(path: Path, name: str) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = json.loads(lines[0])["objective"] if lines else name
        for line in lines[1:]:
            entry = json.loads(line)
            values[str(entry["text"])] = None if entry["value"] is None else float(entry["value"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not values:
            raise UserError(f"{path} cannot be read ({error}): delete it") from error
        # The search was killed while it wrote the last line.
    if found != name:
        raise UserError(f"{path} has the values of {found}, not of {name}: delete it")
    return values
