"""What a user sees while a training runs: one live line, or plain log lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from textvae.console import console

logger = logging.getLogger(__name__)


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


def decimals(value: float, digits: int = 2) -> str:
    """A number as it is shown: rounded, and never "-0.00"."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
