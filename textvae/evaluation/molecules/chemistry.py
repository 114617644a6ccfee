"""What RDKit says about a molecule, for many molecules at a time.

The functions need no torch, so that worker processes start quickly.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from textvae.errors import UserError

T = TypeVar("T")

RADIUS, BITS = 2, 1024  # of the Morgan fingerprints (ECFP4)
SCAFFOLD_RINGS = 2  # a scaffold with fewer rings does not count
LARGEST_RING = 7  # of molecules that pass the filters
ALLOWED = frozenset({"C", "N", "S", "O", "F", "Cl", "Br", "H"})
FILTERS = ("mcf.csv", "wehi_pains.csv")
CHUNK = 500  # molecules that a worker gets at a time


class Molecule(NamedTuple):
    """What the metrics compare.

    Attributes:
        smiles: The canonical SMILES.
        fingerprint: The Morgan fingerprint, ``BITS`` bits packed into bytes.
        fragments: The canonical SMILES of the BRICS fragments.
        scaffold: The canonical SMILES of the Bemis-Murcko scaffold; None if it has too few rings.
    """

    smiles: str
    fingerprint: bytes
    fragments: tuple[str, ...]
    scaffold: str | None


def check_rdkit() -> None:
    """Check that RDKit is there.

    Raises:
        UserError: It is not.
    """
    try:
        import rdkit  # noqa: F401
    except ImportError:
        raise UserError("molecules need RDKit, which is not installed: pip install rdkit") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep RDKit from logging every molecule that it cannot parse."""
    from rdkit import rdBase

    blocked = rdBase.BlockLogs()
    try:
        yield
    finally:
        del blocked


def parse(smiles: str) -> Any:
    """Return the molecule of a SMILES string; None if it is invalid or empty.

    One with spaces inside is invalid, although RDKit takes what follows the first one for a name.
    """
    from rdkit import Chem

    one = len(smiles.split()) == 1
    return (Chem.MolFromSmiles(smiles) if one else None) or None


def canonical(smiles: str) -> str | None:
    """Return the canonical SMILES of a molecule; None if the string is invalid."""
    from rdkit import Chem

    molecule = parse(smiles)
    return None if molecule is None else Chem.MolToSmiles(molecule)


def describe(smiles: str) -> Molecule | None:
    """Return what the metrics compare; None if the string is invalid."""
    from rdkit import Chem

    molecule = parse(smiles)
    if molecule is None:
        return None
    return Molecule(
        Chem.MolToSmiles(molecule),
        fingerprint(molecule),
        fragments(molecule),
        scaffold(molecule),
    )


def fingerprint(molecule: Any) -> bytes:
    """Return the Morgan fingerprint of a molecule, packed into bytes."""
    from rdkit import DataStructs

    return DataStructs.BitVectToBinaryText(_generator().GetFingerprint(molecule))


def fragments(molecule: Any) -> tuple[str, ...]:
    """Return the pieces of a molecule that breaking its BRICS bonds leaves (Degen et al. 2008)."""
    from rdkit import Chem

    return tuple(Chem.MolToSmiles(Chem.rdmolops.FragmentOnBRICSBonds(molecule)).split("."))


def scaffold(molecule: Any) -> str | None:
    """Return the ring systems of a molecule and what links them (Bemis and Murcko 1996)."""
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    try:
        found = MurckoScaffold.GetScaffoldForMol(molecule)
    except (ValueError, RuntimeError):
        return None
    if found.GetRingInfo().NumRings() < SCAFFOLD_RINGS:
        return None
    return Chem.MolToSmiles(found) or None


def passes_filters(smiles: str, patterns: Path) -> bool:
    """Return whether a molecule passes the filters of MOSES.

    It has no ring of more than 7 atoms, no charge, no element other than those of the dataset, and
    none of the substructures of the medicinal chemistry filters (MCF) and PAINS.

    Args:
        smiles: The molecule.
        patterns: The folder with ``mcf.csv`` and ``wehi_pains.csv``.
    """
    from rdkit import Chem

    molecule = parse(smiles)
    if molecule is None or any(
        len(ring) > LARGEST_RING for ring in molecule.GetRingInfo().AtomRings()
    ):
        return False
    atoms = list(molecule.GetAtoms())
    if any(atom.GetFormalCharge() or atom.GetSymbol() not in ALLOWED for atom in atoms):
        return False
    explicit = Chem.AddHs(molecule)
    if any(explicit.HasSubstructMatch(pattern) for pattern in unwanted(patterns)):
        return False
    return parse(Chem.MolToSmiles(molecule, isomericSmiles=False)) is not None


@cache
def unwanted(folder: Path) -> tuple[Any, ...]:
    """Read the substructures of the filters.

    Raises:
        UserError: A file is missing or damaged.
    """
    from rdkit import Chem

    found = []
    for name, column in zip(FILTERS, (1, 0), strict=True):
        path = folder / name
        try:
            rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); data/moses/prepare.py writes it"
            ) from None
        for number, row in enumerate(rows, 1):
            if row == ["names", "smarts"]:
                continue
            pattern = Chem.MolFromSmarts(row[column].strip()) if len(row) == 2 else None
            if pattern is None:
                raise UserError(f"{path}, line {number}: not a name and a SMARTS pattern")
            found.append(pattern)
    return tuple(found)


def each(function: Callable[[str], T], texts: Sequence[str], jobs: int = 1) -> list[T]:
    """Apply a function of this module to every text.

    Args:
        function: What to apply; it must be importable by other processes.
        texts: The texts.
        jobs: Number of processes.

    Returns:
        The results, in order.
    """
    chunks = [texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK)]
    work = partial(_all_of, function)
    if jobs == 1 or len(chunks) < 2:
        return [result for chunk in chunks for result in work(chunk)]
    # A forked process would inherit the locks of torch's threads.
    with ProcessPoolExecutor(min(jobs, len(chunks)), get_context("spawn")) as pool:
        return [result for results in pool.map(work, chunks) for result in results]


def _all_of(function: Callable[[str], T], texts: Sequence[str]) -> list[T]:
    with quiet():
        return [function(text) for text in texts]


@cache
def _generator() -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
