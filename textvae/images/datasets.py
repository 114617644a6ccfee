"""Splits of grey images as batches of black and white ones.

A grey value v of 255 is the probability v / 255 that the pixel is on. In training every batch draws
its pixels anew; what is measured was drawn once and is the same for every run (Burda et al. 2016).
"""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from textvae.errors import UserError
from textvae.images.readers import (
    Drawings,
    read_hub,
    read_idx_folder,
    read_mat,
    read_npz,
)
from textvae.vae.batch import Batch

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
HELD_OUT = 0.05  # of the images, for each of valid and test, where a data set brings none
ONCE = 2**32  # seeds what is drawn once; no epoch gets so far


class ImageSplit:
    """N images, perhaps labelled."""

    def __init__(self, drawings: Drawings, seed: int = 0) -> None:
        self.grey = drawings.images  # (N, H, W) uint8
        self.labels, self.label_names = drawings.labels, drawings.label_names
        self.seed = seed
        self.size = self.grey.shape[1:]
        self.lengths = np.full(len(self.grey), self.grey[0].size)

    def __len__(self) -> int:
        return len(self.grey)

    @cached_property
    def content_hash(self) -> str:
        """sha256 of pixels and labels, wherever they were read from."""
        digest = hashlib.sha256(str(self.grey.shape).encode())
        for array in (self.grey, self.labels):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @cached_property
    def once(self) -> np.ndarray:
        """(N, H, W) the pixels that are measured."""
        return _draw(self.grey, [ONCE])

    def batch(self, rows: np.ndarray, epoch: int | None = None) -> Batch:
        """Images as pixels 0 or 1 (B, 1, H, W): drawn for this epoch's batch, a pure function of
        (seed, epoch, rows); or, where no epoch is given, once and for all."""
        rows = np.asarray(rows)
        if epoch is None:
            pixels = self.once[rows]
        else:  # the first row names the batch: it is in no other of the epoch
            pixels = _draw(self.grey[rows], [self.seed, epoch, int(rows[0])])
        labels = None if self.labels is None else torch.from_numpy(self.labels[rows])
        return as_batch(torch.from_numpy(pixels), torch.from_numpy(rows.astype(np.int64)), labels)

    def caption(self, i: int) -> str:
        """The image's number."""
        return f"image {i}"

    def thumbnails(self, count: int) -> Tensor:
        """The first images (N, 1, H, W), as they are measured."""
        return torch.from_numpy(self.once[:count]).float()[:, None]


def _draw(grey: np.ndarray, seed: list[int]) -> np.ndarray:
    # A threshold of 0 to 254 lies below v with probability v / 255, exactly.
    thresholds = np.random.default_rng(seed).integers(255, size=grey.shape, dtype=np.uint8)
    return grey > thresholds


def as_batch(pixels: Tensor, index: Tensor, labels: Tensor | None = None) -> Batch:
    """Images (B, H, W) as a batch; they have neither words nor bytes to count."""
    none = torch.zeros(len(pixels), dtype=torch.long)
    return Batch(
        x=pixels.float()[:, None],
        lengths=torch.full((len(pixels),), pixels[0].numel()),
        units=none,
        num_bytes=none,
        index=index,
        labels=labels,
    )


def read_images(place: str, seed: int = 0) -> dict[str, ImageSplit]:
    """The splits of a data set: a folder of train.npz, valid.npz and test.npz or of idx files, one
    .npz or .mat file, or a name on the Hugging Face hub.

    Args:
        seed: of the pixels in training. Held-out images, where the set brings none, are drawn by
            a seed of their own: they are the same for every run.

    Raises:
        UserError: whatever is wrong with the files.
    """
    found = _with_held_out(read_published(place), place)
    sizes = {drawings.images.shape[1:] for drawings in found.values()}
    if len(sizes) > 1:
        raise UserError(f"{place}: the splits have images of different sizes")
    return {split: ImageSplit(found[split], seed) for split in SPLITS if split in found}


def read_published(place: str) -> dict[str, Drawings]:
    """The splits that a data set comes with; ``all`` where it has none.

    Raises:
        UserError: whatever is wrong with the files.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        files = {split: path / f"{split}.npz" for split in SPLITS}
        found = {split: _only(read_npz(f), f) for split, f in files.items() if f.exists()}
        found = found or read_idx_folder(path)
        if "train" not in found:
            raise UserError(
                f"{path} has no training images: train.npz or train-images-idx3-ubyte (or .gz)"
            )
        return found
    if path.suffix in (".npz", ".mat"):
        if not path.exists():
            raise UserError(f"{path} does not exist")
        return read_npz(path) if path.suffix == ".npz" else read_mat(path)
    if path.exists():
        raise UserError(f"{path}: images are read from a folder, an .npz or a .mat file")
    return read_hub(place)


def _only(splits: dict[str, Drawings], path: Path) -> Drawings:
    if "all" not in splits:
        raise UserError(f"{path} has no images and labels, but {', '.join(splits)}")
    return splits["all"]


def _with_held_out(found: dict[str, Drawings], place: str) -> dict[str, Drawings]:
    """Draws what is missing of valid and test from the training images."""
    found = {"train" if split == "all" else split: own for split, own in found.items()}
    missing = [split for split in SPLITS[1:] if split not in found]
    if "train" not in found or not missing:
        return found
    train = found["train"]
    count = max(1, round(HELD_OUT * len(train.images)))
    if len(train.images) <= count * len(missing):
        raise UserError(f"{place}: {len(train.images)} images are too few to hold some out")
    order = np.random.default_rng(0).permutation(len(train.images))
    rows = {split: order[i * count : (i + 1) * count] for i, split in enumerate(missing)}
    rows["train"] = order[count * len(missing) :]
    log.info("%s: %d images each drawn from train for %s", place, count, " and ".join(missing))
    return found | {split: _rows(train, np.sort(own)) for split, own in rows.items()}


def _rows(drawings: Drawings, rows: np.ndarray) -> Drawings:
    labels = None if drawings.labels is None else drawings.labels[rows]
    return Drawings(drawings.images[rows], labels, drawings.label_names)
