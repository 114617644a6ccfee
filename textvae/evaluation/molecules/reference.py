"""Sets of molecules, summarized for comparison; reference sets are summarized once and cached.

The summary of ``test.txt`` may be next to it, in ``test.stats.npz``, as ``data/moses/prepare.py``
writes it from published statistics; otherwise it is computed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from textvae.errors import UserError
from textvae.evaluation.molecules.chemistry import Molecule, describe, each
from textvae.evaluation.molecules.chemnet import ChemNet, activations
from textvae.evaluation.molecules.measures import Moments, bits, moments
from textvae.runs.cache import cache_folder, cache_lock, mark_used
from textvae.runs.files import replace_file
from textvae.runs.npz import read_npz
from textvae.text.data.columns import MissingColumn
from textvae.text.data.layout import EXTENSIONS, Layout, extension_of
from textvae.text.data.sources import read_documents
from textvae.text.data.streams import input_file, read_lines

logger = logging.getLogger(__name__)

_VERSION = 1  # changes if the same molecules give another summary
PUBLISHED = ".stats.npz"
COLUMNS = ("SMILES", "smiles", "Smiles")  # of tables
PART = "molecules"  # of the cache


class Summary(NamedTuple):
    """What sets of molecules are compared by; equal molecules count as often as they occur.

    Attributes:
        fingerprints: Packed Morgan fingerprints (N, BITS / 8).
        fragments: How often each BRICS fragment occurs.
        scaffolds: How often each scaffold occurs.
    """

    fingerprints: np.ndarray
    fragments: Counter[str]
    scaffolds: Counter[str]

    @property
    def bits(self) -> Tensor:
        """The fingerprints (N, BITS), 0 or 1."""
        return bits(self.fingerprints)


def summarize(molecules: Sequence[Molecule]) -> Summary:
    """Summarize a set of valid molecules."""
    packed = np.frombuffer(b"".join(m.fingerprint for m in molecules), np.uint8)
    return Summary(
        packed.reshape(len(molecules), -1) if molecules else packed.reshape(0, 1),
        Counter(fragment for m in molecules for fragment in m.fragments),
        Counter(m.scaffold for m in molecules if m.scaffold is not None),
    )


def read_molecules(path: Path) -> list[str]:
    """Read the SMILES of a file: one per line, blank lines included, or the column of a table.

    A table is recognized by its extension alone: in a line, a name may follow a molecule.

    Raises:
        UserError: The file cannot be read or is empty, or there is no such column.
    """
    if EXTENSIONS.get(extension_of(path), "lines") != "lines":
        return _column(path)
    lines = [line.strip() for _, line in read_lines(input_file(path))]
    if not lines:
        raise UserError(f"{path}: no molecules")
    return lines


def _column(path: Path) -> list[str]:
    for name in COLUMNS:
        with suppress(MissingColumn):
            texts, _ = read_documents(path, Layout.parse(text_column=name, labels=False))
            return texts
    raise UserError(
        f"{path}: no column {COLUMNS[0]!r}: rename that of the molecules, or write them to a .txt "
        "file, one per line"
    )


class Reference(NamedTuple):
    """A set of molecules that others are compared with.

    Attributes:
        summary: Its summary.
        moments: The moments of its molecules' activations, for FCD; None: not asked for.
    """

    summary: Summary
    moments: Moments | None


def read_reference(path: Path, network: ChemNet | None, jobs: int) -> Reference:
    """Describe the molecules in a file, or read what was published or cached.

    Args:
        path: The file.
        network: The network of FCD, or None.
        jobs: Number of processes.

    Raises:
        UserError: The file cannot be read, a molecule is invalid, or there are too few for FCD.
    """
    valid = cache(partial(_valid, path, jobs))  # read only if something is not known, and once
    return Reference(
        _reference_summary(path, valid),
        None if network is None else _reference_moments(path, network, valid),
    )


def _reference_summary(path: Path, valid: Callable[[], list[Molecule]]) -> Summary:
    def compute() -> dict[str, np.ndarray]:
        found = summarize(valid())
        tables = {"fragments": found.fragments, "scaffolds": found.scaffolds}
        return {"fingerprints": found.fingerprints} | {
            name: np.frombuffer(json.dumps(table).encode(), np.uint8)
            for name, table in tables.items()
        }

    arrays = _known(path, Summary._fields, compute)
    tables = [Counter(json.loads(arrays[name].tobytes())) for name in ("fragments", "scaffolds")]
    return Summary(arrays["fingerprints"], *tables)


def _reference_moments(
    path: Path, network: ChemNet, valid: Callable[[], list[Molecule]]
) -> Moments:
    def compute() -> dict[str, np.ndarray]:
        molecules = [molecule.smiles for molecule in valid()]
        found = moments(activations(network, molecules))
        if found is None:
            raise UserError(f"{path}: FCD needs at least two molecules")
        return found._asdict()

    arrays = _known(path, Moments._fields, compute)
    return Moments(*(arrays[name] for name in Moments._fields))


def _valid(path: Path, jobs: int) -> list[Molecule]:
    texts = read_molecules(path)
    logger.info("%s: summarizing %d molecules, only once", path, len(texts))
    described = each(describe, texts, jobs)
    if None in described:
        place = described.index(None)  # not a line if it is a table, which may have quoted ones
        raise UserError(f"{path}: molecule {place + 1}, {texts[place]!r}, is not valid")
    return [molecule for molecule in described if molecule is not None]


def _known(
    path: Path, names: Sequence[str], compute: Callable[[], Mapping[str, np.ndarray]]
) -> Mapping[str, np.ndarray]:
    """Return published, cached, or computed arrays of these names for the molecules in a file."""
    from rdkit import __version__ as rdkit_version

    try:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    published = path.with_name(path.stem + PUBLISHED)
    if published.exists():
        arrays = _read(published)
        if arrays is None or not {"content", *names} <= set(arrays):
            raise UserError(f"{published}: damaged; restore it or remove it")
        if str(arrays["content"]) == content:
            return arrays
        logger.warning("%s describes other molecules than those in %s; ignored", published, path)
    parts = f"{_VERSION} {rdkit_version} {' '.join(names)} {content}"
    key = hashlib.sha256(parts.encode()).hexdigest()
    entry = cache_folder(None) / PART / f"{key}.npz"
    found = _read(entry)
    if found is None:
        with cache_lock(entry):  # one of several processes computes, the others wait
            found = _read(entry)
            if found is None:
                found = dict(compute())
                replace_file(entry, lambda temporary: _write(temporary, found))
    mark_used(entry)
    return found


def _write(path: Path, arrays: dict[str, Any]) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """Read arrays; None if the file is missing or damaged."""
    try:
        return read_npz(path)
    except ValueError:
        return None
