"""Values of an objective in a file, so that a search that is interrupted loses none of them.

The first line names the objective; every other line holds a text and its value. A search with the
same seed asks for the same texts again, and gets their values from the file. Texts without a value
are not kept: they may be due to a mistake in the objective.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path

from textvae.errors import UserError, quantity
from textvae.runs.files import check_writable, write_text
from textvae.runs.lock import locked

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
        UserError: The file belongs to another objective, it cannot be read, or another search is
            using it.
    """
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        yield from _keeping(path, objective, name)


def _keeping(path: Path, objective: Objective, name: str) -> Iterator[Objective]:
    known = _read(path, name) if path.exists() else {}
    if known:
        logger.info(
            "%s of an earlier search from %s: delete it if the objective has changed",
            quantity(len(known), "value"),
            path,
        )
    # Rewrite the file: a search that was killed may have left half a line.
    write_text(path, "".join([_line(objective=name), *starmap(_entry, known.items())]))
    try:
        with path.open("a", encoding="utf-8", newline="\n", buffering=1) as file:

            def evaluate(text: str) -> float | None:
                if text in known:
                    return known[text]
                value = objective(text)
                if value is not None and math.isfinite(value):
                    known[text] = value
                    file.write(_entry(text, value))
                return value

            yield evaluate
    finally:
        if not known:
            path.unlink(missing_ok=True)


def _entry(text: str, value: float) -> str:
    return _line(text=text, value=value)


def _line(**fields: str | float) -> str:
    return json.dumps(fields) + "\n"


def _read(path: Path, name: str) -> dict[str, float]:
    values: dict[str, float] = {}
    try:
        text = path.read_text(encoding="utf-8")
        # What follows the last line end was cut: the search was killed while it wrote that line.
        first, *lines = text[: text.rfind("\n") + 1].splitlines() or [_line(objective=name)]
        found = json.loads(first)["objective"]
        for line in lines:
            entry = json.loads(line)
            values[str(entry["text"])] = float(entry["value"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it") from error
    if found != name:
        raise UserError(f"{path} has the values of {found}, not of {name}: delete it")
    return values
