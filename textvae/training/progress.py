"""Training progress: one live line on a terminal, log lines elsewhere."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from textvae.evaluation.metrics.metric import clock, decimals

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as ProgressBar
    from rich.progress import TaskID

logger = logging.getLogger(__name__)


@functools.cache
def console() -> Console:
    """Return the only console: lines printed elsewhere would break the live line."""
    from rich.console import Console

    return Console(stderr=True)


class Progress:
    """One live line on a terminal, log lines elsewhere.

    Args:
        total_steps: Steps of the whole training.
        step: The step at which it starts or resumes.
        live: Whether this process may draw a live line: only one of several does.
    """

    bar: ProgressBar | None = None
    task: TaskID

    def __init__(self, total_steps: int, step: int, live: bool = True) -> None:
        self.total_steps, self.first, self.started = total_steps, step, time.perf_counter()
        self.live = live

    def __enter__(self) -> Progress:
        """Start the live line."""
        if self.live and console().is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(bar_width=12), TextColumn("{task.description}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console(), transient=True)
            self.task = self.bar.add_task("starting", total=self.total_steps, completed=self.first)
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the live line."""
        if self.bar is not None:
            self.bar.stop()

    def show(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Show the latest training metrics.

        Args:
            step: Steps done.
            epoch: Epochs done.
            values: ``loss``, ``tokens_per_second`` (of the tokens predicted, without padding),
                and, if there is a latent variable, ``kl`` and ``beta``.
        """
        text = f"epoch {epoch:.2f} loss {decimals(values['loss'])}"
        if "kl" in values:
            text += f" kl {decimals(values['kl'])} beta {values['beta']:.2f}"
        text += f" {values['tokens_per_second']:,.0f} tok/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=step, description=text)
            return
        done = step - self.first
        left = (time.perf_counter() - self.started) / max(1, done) * (self.total_steps - step)
        logger.info("step %d/%d %s, at most %s left", step, self.total_steps, text, clock(left))


class _ConsoleHandler(logging.Handler):
    """Prints log records through the console."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)
        except Exception:  # like every logging handler: a message must not end the program
            self.handleError(record)


def start_logging() -> None:
    """Show the messages of this package, and only warnings of other packages."""
    handler = _ConsoleHandler() if sys.stderr.isatty() else logging.StreamHandler(sys.stderr)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("textvae").setLevel(logging.INFO)
