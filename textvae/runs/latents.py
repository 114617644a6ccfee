"""Latent vectors in a file: .npz or .parquet, with the sentence beside each."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from textvae.vae.posteriors import DiagGaussian
from textvae.errors import UserError
from textvae.runs.files import replace_file

FORMATS = (".npz", ".parquet")


def write_latents(path: Path, q: DiagGaussian, texts: Sequence[str]) -> None:
    """Writes ``text`` (N,), ``mean`` and ``logvar`` (N, Z) in the order given.

    Raises:
        UserError: the file is neither .npz nor .parquet, or cannot be written.
    """
    check_format(path)
    columns = {"mean": q.mean.cpu().numpy(), "logvar": q.logvar.cpu().numpy()}
    match path.suffix:
        case ".npz":

            def write(file: Path) -> None:
                with file.open("wb") as stream:
                    np.savez_compressed(stream, text=np.array(texts, dtype=np.str_), **columns)
        case ".parquet":

            def write(file: Path) -> None:
                import pyarrow
                import pyarrow.parquet

                arrays = {name: list(values) for name, values in columns.items()}
                pyarrow.parquet.write_table(pyarrow.table({"text": list(texts), **arrays}), file)

    replace_file(path, write)


def check_format(path: Path) -> None:
    """Checks a place for latents before they are computed.

    Raises:
        UserError: its ending is neither .npz nor .parquet.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: latents are written as {' or '.join(FORMATS)}")


def read_latents(path: Path) -> Tensor:
    """``mean`` (N, Z) of a file that ``write_latents`` wrote, or of any with such a column.

    Raises:
        UserError: there is no such file, it is broken, or it holds no matrix called mean.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    read = dict(zip(FORMATS, (_from_npz, _from_parquet), strict=True)).get(path.suffix)
    if read is None:
        raise UserError(f"{path}: latents are read from {' or '.join(FORMATS)}")
    try:
        mean = np.asarray(read(path), dtype=np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} holds no latents (a column mean of N vectors): {reason}"
        ) from error
    if mean.ndim != 2 or not len(mean):
        raise UserError(f"{path}: mean is {mean.shape}, not (N, Z)")
    if not np.isfinite(mean).all():
        raise UserError(f"{path}: mean holds numbers that are not finite")
    return torch.from_numpy(mean)


def _from_parquet(path: Path) -> list[list[float]]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, columns=["mean"]).column("mean").to_pylist()


def _from_npz(path: Path) -> np.ndarray:
    arrays = np.load(path, allow_pickle=False)
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError("no .npz file")
    with arrays:
        return arrays["mean"]
