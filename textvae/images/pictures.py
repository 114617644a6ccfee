"""Images side by side in one PNG file."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textvae.errors import UserError
from textvae.runs.files import replace_file

PAPER, GAP = 0.5, 1  # gray level and width (before enlarging) of the gaps between images
SIDE = 1000  # minimum side of the enlarged picture, in pixels
COLUMNS = 10  # of a picture of originals and reconstructions


def grid(images: Tensor, columns: int | None = None) -> np.ndarray:
    """Arrange images in rows and columns.

    Args:
        images: (N, H, W), values in [0, 1].
        columns: Number of columns; by default, about the square root of N.

    Returns:
        A gray picture (Y, X), uint8.
    """
    count, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), PAPER)
    for i, image in enumerate(images.numpy()):
        y, x = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        sheet[y : y + height, x : x + width] = image
    return np.rint(255 * sheet).astype(np.uint8)


def pairs(originals: Tensor, outputs: Tensor, columns: int = COLUMNS) -> Tensor:
    """Put each row of originals above the row of their reconstructions.

    Args:
        originals: (N, H, W).
        outputs: (N, H, W).
        columns: Number of columns of the grid.

    Returns:
        (M, H, W), with the last rows padded with gray images.
    """
    blank = originals.new_full((-len(originals) % columns, *originals.shape[1:]), PAPER)
    rows = [torch.cat([part, blank]).unflatten(0, (-1, columns)) for part in (originals, outputs)]
    return torch.stack(rows, dim=1).flatten(0, 2)


def write_png(path: Path, sheet: np.ndarray) -> None:
    """Write a gray picture (Y, X), enlarged so that single pixels are visible.

    Raises:
        UserError: The name does not end in .png, or the file cannot be written.
    """
    check_png(path)
    factor = max(1, math.ceil(SIDE / max(sheet.shape)))
    enlarged = np.kron(sheet, np.ones((factor, factor), np.uint8))
    replace_file(path, lambda temporary: temporary.write_bytes(_encoded(enlarged)))


def as_png(image: Tensor) -> bytes:
    """Return an image (H, W) with values in [0, 1] as a PNG file of the same size."""
    return _encoded(np.rint(255 * image.numpy()).astype(np.uint8))


def _encoded(picture: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


def check_png(path: Path) -> None:
    """Raise a ``UserError`` unless the name ends in .png."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: images can only be written as .png")


class PngWriter:
    """Writes images as one PNG file.

    Args:
        path: The file.

    Raises:
        UserError: There is no path, or it does not end in .png.
    """

    at_once = None  # all images are one picture

    def __init__(self, path: Path | None) -> None:
        if path is None:
            raise UserError("this is an image model: choose a file for its images, --out FILE.png")
        check_png(path)
        self.path = path

    def __enter__(self) -> PngWriter:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing: ``show`` has written the file."""

    def show(
        self,
        outputs: Tensor,
        *,
        sources: Tensor | None = None,
        columns: int | None = None,
        details: Sequence[Mapping[str, float]] | None = None,
        conditions: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Write the images (N, H, W), each row below the row of its sources if there are any.

        If there are ``details``, those of the first and the last image of every row are printed.
        ``conditions`` have no place in a picture.
        """
        images = outputs
        if sources is not None:
            columns = columns or COLUMNS
            images = pairs(sources, outputs, columns)
        write_png(self.path, grid(images, columns))
        count = f"{len(outputs)} image{'' if len(outputs) == 1 else 's'}"
        print(f"wrote {count} to {self.path}")
        details, width = details or [], columns or 1
        for number, start in enumerate(range(0, len(details), width), start=1):
            row = details[start : start + width]
            print(f"row {number}: {_ranges(row[0], row[-1])}")


def _ranges(first: Mapping[str, float], last: Mapping[str, float]) -> str:
    """Return the numbers of the first and the last image of a row as text."""
    return ", ".join(
        f"{name} {low:g}" + (f" to {last[name]:g}" if last[name] != low else "")
        for name, low in first.items()
    )
