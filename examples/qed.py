"""Objectives for molecules: textvae optimize RUN --objective examples/qed.py:qed.

``qed`` is the drug-likeness of Bickerton et al. 2012, from 0 to 1, and ``logp`` the logarithm of
the partition coefficient of Wildman and Crippen 1999. Both need RDKit (pip install rdkit), and give
a text that is not a molecule no value.
"""

from __future__ import annotations

from rdkit import Chem, RDLogger
from rdkit.Chem import QED, Crippen

RDLogger.DisableLog("rdApp.*")  # one message for every invalid molecule


def qed(text: str) -> float | None:
    """Return the drug-likeness of a molecule, None if the text is not a SMILES string."""
    molecule = Chem.MolFromSmiles(text) if text else None
    return None if molecule is None else QED.qed(molecule)


def logp(text: str) -> float | None:
    """Return Crippen's logP, None as for ``qed``."""
    molecule = Chem.MolFromSmiles(text) if text else None
    return None if molecule is None else Crippen.MolLogP(molecule)
