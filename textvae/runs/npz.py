"""Opening .npz files of numbers, of which nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

# What numpy raises for damaged files: lying headers and unknown compression among others.
BROKEN: tuple[type[Exception], ...] = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError),
    *(MemoryError, NotImplementedError, KeyError),
)
ZIP = b"PK"  # what every zip archive starts with


def open_npz(path: Path) -> np.lib.npyio.NpzFile:
    """Open an .npz file; its arrays are read when they are asked for.

    Raises:
        ValueError: It is another kind of file, which numpy would take for a pickle.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:
            raise ValueError("it is not a zip archive")
    return np.load(path, allow_pickle=False)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file.

    Raises:
        ValueError: It is missing, damaged, or not a file of numbers; the message is why.
    """
    try:
        with open_npz(path) as arrays:
            return {name: arrays[name] for name in arrays}
    except BROKEN as error:
        raise ValueError("it holds Python objects" if "pickle" in str(error) else error) from error
