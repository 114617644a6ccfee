"""The metrics of MOSES for a file of generated molecules, under the names of its tables.

| name | meaning |
|---|---|
| ``valid`` | share of the strings that RDKit parses; all others are left out below |
| ``unique@1000``, ``unique@10000`` | share of distinct molecules among the first valid ones |
| ``FCD/…`` | Fréchet ChemNet distance to a reference set |
| ``SNN/…`` | mean similarity to the nearest molecule of a reference set |
| ``Frag/…``, ``Scaf/…`` | cosine between the counts of fragments, and of scaffolds |
| ``IntDiv``, ``IntDiv2`` | internal diversity, p = 1 and 2 |
| ``Filters`` | share that passes the filters by which the dataset was made |
| ``Novelty`` | share of the distinct molecules that are not in the training set |
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.evaluation.metrics.metric import MISSING
from textvae.evaluation.molecules.chemistry import (
    FILTERS,
    Molecule,
    canonical,
    check_rdkit,
    describe,
    each,
    passes_filters,
    unwanted,
)
from textvae.evaluation.molecules.chemnet import ChemNet, activations, load_chemnet
from textvae.evaluation.molecules.measures import (
    Moments,
    cosine,
    frechet,
    internal_diversity,
    moments,
    nearest_similarity,
    novelty,
    unique,
)
from textvae.evaluation.molecules.reference import (
    Reference,
    Summary,
    read_molecules,
    read_reference,
    summarize,
)
from textvae.evaluation.printed import Printed
from textvae.runs.files import expanded

logger = logging.getLogger(__name__)

UNIQUE_AT = (1000, 10_000)
PROBED = 1000  # training molecules that show whether the file is in canonical form


class MoleculeMetrics(Printed, dict[str, Any]):
    """The metrics by name, None where there is nothing to measure; ``print`` shows a table."""

    def __str__(self) -> str:
        """Return the table."""
        shown = {
            name: MISSING
            if value is None
            else f"{value:.4f}"
            if isinstance(value, float)
            else value
            for name, value in self.items()
        }
        width = max(map(len, shown))
        return "\n".join(f"{name:<{width}}  {value:>8}" for name, value in shown.items())


def molecule_metrics(
    file: str | Path,
    *,
    train: str | Path | None = None,
    test: str | Path | None = None,
    test_scaffolds: str | Path | None = None,
    filters: str | Path | None = None,
    fcd: bool = True,
    jobs: int = 1,
) -> MoleculeMetrics:
    """Compute the metrics of MOSES for the molecules in a file.

    Args:
        file: SMILES as generated, one per line; a blank line is an invalid molecule.
        train: The training set, for ``Novelty``.
        test: The test set.
        test_scaffolds: The test set with scaffolds that are not in the training set.
        filters: The folder with ``mcf.csv`` and ``wehi_pains.csv``; None: that of ``test``, if it
            has them.
        fcd: Whether to compute FCD, if the package fcd-torch is installed.
        jobs: Number of processes.

    Returns:
        The metrics. Those that need a file that was not given are left out.

    Raises:
        UserError: RDKit is missing, or a file cannot be read.
    """
    check_rdkit()
    sets = {"Test": test, "TestSF": test_scaffolds}
    paths = {name: expanded(path) for name, path in sets.items() if path is not None}
    folder = _filters(filters, paths.values())
    network = load_chemnet() if fcd and paths else None
    texts = read_molecules(expanded(file))
    # What may be wrong comes before what takes long.
    trained = None if train is None else _canonical_set(expanded(train), jobs)
    references = {name: read_reference(path, network, jobs) for name, path in paths.items()}
    molecules = [m for m in each(describe, texts, jobs) if m is not None]
    found = MoleculeMetrics({"count": len(texts), "valid": len(molecules) / len(texts)})
    smiles = [molecule.smiles for molecule in molecules]
    if not smiles:
        logger.warning("%s: no valid molecule, so most metrics have no value", file)
    found |= {f"unique@{k}": unique(smiles, k) for k in UNIQUE_AT}
    if fewer := [f"unique@{k}" for k in UNIQUE_AT if 0 < len(smiles) < k]:
        logger.warning(
            "%s: there are only %d valid molecules; computed over all of them",
            " and ".join(fewer),
            len(smiles),
        )
    found |= _compare(molecules, references, network)
    found |= _diversity(molecules)
    if folder is not None:
        found["Filters"] = _passing(smiles, folder, jobs)
    if trained is not None:
        found["Novelty"] = novelty(smiles, trained)
    return found


def _compare(
    molecules: Sequence[Molecule],
    references: Mapping[str, Reference],
    network: ChemNet | None,
) -> dict[str, float | None]:
    """Compare generated molecules with each reference set."""
    generated = summarize(molecules)
    drawn = None
    if network is not None:
        drawn = moments(activations(network, [molecule.smiles for molecule in molecules]))
    found: dict[str, float | None] = {}
    for name, (summary, activity) in references.items():
        if activity is not None:
            found[f"FCD/{name}"] = _distance(drawn, activity)
        found |= {
            f"SNN/{name}": _snn(generated, summary),
            f"Frag/{name}": cosine(generated.fragments, summary.fragments),
            f"Scaf/{name}": cosine(generated.scaffolds, summary.scaffolds),
        }
    return found


def _distance(drawn: Moments | None, reference: Moments) -> float | None:
    return None if drawn is None else frechet(drawn, reference)


def _snn(generated: Summary, reference: Summary) -> float | None:
    if not len(generated.fingerprints):
        return None
    return nearest_similarity(generated.bits, reference.bits)


def _diversity(molecules: Sequence[Molecule]) -> dict[str, float | None]:
    if not molecules:
        return {"IntDiv": None, "IntDiv2": None}
    bits = summarize(molecules).bits
    return {"IntDiv": internal_diversity(bits), "IntDiv2": internal_diversity(bits, p=2)}


def _passing(smiles: Sequence[str], folder: Path, jobs: int) -> float | None:
    """Compute the share of valid molecules that pass the filters; equal ones are checked once."""
    distinct = sorted(set(smiles))
    checked = each(partial(passes_filters, patterns=folder), distinct, jobs)
    passing = dict(zip(distinct, checked, strict=True))
    return sum(passing[text] for text in smiles) / len(smiles) if smiles else None


def _filters(given: str | Path | None, references: Iterable[Path]) -> Path | None:
    """Return the folder with the filters, and check it; None if there is none."""
    if given is not None:
        unwanted(expanded(given))
        return expanded(given)
    for folder in {path.parent: None for path in references}:
        if all((folder / name).exists() for name in FILTERS):
            unwanted(folder)
            return folder
    return None


def _canonical_set(path: Path, jobs: int) -> set[str]:
    """Read a training set; unless it is in canonical form already, as that of MOSES is, convert it.

    Raises:
        UserError: The file cannot be read, or has no molecules.
    """
    texts = read_molecules(path)
    probed = texts[:: -(-len(texts) // PROBED)]  # from the whole file, which may be several in one
    if each(canonical, probed) == probed:
        return set(texts)
    found = set(each(canonical, texts, jobs)) - {None}
    if not found:
        raise UserError(f"{path}: no valid molecule")
    return {text for text in found if text is not None}
