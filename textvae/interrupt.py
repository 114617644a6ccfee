"""Ctrl-C and SIGTERM as a request to stop between two updates."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """The user stopped the training; everything is saved."""


class StopRequest:
    """Whether the user asked to stop."""

    requested = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turns the first Ctrl-C or SIGTERM into a request; a second one interrupts at once, and what
    was saved before stays as it is."""
    stop = StopRequest()

    def ask(number: int, _: object) -> None:
        if stop.requested:
            raise KeyboardInterrupt("stopped at once: --resume continues at the last checkpoint")
        stop.requested = True
        # Not by logging: the signal may have come in the middle of a log line.
        os.write(2, b"stopping after this update; once more to stop at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
