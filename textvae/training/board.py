"""A TensorBoard writer whose failure does not stop training."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Board:
    """A ``SummaryWriter`` that stops writing, and says so once, when the disk is full.

    It has the methods of ``SummaryWriter``; what they return is dropped.

    Args:
        folder: Where to write; TensorBoard names the run after it.
        purge_step: TensorBoard hides what an earlier writer logged from this step on.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = None
        _silence_writers()
        try:
            self._writer = SummaryWriter(str(folder), purge_step=purge_step)
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, method: str) -> Callable[..., None]:
        def guarded(*args: Any, **options: Any) -> None:
            if self._writer is None:
                return
            try:
                getattr(self._writer, method)(*args, **options)
            except OSError as error:
                self._give_up(error)

        return guarded

    def add_summary(self, summary: Any, step: int) -> None:
        """Write a summary that was made by hand."""
        if self._writer is None:
            return
        try:
            self._writer._get_file_writer().add_summary(summary, step)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        why = error.strerror or error
        logger.warning("TensorBoard logging stopped: %s; metrics.jsonl is still written", why)


@cache
def _silence_writers() -> None:
    """Silence the threads of all writers, once: an error there reaches the next call as well."""
    report = threading.excepthook

    def hook(failure: Any) -> None:
        of_writer = type(failure.thread).__module__.startswith("tensorboard.")
        if not (of_writer and isinstance(failure.exc_value, OSError)):
            report(failure)

    threading.excepthook = hook
