"""Files of images as they are published, read into arrays.

    idx       MNIST's own format, gzipped or not: train-images-idx3-ubyte, train-labels-idx1-ubyte
    .npz      x_train, y_train, x_test, y_test; or images, labels: one split, or all there is
    .mat      Burda's chardata.mat of Omniglot: data, testdata (pixels, N), target, testtarget

Pixels come out as uint8, 0 for paper and 255 for ink.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textvae.errors import UserError
from textvae.runs.files import replace_file

IDX_UINT8 = 8  # the type code of unsigned bytes
IDX_NAMES = {"train": "train", "valid": "valid", "test": "t10k"}
NPZ_NAMES = {"train": "train", "valid": "valid", "test": "test"}


class Drawings(NamedTuple):
    """A split as it was read."""

    images: np.ndarray  # (N, H, W) uint8
    labels: np.ndarray | None = None  # (N,) int64
    label_names: list[str] | None = None


def read_idx(path: Path) -> np.ndarray:
    """The array in an idx file of unsigned bytes.

    Raises:
        UserError: it is another kind of file, or not all of it is there.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    zeros, code, dims = struct.unpack(">HBB", content[:4].ljust(4, b"\xff"))
    if zeros or code != IDX_UINT8 or len(content) < 4 + 4 * dims:
        raise UserError(f"{path} is no idx file of unsigned bytes, as MNIST's are")
    shape = struct.unpack(f">{dims}I", content[4 : 4 + 4 * dims])
    body = content[4 + 4 * dims :]
    if len(body) != math.prod(shape):
        raise UserError(
            f"{path} is truncated or damaged: its header says {shape}, {math.prod(shape)} bytes, "
            f"and {len(body)} follow"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def read_idx_folder(folder: Path) -> dict[str, Drawings]:
    """The splits of a folder of idx files; empty where it has none.

    Raises:
        UserError: a file is damaged, or the images have no labels of their own.
    """
    found = {}
    for split, name in IDX_NAMES.items():
        images = sorted(folder.glob(f"{name}-images*ubyte*"))
        labels = sorted(folder.glob(f"{name}-labels*ubyte*"))
        if images:
            own = read_idx(labels[0]) if labels else None
            found[split] = checked(read_idx(images[0]), own, images[0])
    return found


def read_npz(path: Path) -> dict[str, Drawings]:
    """The splits in an .npz file; ``all`` where it names none.

    Raises:
        UserError: it is damaged, or holds no images.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise UserError(f"{path} is truncated or no .npz file of numbers: {error}") from error
    if "images" in content:
        names = content.get("label_names")
        names = None if names is None else [str(name) for name in names]
        return {"all": checked(content["images"], content.get("labels"), path, names)}
    found = {
        split: checked(content[f"x_{name}"], content.get(f"y_{name}"), path)
        for split, name in NPZ_NAMES.items()
        if f"x_{name}" in content
    }
    if not found:
        held = ", ".join(content) or "nothing"
        raise UserError(f"{path} has neither images nor x_train and x_test: it holds {held}")
    return found


def read_mat(path: Path) -> dict[str, Drawings]:
    """The two splits of Burda's Omniglot, drawings by columns; labels are the alphabets.

    Raises:
        UserError: it is damaged, or another file.
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
    except (OSError, ValueError, KeyError, TypeError, MatReadError, zlib.error) as error:
        raise UserError(f"{path} is not Burda's chardata.mat, or damaged: {error}") from error


def _unrolled(columns: np.ndarray) -> np.ndarray:
    side = math.isqrt(len(columns))
    return columns.T.reshape(-1, side, side).transpose(0, 2, 1)  # MATLAB counts down the columns


def read_hub(name: str) -> dict[str, Drawings]:
    """The splits of a data set of images on the Hugging Face hub.

    Raises:
        UserError: it cannot be had, or has no pictures.
    """
    from datasets import ClassLabel, Image, load_dataset

    try:
        splits = load_dataset(name)
    except Exception as error:  # the hub's client raises many unrelated types
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name!r} is neither a file or folder of images here nor a data set that the Hugging "
            f"Face hub gives: {reason}"
        ) from error
    found = {}
    for split, rows in splits.items():
        picture = next((k for k, kind in rows.features.items() if isinstance(kind, Image)), None)
        if picture is None:
            raise UserError(f"{name}: {split} has no column of pictures")
        label = next((k for k, kind in rows.features.items() if isinstance(kind, ClassLabel)), None)
        images = np.stack([np.asarray(image.convert("L")) for image in rows[picture]])
        own = None if label is None else np.asarray(rows[label])
        names = None if label is None else rows.features[label].names
        found["valid" if split == "validation" else split] = checked(images, own, Path(name), names)
    return found


def checked(
    images: np.ndarray,
    labels: np.ndarray | None,
    path: Path,
    label_names: list[str] | None = None,
) -> Drawings:
    """A split whose arrays fit each other, its pixels in uint8.

    Raises:
        UserError: they do not.
    """
    if images.ndim != 3 or not images.size:
        raise UserError(f"{path}: images are (N, H, W), not {images.shape}")
    if images.dtype != np.uint8:
        if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
            raise UserError(f"{path}: pixels are bytes from 0 to 255, or numbers from 0 to 1")
        images = np.rint(255 * images.astype(np.float64)).astype(np.uint8)
    if labels is None:
        return Drawings(images)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{path}: {len(images)} images, but labels of shape {labels.shape}")
    labels = labels.astype(np.int64)
    if labels.min() < 0 or (label_names is not None and labels.max() >= len(label_names)):
        raise UserError(f"{path}: labels from {labels.min()} to {labels.max()} do not fit")
    names = label_names or [str(label) for label in range(labels.max() + 1)]
    return Drawings(images, labels, names)


def write_drawings(path: Path, drawings: Drawings) -> None:
    """Writes a split as .npz, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    arrays: Mapping[str, np.ndarray] = {"images": drawings.images}
    if drawings.labels is not None:
        names = np.array(drawings.label_names, dtype=np.str_)
        arrays = {**arrays, "labels": drawings.labels, "label_names": names}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    replace_file(path, write)
