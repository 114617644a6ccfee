"""The exception for errors that the user can fix, and the wording and the log of messages."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """An error that the user can fix: a missing file, a wrong column, an option out of range.

    The message says what is wrong, where (file, line, option), and what to do. The command line
    prints it as one line and exits with status 2; any other exception is a bug and keeps its
    traceback.
    """


class OptionError(UserError):
    """An argument with a value that it cannot have; on the command line, an option.

    The message names it as in Python, ``top_p=2.0``. The command line shows it as it is typed.

    Args:
        problem: What is wrong, and what to do.
        values: The arguments concerned, by name.
    """

    def __init__(self, problem: str, **values: object) -> None:
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        super().__init__(f"{shown}: {problem}")
        self.problem, self.values = problem, values


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def quantity(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 example" and "2,000 examples".

    Args:
        count: How many there are.
        noun: The singular of a noun with a regular plural.
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def did_you_mean(wrong: str, names: Collection[str], prefix: str = "") -> str:
    """Return the end of a message that suggests the nearest name; empty if none is near."""
    near = difflib.get_close_matches(wrong, names, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


@contextmanager
def only_errors(name: str = "textvae") -> Iterator[None]:
    """Log nothing but errors for a while.

    Args:
        name: The package whose log it is.
    """
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
