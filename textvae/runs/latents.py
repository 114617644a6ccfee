"""Files with latent vectors (.npz or .parquet), each with its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textvae.errors import UserError
from textvae.runs.files import replace_file

FORMATS = (".npz", ".parquet")
LARGEST_TEXTS = 2**30  # bytes, in an .npz file


def write_latents(
    path: Path,
    columns: Mapping[str, np.ndarray],
    texts: Sequence[str],
    labels: Sequence[str | None] | None = None,
) -> None:
    """Write a table with columns ``text`` and ``label``, and columns of vectors.

    Args:
        path: A .npz or .parquet file.
        columns: Arrays (N, Z) by name, such as ``mean`` and ``logvar``.
        texts: N texts.
        labels: N labels, None for an unlabeled example (in .npz, which has no such value, it is
            empty). There is no column if all are None.

    Raises:
        UserError: The file has another extension, or cannot be written.
    """
    check_format(path)
    arrays: dict[str, Any] = {name: np.asarray(values) for name, values in columns.items()}
    strings = {"text": list(texts)}
    if labels is not None and any(label is not None for label in labels):
        strings["label"] = list(labels)  # type: ignore[arg-type]

    def write_npz(file: Path) -> None:
        written: dict[str, Any] = {
            name: np.array([value or "" for value in values], dtype=np.str_)
            for name, values in strings.items()
        }
        with file.open("wb") as stream:
            np.savez_compressed(stream, **written, **arrays)

    def write_parquet(file: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        table = strings | {name: list(values) for name, values in arrays.items()}
        pyarrow.parquet.write_table(pyarrow.table(table), file)

    replace_file(path, write_npz if path.suffix == ".npz" else write_parquet)


def check_format(path: Path) -> None:
    """Check the name of a file for latent vectors, before they are computed.

    Raises:
        UserError: Its extension is neither .npz nor .parquet.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: latent vectors are written as {' or '.join(FORMATS)}")


def check_texts(path: Path, texts: Sequence[str]) -> None:
    """Check that texts fit into the format of a file, before the vectors are computed.

    Raises:
        UserError: NumPy stores all texts at the width of the longest, which would take too much.
    """
    width = max(map(len, texts), default=0)
    size = 4 * width * len(texts)  # bytes
    if path.suffix == ".npz" and size > LARGEST_TEXTS:
        raise UserError(
            f"{path}: with a text of {width:,} characters among {len(texts):,}, an .npz file would "
            f"need {size / 2**30:.1f} GiB for the texts: write a .parquet file"
        )


def read_latents(path: Path) -> np.ndarray:
    """Read the column ``mean`` of a file that ``write_latents`` wrote, or of any other with one.

    Args:
        path: A .npz or .parquet file.

    Returns:
        float32 (N, Z).

    Raises:
        UserError: There is no such file, it is broken, or it has no 2-D array ``mean``.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: latent vectors are read from {' or '.join(FORMATS)}")
    read = _from_npz if path.suffix == ".npz" else _from_parquet
    try:
        mean = np.asarray(read(path), dtype=np.float32)
    except Exception as error:  # numpy, zipfile, and pyarrow raise many unrelated types
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} holds no latent vectors (a column mean of N vectors): {reason}"
        ) from error
    if mean.ndim != 2 or not len(mean):
        raise UserError(f"{path}: mean has shape {mean.shape}, not (N, Z)")
    if not np.isfinite(mean).all():
        raise UserError(f"{path}: mean has values that are not finite")
    return mean


def _from_parquet(path: Path) -> list[list[float]]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, columns=["mean"]).column("mean").to_pylist()


def _from_npz(path: Path) -> np.ndarray:
    arrays = np.load(path, allow_pickle=False)
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError("not an .npz file")
    with arrays:
        return arrays["mean"]
