"""Hugging Face ``datasets``, imported on first use and without its progress bars."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from textvae.errors import only_errors


def import_datasets() -> Any:
    """Import Hugging Face ``datasets``; on first use, because that takes a second."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    return datasets


@contextmanager
def quiet_datasets() -> Iterator[Any]:
    """Yield Hugging Face ``datasets``, without its progress bars for a while.

    The hub logs every retry when there is no network; the final error is enough.
    """
    datasets = import_datasets()
    has_bars = not datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with only_errors("huggingface_hub"):
            yield datasets
    finally:
        if has_bars:
            datasets.enable_progress_bars()
