"""Ctrl-C and SIGTERM as a request to stop between two updates."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds: launchers of several processes pass on a Ctrl-C that each process has got already.
SAME = 0.5


class Interrupted(Exception):
    """The user stopped the training; everything is saved."""


class StopRequest:
    """Whether the user asked to stop, and when."""

    requested = False
    when = 0.0


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turns the first Ctrl-C or SIGTERM into a request; a second one interrupts at once, and what
    was saved before stays as it is."""
    stop = StopRequest()

    def ask(number: int, _: object) -> None:
        if not stop.requested:
            stop.requested, stop.when = True, time.monotonic()
            # Not by logging: the signal may have come in the middle of a log line.
            os.write(2, b"stopping after this update; once more to stop at once\n")
        elif time.monotonic() - stop.when > SAME:
            raise KeyboardInterrupt("stopped at once: --resume continues at the last checkpoint")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
