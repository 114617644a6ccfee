"""Ctrl-C and SIGTERM as a request to stop between two updates."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds: launchers of several processes forward a Ctrl-C that each process has already received.
SAME_SIGNAL = 0.5


class Interrupted(Exception):
    """The user stopped the training; everything is saved."""


class StopRequest:
    """Whether the user asked to stop, and when."""

    requested = False
    when = 0.0


AFTER_THIS_UPDATE = "stopping after this update; press Ctrl-C again to stop immediately"


@contextmanager
def stop_signals(message: str = AFTER_THIS_UPDATE) -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one interrupts immediately.

    Files saved before the second one are intact.

    Args:
        message: What the user sees when the request has arrived; empty for nothing.
    """
    stop = StopRequest()

    def ask(number: int, _: object) -> None:
        if not stop.requested:
            stop.requested, stop.when = True, time.monotonic()
            # Not through logging: the signal may have arrived in the middle of a log line.
            os.write(2, f"{message}\n".encode() if message else b"")
        elif time.monotonic() - stop.when > SAME_SIGNAL:
            raise KeyboardInterrupt(
                "stopped immediately: --resume continues from the last checkpoint"
            )

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
