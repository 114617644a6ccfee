"""Saving metrics cards, and other results of an evaluation, in ``RUN/metrics``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.evaluation.metrics.bound_files import save_bounds
from textvae.evaluation.metrics.card import summary
from textvae.runs.files import read_if_there, write_json
from textvae.runs.model_folder import metrics_path
from textvae.runs.run_folder import make_folder

logger = logging.getLogger(__name__)


def may_save(run: Path, foreign: bool = False) -> bool:
    """Check before the work whether results are saved in ``RUN/metrics``, and say so if not.

    Args:
        run: The run folder.
        foreign: Whether the results will be those of another model.

    Raises:
        UserError: It could be written to, but cannot be created.
    """
    if foreign:
        logger.warning("the model is not the one in %s: its results are not saved there", run)
        return False
    if _is_read_only(run):
        logger.warning("%s is read-only: the results are printed, but not saved", run)
        return False
    make_folder(metrics_path(run).parent)
    return True


def _is_read_only(run: Path) -> bool:
    folder = metrics_path(run).parent
    there = folder if folder.exists() else run
    return there.exists() and not os.access(there, os.W_OK)


def save_card(run: Path | str, name: str, card: Mapping[str, Any]) -> Path:
    """Write ``RUN/metrics/NAME.json``, completely or not at all.

    Numbers that are not finite become null, because JSON cannot represent them. ``summary`` is what
    the README of the model shows. The bounds of the examples, if the card has them, are written to
    a file next to it.

    Args:
        run: A run folder.
        name: The split, or the split and a suffix for a special card.
        card: The metrics.

    Returns:
        The path of the file.
    """
    rows = summary(card)
    if (iw := getattr(card, "iw_by_example", None)) is not None:
        with not_saved_with_a_warning():
            save_bounds(Path(run), name, card, iw)
    return save_record(run, name, {**card, **({"summary": rows} if rows else {})})


def save_record(run: Path | str, name: str, record: Mapping[str, Any]) -> Path:
    """Write ``RUN/metrics/NAME.json`` with any content, completely or not at all.

    Numbers that are not finite become null, because JSON cannot represent them. If the file cannot
    be written, such as on a full disk, that is only a warning: the result is not lost.

    Args:
        run: A run folder.
        name: The split, and a suffix that says what the record is.
        record: Its content.

    Returns:
        The path of the file.
    """
    path = metrics_path(Path(run), name)
    _warn_of_other_texts(path, record)
    with not_saved_with_a_warning():
        write_json(path, record)
    return path


@contextmanager
def not_saved_with_a_warning() -> Iterator[None]:
    """Make an error of writing a warning, so that results that took hours are still printed."""
    try:
        yield
    except UserError as error:
        logger.warning("%s: the results are printed, but not saved", error)


def _warn_of_other_texts(path: Path, record: Mapping[str, Any]) -> None:
    """Say so if a record of another file of the same name is replaced."""
    with suppress(UserError):
        before = read_if_there(path).get("corpus_hash")
        if before not in (None, record.get("corpus_hash")):
            logger.warning(
                "replaced %s, which held the results of different texts with the same name", path
            )
