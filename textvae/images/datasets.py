"""Splits of gray images, binarized.

A gray value v is the probability v / 255 that a pixel is on. Training images are re-binarized for
every batch (dynamic binarization); for evaluation they are binarized once, in the same way for
every run (Burda et al. 2016).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from textvae.errors import UserError
from textvae.images.drawings import Drawings
from textvae.images.readers import (
    PICTURES,
    read_hub,
    read_idx_folder,
    read_mat,
    read_npz,
    read_pictures,
)
from textvae.runs.files import expanded
from textvae.vae.batch import Batch, Split
from textvae.vae.examples import Examples
from textvae.vae.held_out import held_out

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
ONCE = 2**32  # seeds the binarization for evaluation; larger than any epoch
SHOWN = 30  # images reconstructed if none are named


class ImageSplit:
    """N images, with labels if there are any.

    Args:
        drawings: The gray images.
        seed: Seeds the binarization for training.
    """

    def __init__(self, drawings: Drawings, seed: int = 0) -> None:
        self.gray = drawings.images  # (N, H, W) uint8
        self.labels, self.label_names = drawings.labels, drawings.label_names
        self.conditions: np.ndarray | None = None  # (N,) what the model is conditioned on
        self.seed = seed
        self.size = self.gray.shape[1:]
        self.lengths = np.full(len(self.gray), self.gray[0].size)

    def __len__(self) -> int:
        return len(self.gray)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the pixels and labels, independent of the file they were read from."""
        digest = hashlib.sha256(str(self.gray.shape).encode())
        for array in (self.gray, self.labels):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @cached_property
    def once(self) -> np.ndarray:
        """The images binarized for evaluation, (N, H, W)."""
        return _draw(self.gray, [ONCE])

    def batch(self, rows: np.ndarray, epoch: int | None = None) -> Batch:
        """Return a batch of binary images (B, 1, H, W).

        Args:
            rows: (B,) indices of the images.
            epoch: Re-binarizes them for a batch of this epoch, as a pure function of (seed, epoch,
                rows); None gives the images for evaluation.
        """
        rows = np.asarray(rows)
        if epoch is None:
            pixels = self.once[rows]
        else:  # the first row identifies the batch: no other batch of the epoch has it
            pixels = _draw(self.gray[rows], [self.seed, epoch, int(rows[0])])
        index = torch.from_numpy(rows.astype(np.int64))
        given = (self.labels, self.conditions)
        labels, condition = (None if x is None else torch.from_numpy(x[rows]) for x in given)
        return as_batch(torch.from_numpy(pixels), index, labels, condition)

    def caption(self, i: int) -> str:
        """Return "image" and its index."""
        return f"image {i}"

    def source_row(self, i: int) -> int:
        """Return the index itself: no image is ever dropped."""
        return i

    def thumbnails(self, rows: np.ndarray) -> Tensor:
        """Return some images (N, 1, H, W), binarized for evaluation."""
        return torch.from_numpy(self.once[rows]).float()[:, None]


def _draw(gray: np.ndarray, seed: list[int]) -> np.ndarray:
    # A threshold drawn from 0 to 254 is below v with probability exactly v / 255.
    thresholds = np.random.default_rng(seed).integers(255, size=gray.shape, dtype=np.uint8)
    return gray > thresholds


def as_batch(
    pixels: Tensor, index: Tensor, labels: Tensor | None = None, condition: Tensor | None = None
) -> Batch:
    """Make a batch of images (B, H, W); there are no words or bytes to count."""
    return Batch(x=pixels.float()[:, None], index=index, labels=labels, condition=condition)


def read_images(place: str, seed: int = 0) -> dict[str, ImageSplit]:
    """Read the splits of a dataset.

    Args:
        place: A folder with train.npz, valid.npz and test.npz, with idx files, or with pictures
            (train/1.png or train/CLASS/1.png); one .npz or .mat file; or a dataset name on the
            Hugging Face Hub.
        seed: Seeds the binarization for training. It does not affect the choice of held-out images
            if splits are missing, which is the same for every run.

    Raises:
        UserError: The files are missing or invalid.
    """
    found = _with_held_out(read_published(place), place)
    if "train" not in found:
        raise UserError(f"{place}: no training images, only {', '.join(found)}")
    sizes = {drawings.images.shape[1:] for drawings in found.values()}
    if len(sizes) > 1:
        raise UserError(f"{place}: the splits have images of different sizes")
    found = _with_same_labels({split: found[split] for split in SPLITS if split in found})
    return {split: ImageSplit(drawings, seed) for split, drawings in found.items()}


def read_published(place: str) -> dict[str, Drawings]:
    """Read the splits that a dataset comes with.

    Args:
        place: As for ``read_images``.

    Returns:
        The splits by name; a single one called ``all`` if the dataset is not split.

    Raises:
        UserError: The files are missing or invalid.
    """
    path = expanded(place)
    if path.is_dir():
        files = {split: path / f"{split}.npz" for split in SPLITS}
        found = {split: _only(read_npz(f), f) for split, f in files.items() if f.exists()}
        found = found or read_idx_folder(path)
        others = sorted(f for f in path.iterdir() if f.suffix.lower() in (".npz", ".mat"))
        if not found and not others:  # beside a dataset, pictures only show what is in it
            found = read_pictures(path)
        if "train" not in found:
            other = f"; if {others[0].name} holds all splits, give {others[0]}" if others else ""
            raise UserError(
                f"{path} has no training images: train.npz, train-images-idx3-ubyte (or .gz), or "
                f"pictures such as train/1.png{other}"
            )
        return found
    suffix = path.suffix.lower()
    if suffix in (".npz", ".mat"):
        if not path.exists():
            raise UserError(f"{path} does not exist")
        return read_npz(path) if suffix == ".npz" else read_mat(path)
    if path.exists():
        raise UserError(f"{path}: images can be read from a folder, an .npz file or a .mat file")
    return read_hub(place)


def read_image_split(path: Path, size: tuple[int, int] | None = None) -> ImageSplit:
    """Read all images in a file or folder, binarized as in evaluation, with their labels if any.

    Args:
        path: An .npz file, or a folder of image files, perhaps with a folder per label.
        size: The height and width that the images must have.

    Raises:
        UserError: There is no such file, it holds several splits, or its images have another size.
    """
    path = expanded(path)
    if str(path) == "-":
        raise UserError("images cannot be read from standard input: give an .npz file or a folder")
    if not path.exists():
        raise UserError(
            f"{path} does not exist: images are read from an .npz file or a folder of image files"
        )
    split = ImageSplit(_one_folder(path) if path.is_dir() else _only(read_npz(path), path))
    if size is not None and split.size != size:
        raise UserError(f"{path}: images must be (N, {size[0]}, {size[1]}), not {split.gray.shape}")
    return split


def read_image_file(path: Path) -> Examples:
    """Read the images (N, H, W) in an .npz file or a folder of image files, binarized as usual.

    Raises:
        UserError: There is no such file, or it holds several splits.
    """
    split = read_image_split(path)
    return _examples(split, range(len(split)))


def _examples(split: Split, rows: Sequence[int]) -> Examples:
    """Return images of a split, with a caption and a label for each, None if it is unlabeled."""
    names, labels = split.label_names or [], split.labels
    found = [-1 if labels is None else labels[row] for row in rows]
    return Examples(
        split.batch(np.array(rows, dtype=np.int64)).x[:, 0],
        [split.caption(row) for row in rows],
        [names[label] if label >= 0 else None for label in found],
    )


def pick_images(names: Sequence[str], split: Split) -> Examples:
    """Return images of a split by their indices.

    Args:
        names: The indices as strings; if empty, the first images are returned.
        split: The split that contains them.

    Returns:
        Images (N, H, W) with their captions and labels.

    Raises:
        UserError: A name is not an index of the split.
    """
    for name in names:
        if not (name.isascii() and name.isdecimal()) or len(name) > 18 or int(name) >= len(split):
            raise UserError(
                f"no test image {name!r}: give an index into the test split, from 0 to "
                f"{len(split) - 1}"
            )
    rows = [int(name) for name in names] or range(min(SHOWN, len(split)))
    return _examples(split, rows)


def _one_folder(path: Path) -> Drawings:
    found = read_pictures(path)
    if len(found) == 1:
        return next(iter(found.values()))
    wrong = f"several splits: {', '.join(found)}" if found else "no pictures"
    raise UserError(
        f"{path} has {wrong}: give a folder of image files ({', '.join(PICTURES)}), or an .npz file"
    )


def _only(splits: dict[str, Drawings], path: Path) -> Drawings:
    if "all" not in splits:
        raise UserError(f"{path} has no array named images, only splits: {', '.join(splits)}")
    return splits["all"]


def _with_held_out(found: dict[str, Drawings], place: str) -> dict[str, Drawings]:
    """Hold out training images for valid and test if they are missing."""
    found = {"train" if split == "all" else split: part for split, part in found.items()}
    missing = [split for split in SPLITS[1:] if split not in found]
    if "train" not in found or not missing:
        return found
    train = found["train"]
    drawn = held_out(len(train.images), missing, place, "image")
    sizes = ", ".join(f"{split} {len(rows)}" for split, rows in drawn.items())
    logger.info("%s: no %s split; drawn from train: %s", place, " or ".join(missing), sizes)
    return found | {split: _rows(train, rows) for split, rows in drawn.items()}


def _with_same_labels(found: dict[str, Drawings]) -> dict[str, Drawings]:
    """Give a label the same number in all splits, whatever the order of the names in each."""
    every = [name for drawings in found.values() for name in drawings.label_names or ()]
    names = list(dict.fromkeys(every))
    return {split: _renumbered(drawings, names) for split, drawings in found.items()}


def _renumbered(drawings: Drawings, names: list[str]) -> Drawings:
    if drawings.labels is None or drawings.label_names is None:
        return drawings
    places = np.array([*map(names.index, drawings.label_names), -1])  # -1: unlabeled
    return Drawings(drawings.images, places[drawings.labels], names)


def _rows(drawings: Drawings, rows: np.ndarray) -> Drawings:
    labels = None if drawings.labels is None else drawings.labels[rows]
    return Drawings(drawings.images[rows], labels, drawings.label_names)
