"""Ctrl-C, SIGTERM, SIGHUP, and SIGUSR1 as a request to stop between two updates.

Clusters send SIGTERM or SIGUSR1 some time before a job is killed, and a terminal that closes sends
SIGHUP.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Seconds: launchers of several processes forward a Ctrl-C that each process has already received.
SAME_SIGNAL = 0.5
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows lacks the last two


class Interrupted(Exception):
    """The user stopped the training; everything is saved."""


class StopRequest:
    """Whether the user asked to stop, and when."""

    requested = False
    when = 0.0


AFTER_THIS_UPDATE = "stopping after this update; press Ctrl-C again to stop immediately"


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Make SIGTERM do what Ctrl-C does, so that temporary files are removed."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt("terminated")

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # whoever has set it knows better
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def stop_signals(message: str = AFTER_THIS_UPDATE) -> Iterator[StopRequest]:
    """Turn the first signal into a request; a second one interrupts immediately.

    Files saved before the second one are intact. A signal that is ignored (SIGHUP under nohup)
    remains so.

    Args:
        message: What the user sees when the request has arrived; empty for nothing.
    """
    stop = StopRequest()

    def ask(number: int, _: object) -> None:
        if not stop.requested:
            stop.requested, stop.when = True, time.monotonic()
            # Not through logging: the signal may have arrived in the middle of a log line.
            with suppress(OSError):  # a terminal that has closed
                os.write(2, f"{message}\n".encode() if message else b"")
        elif time.monotonic() - stop.when > SAME_SIGNAL:
            raise KeyboardInterrupt(
                "stopped immediately: --resume continues from the last checkpoint"
            )

    signals = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        signals = []  # Python handles signals in the main thread only
    heeded = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
