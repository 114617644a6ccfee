"""The images of a split with their labels: what every reader returns, and how they are stored."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from textvae.errors import UserError
from textvae.runs.files import replace_file

logger = logging.getLogger(__name__)
MOST_LABELS = 10_000  # that small files may number: each one gets a name


class Drawings(NamedTuple):
    """The images and labels of a split."""

    images: np.ndarray  # (N, H, W) uint8
    labels: np.ndarray | None = None  # (N,) int64; -1: unlabeled
    label_names: list[str] | None = None


def checked(
    images: np.ndarray,
    labels: np.ndarray | None,
    path: Path,
    label_names: list[str] | None = None,
) -> Drawings:
    """Check that images and labels match, and convert the pixels to uint8.

    Args:
        images: (N, H, W), integers from 0 to 255 or values in [0, 1]. Integers of which none is
            above 1 are 0 and 1.
        labels: (N,) integers, -1 for an unlabeled image.
        path: Where they come from, for error messages.
        label_names: The name of each label.

    Raises:
        UserError: The arrays are invalid or do not match.
    """
    if images.ndim != 3 or not images.size:
        raise UserError(f"{path}: images must be (N, H, W), not {images.shape}")
    if images.dtype.kind not in "buif":
        raise UserError(f"{path}: pixels must be numbers, not {images.dtype}")
    if images.dtype.kind in "iu" and 0 <= images.min() <= images.max() <= 255:
        images = images.astype(np.uint8, copy=False)
    if images.dtype != np.uint8:
        if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
            raise UserError(
                f"{path}: pixels must be integers from 0 to 255, or numbers from 0 to 1"
            )
        images = np.rint(255 * images.astype(np.float64)).astype(np.uint8)
    elif images.max() == 1:
        logger.info("%s: pixels are 0 and 1: read as binary images", path)
        images = 255 * images
    if labels is None:
        return Drawings(images)
    if labels.shape != (len(images),):
        raise UserError(
            f"{path}: labels have shape {labels.shape}, but there are {len(images)} images"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{path}: labels are {labels.dtype}, but must be integers from 0: put names or other "
            "numbers into an array label_names, and their places in it into labels"
        )
    labels = labels.astype(np.int64)
    if labels.min() < -1 or (label_names is not None and labels.max() >= len(label_names)):
        raise UserError(f"{path}: labels from {labels.min()} to {labels.max()} are invalid")
    if labels.max() < 0:
        return Drawings(images)
    if label_names is None and labels.max() >= max(MOST_LABELS, len(labels)):
        raise UserError(
            f"{path}: labels go up to {labels.max()}, with {len(labels)} images: number them from 0"
        )
    names = label_names or [str(label) for label in range(labels.max() + 1)]
    return Drawings(images, labels, names)


def write_drawings(path: Path, drawings: Drawings) -> None:
    """Write a split as an .npz file, atomically.

    Args:
        path: The file.
        drawings: The split.

    Raises:
        UserError: The file cannot be written.
    """
    arrays: dict[str, Any] = {"images": drawings.images}
    if drawings.labels is not None:
        names = np.array(drawings.label_names, dtype=np.str_)
        arrays |= {"labels": drawings.labels, "label_names": names}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    replace_file(path, write)
