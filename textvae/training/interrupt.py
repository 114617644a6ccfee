"""Ctrl-C, SIGTERM, SIGHUP, and SIGUSR1 as a request to stop between two updates.

Clusters send SIGTERM or SIGUSR1 some time before a job is killed, and a terminal that closes sends
SIGHUP.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

# Seconds: launchers of several processes forward a Ctrl-C that each process has already received.
SAME_SIGNAL = 0.5
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows lacks the last two


class Interrupted(KeyboardInterrupt):
    """The user stopped training with Ctrl-C or a signal; everything is saved.

    Like any ``KeyboardInterrupt``, it is not an ``Exception``: a loop over experiments that goes on
    after errors ends here.
    """


class StopRequest:
    """Whether the user asked to stop, when, and what is said about it at the end."""

    requested = False
    when = 0.0
    message = ""


AGAIN = "press Ctrl-C again"
AFTER_THIS_STEP = f"stopping after this step; {AGAIN} to stop immediately"
RESUME = "--resume continues from the last checkpoint"
# Seconds between two looks whether an import has ended: what follows the last one may be short.
WHILE_IMPORTING = 0.001


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Make all of the signals do what Ctrl-C does, so that temporary files are removed.

    An import is not interrupted, but the command is as soon as it has ended: while they are
    imported, and when they are called, compiled modules turn the exception into others. A second
    signal interrupts the import, too.

    Raises:
        KeyboardInterrupt: A signal arrived, whatever has become of the exception since.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        first = not stop.requested
        if first:
            stop.requested, stop.when = True, time.monotonic()
            stop.message = "" if number == signal.SIGINT else "terminated"
        waits = first or number == alarm or time.monotonic() - stop.when <= SAME_SIGNAL
        if alarm is not None and waits and _is_importing(frame):
            signal.signal(alarm, interrupt)
            signal.setitimer(signal.ITIMER_REAL, WHILE_IMPORTING)
        else:
            raise KeyboardInterrupt(stop.message)

    stop = StopRequest()
    alarm = getattr(signal, "SIGALRM", None)  # Windows has none
    usual = (signal.SIG_DFL, signal.default_int_handler)
    # Handlers of the caller, and signals that are ignored, stay as they are.
    heeded = [number for number in _signals() if signal.getsignal(number) in usual]
    previous = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
        if stop.requested:  # the alarm has not come yet
            raise KeyboardInterrupt(stop.message)
    except Exception as error:
        if stop.requested:
            raise KeyboardInterrupt(stop.message) from error
        raise
    finally:
        if stop.requested and alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(alarm, signal.SIG_DFL)
        _restore(previous)


def _signals() -> list[int]:
    """Return the numbers of the signals; none outside of the main thread, where Python has none."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]


def _restore(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def stop_signals(message: str = AFTER_THIS_STEP, go_on: str = RESUME) -> Iterator[StopRequest]:
    """Turn the first signal into a request; a second one interrupts immediately.

    Files saved before the second one are intact. A signal that is ignored (SIGHUP under nohup)
    remains so.

    Args:
        message: What the user sees when the request has arrived; empty for nothing.
        go_on: How to continue after the second signal.
    """
    stop = StopRequest()

    def ask(number: int, _: object) -> None:
        """Handle a signal."""
        if not stop.requested:
            stop.requested, stop.when = True, time.monotonic()
            # Not through logging: the signal may have arrived in the middle of a log line.
            again = AGAIN if number == signal.SIGINT else "send the signal again"
            said = message.replace(AGAIN, again)
            with suppress(OSError):  # a terminal that has closed
                os.write(2, f"{said}\n".encode() if said else b"")
        elif time.monotonic() - stop.when > SAME_SIGNAL:
            raise KeyboardInterrupt(f"stopped immediately: {go_on}")

    heeded = [number for number in _signals() if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield stop
    finally:
        _restore(previous)
