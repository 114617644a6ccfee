"""The importance-weighted bound of every example of a card, on disk next to it.

``RUN/metrics/<split>-iw.safetensors`` holds ``iw``, (N,) nats in the order of the rows, and says of
which card it is. Two models are compared example by example with it
(``textvae.evaluation.comparison.gains``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from textvae.errors import first_line
from textvae.runs.files import replace_file
from textvae.runs.model_folder import metrics_path

logger = logging.getLogger(__name__)
ABOUT = "textvae"  # key of the JSON that is stored with the bounds
IDENTITY = ("corpus_hash", "weights", "iw")  # of the card: together, of no other evaluation


def bounds_path(run: Path, name: str) -> Path:
    """Return where the bounds of the examples of a card are."""
    return metrics_path(run, f"{name}-iw").with_suffix(".safetensors")


def save_bounds(run: Path, name: str, card: Mapping[str, Any], iw: Tensor) -> None:
    """Write the bounds of the examples of a card, completely or not at all.

    Args:
        run: A run folder.
        name: The name of the card.
        card: The card with their mean.
        iw: (N,) the bounds in nats.

    Raises:
        UserError: The file cannot be written.
    """
    tensors, identity = {"iw": iw.detach().cpu().contiguous()}, _identity(card)
    replace_file(bounds_path(run, name), lambda path: save_file(tensors, str(path), identity))


def read_bounds(run: Path, name: str, card: Mapping[str, Any]) -> Tensor | None:
    """Read the bounds of the examples of a card, (N,) nats; None if there are none of that card.

    A damaged file is reported in the log.
    """
    path = bounds_path(run, name)
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            same = file.metadata() == _identity(card)
            iw = file.get_tensor("iw").clone() if same else None
            if iw is not None and not (iw.dim() == 1 and iw.isfinite().all()):
                raise SafetensorError("iw is not a list of finite numbers")
            return iw
    except (SafetensorError, OSError) as error:
        reason = first_line(error)
        logger.warning("%s is damaged (%s): evaluate %s again", path, reason, run)
        return None


def _identity(card: Mapping[str, Any]) -> dict[str, str]:
    # One entry, because safetensors orders several at random.
    return {ABOUT: json.dumps({key: card.get(key) for key in IDENTITY})}
