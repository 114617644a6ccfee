"""Latent vectors in a file: .npz or .parquet, with the sentence beside each."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from textvae.core.gaussian import DiagGaussian
from textvae.errors import UserError
from textvae.files import replace_file


def write_latents(path: Path, q: DiagGaussian, texts: Sequence[str]) -> None:
    """Writes ``text`` (N,), ``mean`` and ``logvar`` (N, Z) in the order given.

    Raises:
        UserError: the file is neither .npz nor .parquet, or cannot be written.
    """
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
        case _:
            raise UserError(f"{path}: latents are written as .npz or .parquet")
    replace_file(path, write)


def read_latents(path: Path) -> Tensor:
    """``mean`` (N, Z) of a file that ``write_latents`` wrote, or of any with such a column.

    Raises:
        UserError: there is no such file, it is broken, or it holds no matrix called mean.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(path, columns=["mean"])
            mean = np.array(table.column("mean").to_pylist(), dtype=np.float32)
        else:
            with np.load(path, allow_pickle=False) as arrays:
                mean = np.asarray(arrays["mean"], dtype=np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no latents (a column mean of N vectors): {error}") from error
    if mean.ndim != 2 or not len(mean):
        raise UserError(f"{path}: mean is {mean.shape}, not (N, Z)")
    return torch.from_numpy(mean)
