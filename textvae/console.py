"""Messages on standard error: plain lines, or lines above the live progress of a terminal."""

from __future__ import annotations

import functools
import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@functools.cache
def console() -> Console:
    """The one console: only lines that go through it leave a live line below them whole."""
    from rich.console import Console

    return Console(stderr=True)


class _Messages(logging.Handler):
    """Log records through the console."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)
        except Exception:  # as every handler of logging: a message must not end the program
            self.handleError(record)


def start_logging() -> None:
    """Shows the messages of this package, and of others only warnings."""
    handler = _Messages() if sys.stderr.isatty() else logging.StreamHandler(sys.stderr)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("textvae").setLevel(logging.INFO)
