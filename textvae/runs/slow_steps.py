"""Progress lines in the log during steps that may take minutes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

EVERY = 10.0  # seconds between two lines
_CHECK = 0.1  # seconds between two looks at a thread

Item = TypeVar("Item")


class SlowStep:
    """Logs a message again and again, but no more often than every ten seconds.

    Args:
        log: The logger.
        message: The message, with the places for its values.
    """

    def __init__(self, log: logging.Logger, message: str) -> None:
        self.log, self.message, self.last = log, message, time.monotonic()

    def show(self, *values: Any) -> None:
        """Log the message with these values, if it is time."""
        if time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            self.log.info(self.message, *values)


def counted(items: Iterable[Item], step: SlowStep, *more: Any) -> Iterator[Item]:
    """Pass items on, and show how many there were.

    Args:
        items: The items.
        step: Its message takes their number and ``more``.
        more: What else the message takes.
    """
    for number, item in enumerate(items, start=1):
        yield item
        step.show(number, *more)


def interruptible(work: Callable[[], object], step: SlowStep) -> None:
    """Do something that releases the interpreter but never looks at Ctrl-C.

    It runs in a thread, which ends with the process if it is interrupted.

    Args:
        work: What to do; its exceptions are raised here.
        step: Its message takes the seconds so far.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread, started = threading.Thread(target=run, daemon=True), time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(_CHECK)
        step.show(time.monotonic() - started)
    if raised:
        raise raised[0]
