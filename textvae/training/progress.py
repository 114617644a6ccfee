"""What a user sees while a training runs: one live line, or plain log lines."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from textvae.evaluation.metrics import clock, decimals

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)


@functools.cache
def console() -> Console:
    """The one console: only lines that go through it leave a live line below them whole."""
    from rich.console import Console

    return Console(stderr=True)


class Progress:
    """One live line on a terminal; plain log lines elsewhere. Tokens are predicted real ones."""

    def __init__(self, total_steps: int, step: int) -> None:
        self.total_steps, self.first, self.started = total_steps, step, time.perf_counter()
        self.bar = None

    def __enter__(self) -> Progress:
        if console().is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(bar_width=12), TextColumn("{task.description}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console(), transient=True)
            self.task = self.bar.add_task("starting", total=self.total_steps, completed=self.first)
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """The latest training numbers."""
        text = (
            f"epoch {epoch:.2f} loss {decimals(values['loss'])} kl {decimals(values['kl'])} "
            f"beta {values['beta']:.2f} {values['tokens_per_second']:,.0f} tok/s"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=step, description=text)
            return
        done = step - self.first
        left = (time.perf_counter() - self.started) / max(1, done) * (self.total_steps - step)
        logger.info("step %d/%d %s, at most %s left", step, self.total_steps, text, clock(left))


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
