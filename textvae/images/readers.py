"""Readers for the file formats in which image datasets are published.

    idx       MNIST's format, gzipped or not: train-images-idx3-ubyte, train-labels-idx1-ubyte
    .npz      x_train, y_train, x_test, y_test; or images, labels for one split or the whole set
    .mat      Burda's chardata.mat of Omniglot: data, testdata (pixels, N), target, testtarget
    pictures  .png, .jpg, ...: train/3.png, or train/CLASS/3.png, of one size

All readers return uint8 pixels, 0 for paper and 255 for ink, or as the pictures have them.
"""

from __future__ import annotations

import glob
import gzip
import logging
import math
import struct
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from textvae.errors import UserError, quantity
from textvae.images.drawings import Drawings, checked
from textvae.runs.hugging_face import quiet_datasets
from textvae.runs.npz import read_npz as numbers_in

# What scipy raises for a file that is damaged, or of a later version of MATLAB.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, NotImplementedError, zlib.error)

logger = logging.getLogger(__name__)

IDX_UINT8 = 8  # the type code of unsigned bytes
BLOCK = 2**24  # bytes read at once
IDX_NAMES = {"train": "train", "valid": "valid", "test": "t10k"}
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
NPZ_NAMES = {"train": "train", "valid": "valid", "test": "test"}


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes.

    Args:
        path: The file, gzipped or not.

    Raises:
        UserError: It is not an idx file, or it is truncated.
    """
    try:
        with open(path, "rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            shape, body = _idx_content(gzip.GzipFile(fileobj=raw) if packed else raw, path)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if len(body) != math.prod(shape):
        follow = "more" if len(body) > math.prod(shape) else f"only {len(body)}"
        raise UserError(
            f"{path} is truncated or damaged: the header says {shape}, {math.prod(shape)} bytes, "
            f"but {follow} follow"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _idx_content(stream: Any, path: Path) -> tuple[tuple[int, ...], bytes]:
    """Return the shape in the header and what follows, up to one byte more than there should be."""
    zeros, code, dims = struct.unpack(">HBB", stream.read(4).ljust(4, b"\xff"))
    lengths = stream.read(4 * dims)
    if zeros or code != IDX_UINT8 or len(lengths) < 4 * dims:
        raise UserError(f"{path} is not an idx file of unsigned bytes, like those of MNIST")
    shape = struct.unpack(f">{dims}I", lengths)
    left, blocks = math.prod(shape) + 1, []  # in blocks, because a damaged header may say anything
    while left and (block := stream.read(min(left, BLOCK))):
        blocks.append(block)
        left -= len(block)
    return shape, b"".join(blocks)


def read_idx_folder(folder: Path) -> dict[str, Drawings]:
    """Read the splits in a folder of idx files.

    Args:
        folder: The folder with the files.

    Returns:
        The splits by name; empty if there are no such files.

    Raises:
        UserError: A file is damaged, or images and labels do not match.
    """
    found = {}
    for split, name in IDX_NAMES.items():
        images = sorted(folder.glob(f"{name}-images*ubyte*"))
        labels = sorted(folder.glob(f"{name}-labels*ubyte*"))
        if images:
            found[split] = checked(
                read_idx(images[0]), read_idx(labels[0]) if labels else None, images[0]
            )
    return found


def read_npz(path: Path) -> dict[str, Drawings]:
    """Read the splits in an .npz file.

    Args:
        path: The file.

    Returns:
        The splits by name; a single one called ``all`` if the file has an array named images.

    Raises:
        UserError: The file is damaged, or has no images.
    """
    try:
        content = numbers_in(path)
    except ValueError as error:
        named = repr(f"{path.stem}.npz")
        hint = f"; save it with np.savez({named}, images=...)" if path.suffix == ".npy" else ""
        raise UserError(
            f"{path} is truncated or not an .npz file of numbers: {error}{hint}"
        ) from error
    if "images" in content:
        given = content.get("label_names")
        if given is not None and given.ndim != 1:
            raise UserError(f"{path}: label_names has shape {given.shape}, not (labels,)")
        names = None if given is None else [_as_text(name) for name in given]
        return {"all": checked(content["images"], content.get("labels"), path, names)}
    found = {
        split: checked(content[f"x_{name}"], content.get(f"y_{name}"), path)
        for split, name in NPZ_NAMES.items()
        if f"x_{name}" in content
    }
    if not found:
        held = ", ".join(content) or "nothing"
        raise UserError(f"{path} has neither images nor x_train and x_test: it has {held}")
    return found


def _as_text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def read_mat(path: Path) -> dict[str, Drawings]:
    """Read the two splits of Burda's Omniglot; the labels are the alphabets.

    Args:
        path: The file, chardata.mat.

    Raises:
        UserError: It is damaged, or a different file.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path)
        return {
            split: checked(_unrolled(content[data]), np.argmax(content[target], axis=0), path)
            for split, data, target in (
                ("train", "data", "target"),
                ("test", "testdata", "testtarget"),
            )
        }
    except (*UNREADABLE, MatReadError) as error:
        raise UserError(f"{path} is not Burda's chardata.mat, or it is damaged: {error}") from error


def _unrolled(columns: np.ndarray) -> np.ndarray:
    side = math.isqrt(len(columns))
    return columns.T.reshape(-1, side, side).transpose(0, 2, 1)  # MATLAB counts down the columns


def read_hub(name: str) -> dict[str, Drawings]:
    """Download an image dataset from the Hugging Face Hub.

    Args:
        name: The name of the dataset.

    Raises:
        UserError: The download fails, or a split has no images.
    """
    try:
        with quiet_datasets() as datasets:
            splits = datasets.load_dataset(name)
    except Exception as error:  # the Hub's client raises many unrelated types
        raise UserError(
            f"{name!r} is neither a file, a folder, nor a dataset available on the Hugging Face "
            f"Hub: {_in_short(error)}"
        ) from error
    return _drawings(splits, name)


def read_pictures(folder: Path) -> dict[str, Drawings]:
    """Read the splits in a folder of picture files; the labels are the folders they are in.

    Args:
        folder: The folder with the splits.

    Returns:
        The splits by name; empty if there are no pictures.

    Raises:
        UserError: A picture is damaged, or they differ in size.
    """
    if not any(file.suffix.lower() in PICTURES for file in folder.rglob("*")):
        return {}
    place = glob.escape(str(folder))
    # The pixels end up in memory; Windows cannot remove files that are still open.
    with TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        try:
            with quiet_datasets() as datasets:
                rows = datasets.load_dataset("imagefolder", data_dir=place, cache_dir=cache)
                found = _drawings(rows, str(folder))
        except UserError:
            raise
        except Exception as error:  # of several libraries, for a damaged picture
            raise UserError(
                f"{folder}: cannot be read: {_in_short(error)}; remove or replace that file"
            ) from error
    found = _without_split_names(found, {path.name for path in folder.iterdir() if path.is_dir()})
    for split, drawings in found.items():
        labels = drawings.label_names
        logger.info(
            "%s: %sread as pictures: %s%s",
            folder,
            f"the {split} split is " * (len(found) > 1),
            quantity(len(drawings.images), "image"),
            f", labels {', '.join(labels[:3])}{', ...' * (len(labels) > 3)}" if labels else "",
        )
    return found


def _without_split_names(found: dict[str, Drawings], folders: set[str]) -> dict[str, Drawings]:
    """Leave out labels that ``datasets`` made of train/1.png and test/2.png: train and test."""
    return {
        split: drawings._replace(labels=None, label_names=None)
        if len(found) > 1 and drawings.label_names and set(drawings.label_names) <= folders
        else drawings
        for split, drawings in found.items()
    }


def _in_gray(image: Any, name: str) -> np.ndarray:
    """Return an image in shades of gray, 0 to 255.

    Raises:
        UserError: It has transparent pixels or more than 256 shades, which would be lost.
    """
    if image.mode.startswith(("I", "F")):
        raise UserError(f"{name}: images with 16 bits or more: convert them to 8 bits first")
    has_alpha = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    if has_alpha and image.convert("RGBA").getextrema()[3][0] < 255:
        raise UserError(f"{name}: images with transparent pixels: fill their background first")
    return np.asarray(image.convert("L"))


def _drawings(dataset: Any, name: str) -> dict[str, Drawings]:
    """Return the images in all splits of a ``datasets.DatasetDict``, in shades of gray."""
    from datasets import ClassLabel, Image

    found = {}
    for split, rows in dataset.items():
        column = next((k for k, kind in rows.features.items() if isinstance(kind, Image)), None)
        if column is None:
            raise UserError(f"{name}: the split {split} has no image column")
        label = next((k for k, kind in rows.features.items() if isinstance(kind, ClassLabel)), None)
        images = [_in_gray(image, name) for image in rows[column]]
        if len(sizes := sorted({image.shape[::-1] for image in images})) > 1:
            raise UserError(
                f"{name}: the {split} images have different sizes, such as {sizes[0][0]} x "
                f"{sizes[0][1]} and {sizes[1][0]} x {sizes[1][1]}: scale them first"
            )
        labels = None
        if label is not None:
            labels = np.array([-1 if value is None else value for value in rows[label]], np.int64)
        names = None if label is None else rows.features[label].names
        found["valid" if split == "validation" else split] = checked(
            np.stack(images), labels, Path(name), names
        )
    return found


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
