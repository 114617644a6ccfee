"""Files with latent vectors (.npz or .parquet), each with its text."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from textvae.errors import UserError, first_line
from textvae.runs.files import parts_of, replacing
from textvae.runs.npz import open_npz

FORMATS = (".npz", ".parquet")
WEIGHTS = "weights_sha256"  # where a file says which weights made its vectors
LARGEST_TEXTS = 2**30  # bytes, in an .npz file
TEXT, LABEL = "text", "label"


Texts = Mapping[str, Sequence[str | None]]  # n values of every column; None: missing


class Extent(NamedTuple):
    """What has to be known about a table before its first row is written."""

    rows: int = 0
    widths: Mapping[str, int | None] = MappingProxyType({})
    """Characters of the longest value of every column of texts; None: it has no value."""

    def with_part(self, texts: Texts) -> Extent:
        """Return the extent of a table that also has these rows."""
        widths: dict[str, int | None] = {}
        for name, values in texts.items():
            lengths = [len(value) for value in values if value is not None]
            known = [width for width in (self.widths.get(name),) if width is not None]
            widths[name] = max([*known, *lengths], default=None)
        return Extent(self.rows + len(texts[TEXT]), widths)

    @property
    def columns(self) -> list[str]:
        """The columns of texts: without labels if no example has one."""
        return [name for name, w in self.widths.items() if name != LABEL or w is not None]


class LatentsFile(Protocol):
    """A file that is being written."""

    def add(self, vectors: Mapping[str, np.ndarray], texts: Texts) -> None:
        """Write some rows.

        Args:
            vectors: Arrays (n, Z) by name, such as ``mean`` and ``logvar``.
            texts: n values of every column in the extent.
        """


@contextmanager
def latents_file(path: Path, extent: Extent, weights: str | None = None) -> Iterator[LatentsFile]:
    """Write a table with columns ``text`` and ``label``, and columns of vectors, part by part.

    There is no column ``label`` if no example has one. In .npz, the label of an unlabeled example
    is empty, because it has no such value as None.

    Args:
        path: A .npz or .parquet file, which appears once it is complete.
        extent: What all parts together hold.
        weights: The hash of the model's weights, which ``read_weights`` returns.

    Raises:
        UserError: The file has another extension, or cannot be written.
    """
    check_format(path)
    with replacing(path) as temporary:
        file = (_Npz if path.suffix.lower() == ".npz" else _Parquet)(temporary, extent, weights)
        try:
            yield file
            file.finish()
        finally:
            file.close()


class _Npz:
    """Arrays in files of their own until all rows are there, because a zip file takes no others."""

    def __init__(self, path: Path, extent: Extent, weights: str | None) -> None:
        self.path, self.extent, self.weights, self.done = path, extent, weights, 0
        self.folder = parts_of(path)
        self.folder.mkdir()
        self.arrays: dict[str, np.memmap] = {}

    def add(self, vectors: Mapping[str, np.ndarray], texts: Texts) -> None:
        """See ``LatentsFile``."""
        new: dict[str, np.ndarray] = {}
        for name in self.extent.columns:
            values = [value or "" for value in texts[name]]
            new[name] = np.array(values, dtype=f"<U{self.extent.widths[name] or 1}")
        for name, array in (new | dict(vectors)).items():
            if name not in self.arrays:
                shape = (self.extent.rows, *array.shape[1:])
                place = self.folder / f"{len(self.arrays)}.npy"  # a column may have any name
                self.arrays[name] = np.lib.format.open_memmap(
                    place, mode="w+", dtype=array.dtype, shape=shape
                )
            self.arrays[name][self.done : self.done + len(array)] = array
        self.done += len(texts[TEXT])

    def finish(self) -> None:
        """Pack the arrays."""
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_DEFLATED) as packed:
            for i, (name, array) in enumerate(self.arrays.items()):
                array.flush()
                packed.write(self.folder / f"{i}.npy", f"{name}.npy")
            if self.weights is not None:
                with packed.open(f"{WEIGHTS}.npy", "w") as file:
                    np.lib.format.write_array(file, np.array(self.weights))

    def close(self) -> None:
        """Remove the temporary files."""
        self.arrays.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Parquet:
    """One group of rows for every part."""

    def __init__(self, path: Path, extent: Extent, weights: str | None) -> None:
        self.path, self.extent = path, extent
        self.metadata = None if weights is None else {WEIGHTS: weights}
        self.writer: Any = None

    def add(self, vectors: Mapping[str, np.ndarray], texts: Texts) -> None:
        """See ``LatentsFile``."""
        import pyarrow
        import pyarrow.parquet

        table: dict[str, Any] = {
            name: pyarrow.array(texts[name], pyarrow.string()) for name in self.extent.columns
        }
        for name, values in vectors.items():
            ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
            table[name] = pyarrow.ListArray.from_arrays(ends, values.ravel())
        rows = pyarrow.table(table, metadata=self.metadata)
        if self.writer is None:
            self.writer = pyarrow.parquet.ParquetWriter(self.path, rows.schema)
        self.writer.write_table(rows)

    def finish(self) -> None:
        """Write the end of the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def check_format(path: Path) -> None:
    """Check the name of a file for latent vectors, before they are computed.

    Raises:
        UserError: Its extension is neither .npz nor .parquet.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: latent vectors are written as {' or '.join(FORMATS)}")


def check_size(path: Path, extent: Extent) -> None:
    """Check that texts fit into the format of a file, before the vectors are computed.

    Raises:
        UserError: NumPy stores all texts at the width of the longest, which would take too much; or
            the name of a column looks like a path, which an .npz file would have inside.
    """
    if path.suffix.lower() != ".npz":
        return
    if wrong := [name for name in extent.columns if "/" in name or "\\" in name]:
        raise UserError(f"{path}: an .npz file cannot have a column {wrong[0]!r}: write .parquet")
    longest = max((width or 0 for width in extent.widths.values()), default=0)
    size = 4 * longest * extent.rows  # bytes
    if size > LARGEST_TEXTS:
        raise UserError(
            f"{path}: with a text of {longest:,} characters among {extent.rows:,}, an .npz "
            f"file would need {size / 2**30:.1f} GiB for the texts: write a .parquet file"
        )


def read_latents(path: Path) -> np.ndarray:
    """Read the column ``mean`` of a file that ``latents_file`` wrote, or of any other with one.

    Args:
        path: A .npz or .parquet file.

    Returns:
        float32 (N, Z).

    Raises:
        UserError: There is no such file, it is broken, or it has no 2-D array ``mean``.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: latent vectors are read from {' or '.join(FORMATS)}")
    read = _from_npz if path.suffix.lower() == ".npz" else _from_parquet
    try:
        found = np.asarray(read(path))
        if found.dtype.kind not in "fiu":
            raise ValueError(f"mean holds {found.dtype}, not numbers")
        with np.errstate(over="ignore"):  # too large a number is infinite, and refused below
            mean = found.astype(np.float32)
    except Exception as error:  # numpy, zipfile, and pyarrow raise many unrelated types
        reason = first_line(error)
        raise UserError(
            f"{path} holds no latent vectors (a column mean of N vectors): {reason}"
        ) from error
    if mean.ndim != 2:
        raise UserError(f"{path}: mean has shape {mean.shape}, not (N, Z)")
    if not len(mean):
        raise UserError(f"{path} holds no latent vectors: mean is empty")
    if not np.isfinite(mean).all():
        raise UserError(f"{path}: mean has values that are not finite, or too large")
    return mean


def read_labels(path: Path, count: int) -> list[str | None] | None:
    """Read the column ``label`` of a file that ``read_latents`` can read; None if it has none.

    Args:
        path: A .npz or .parquet file.
        count: N; None stands for an unlabeled example.

    Raises:
        UserError: There are more or fewer labels.
    """
    read = _from_npz if path.suffix.lower() == ".npz" else _from_parquet
    try:
        labels = [_named(label) for label in read(path, "label")]
    except KeyError:
        return None
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{path}: the labels cannot be read: {reason}") from error
    if len(labels) != count:
        raise UserError(f"{path}: {len(labels)} labels for {count} latent vectors")
    return labels if any(label is not None for label in labels) else None


def _named(label: Any) -> str | None:
    missing = label is None or label == "" or label != label  # nan is not equal to itself
    return None if missing else str(label)


def read_weights(path: Path) -> str | None:
    """Read the hash of the weights that made a file that ``read_latents`` can read, if it has one.

    Args:
        path: A .npz or .parquet file.
    """
    try:
        if path.suffix.lower() == ".npz":
            return str(_from_npz(path, WEIGHTS))
        return _metadata(path)[WEIGHTS.encode()].decode()
    except KeyError:
        return None
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{path}: {WEIGHTS} cannot be read: {reason}") from error


def _metadata(path: Path) -> Mapping[bytes, bytes]:
    import pyarrow.parquet

    return pyarrow.parquet.read_schema(path).metadata or {}


def _from_parquet(path: Path, column: str = "mean") -> list[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        if column not in file.schema_arrow.names:
            raise KeyError(column)
        return file.read(columns=[column]).column(column).to_pylist()


def _from_npz(path: Path, name: str = "mean") -> np.ndarray:
    with open_npz(path) as arrays:
        return arrays[name]
