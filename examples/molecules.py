"""Objectives for molecules: textvae optimize RUN --objective examples/molecules.py:qed.

``qed`` is the drug-likeness of Bickerton et al. 2012, from 0 to 1, ``logp`` the logarithm of the
partition coefficient of Wildman and Crippen 1999, and ``celecoxib`` the similarity to that
molecule, from 0 to 1, as in a benchmark of Brown et al. 2019 (GuacaMol). They need RDKit
(the extra ``molecules``), and return None for a text that is not a molecule.
"""

from __future__ import annotations

from rdkit import Chem, RDLogger
from rdkit.Chem import QED, Crippen, rdFingerprintGenerator
from rdkit.DataStructs import TanimotoSimilarity

RDLogger.DisableLog("rdApp.*")  # one message for every invalid molecule
CELECOXIB = "Cc1ccc(cc1)-c1cc(nn1-c1ccc(cc1)S(N)(=O)=O)C(F)(F)F"
fingerprints = rdFingerprintGenerator.GetMorganGenerator(radius=2)


def parse(text: str) -> Chem.Mol | None:
    """Return a molecule; RDKit would take what follows a space for its name."""
    return Chem.MolFromSmiles(text) if len(text.split()) == 1 else None


def qed(text: str) -> float | None:
    """Return the drug-likeness of a molecule, None if the text is not a SMILES string."""
    molecule = parse(text)
    return None if molecule is None else QED.qed(molecule)


def logp(text: str) -> float | None:
    """Return Crippen's logP, None as for ``qed``."""
    molecule = parse(text)
    return None if molecule is None else Crippen.MolLogP(molecule)


def celecoxib(text: str) -> float | None:
    """Return the Tanimoto similarity of a molecule's fragments to those of celecoxib."""
    molecules = [parse(smiles) for smiles in (text, CELECOXIB)]
    if molecules[0] is None:
        return None
    return TanimotoSimilarity(*map(fingerprints.GetCountFingerprint, molecules))
