"""Images side by side in one PNG file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from torch import Tensor

from textvae.errors import UserError
from textvae.runs.files import replace_file

PAPER, GAP = 0.5, 1  # between the images: its grey, and its width before enlarging
SIDE = 1000  # pixels that a grid is enlarged to at least, in whole steps


def grid(images: Tensor, columns: int | None = None) -> np.ndarray:
    """Images (N, H, W) of numbers from 0 to 1 in rows and columns: (Y, X) uint8.

    Args:
        columns: by default as many as rows, or one more.
    """
    count, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), PAPER)
    for i, image in enumerate(images.numpy()):
        y, x = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        sheet[y : y + height, x : x + width] = image
    return np.rint(255 * sheet).astype(np.uint8)


def write_png(path: Path, sheet: np.ndarray) -> None:
    """Writes a grey picture (Y, X), enlarged so that single pixels can be seen.

    Raises:
        UserError: the name does not end in .png, or the file cannot be written.
    """
    from PIL import Image

    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: pictures are written as .png")
    factor = max(1, math.ceil(SIDE / max(sheet.shape)))
    enlarged = np.kron(sheet, np.ones((factor, factor), np.uint8))
    replace_file(path, lambda temporary: Image.fromarray(enlarged).save(temporary, format="PNG"))
