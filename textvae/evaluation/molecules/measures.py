"""The formulas of MOSES (Polykovskiy et al. 2020), over descriptions of molecules.

    Unique@k  = distinct molecules among the first k valid ones / k
    Novelty   = share of the distinct valid molecules that are not in the training set
    IntDiv_p  = 1 - mean_x (mean_y T(x, y)^p)^(1/p)                       x, y generated
    SNN       = mean_x max_y T(x, y)                                      x generated, y reference
    Frag      = cos(counts of BRICS fragments), Scaf = cos(counts of scaffolds)
    FCD       = |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))                  (Preuer et al. 2018)

T is the Tanimoto similarity of Morgan fingerprints, the bits of both / the bits of either; m and C
are the mean and the covariance of the activations of ChemNet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK = 2048  # fingerprints that are compared at a time


class Moments(NamedTuple):
    """The mean (D,) and the covariance (D, D) of activations."""

    mean: np.ndarray
    covariance: np.ndarray


def unique(molecules: Sequence[str], k: int | None = None) -> float | None:
    """Compute the fraction of distinct molecules among the first k; None if there are none."""
    first = molecules[:k]
    return len(set(first)) / len(first) if first else None


def novelty(molecules: Iterable[str], train: Collection[str]) -> float | None:
    """Compute the fraction of distinct molecules that are not in the training set."""
    distinct = set(molecules)
    return len(distinct - set(train)) / len(distinct) if distinct else None


def bits(packed: np.ndarray) -> Tensor:
    """Unpack fingerprints (N, BITS / 8) to (N, BITS) of 0 and 1."""
    return torch.from_numpy(np.unpackbits(packed, axis=1, bitorder="little"))


def internal_diversity(fingerprints: Tensor, p: int = 1) -> float | None:
    """Compute IntDiv_p of fingerprints (N, BITS); every molecule is also compared with itself."""
    if not len(fingerprints):
        return None
    means = [
        torch.stack([block.pow(p).sum(1) for block in blocks]).sum(0).div(len(fingerprints))
        for blocks in _similarities(fingerprints, fingerprints)
    ]
    return 1 - float(torch.cat(means).double().pow(1 / p).mean())


def nearest_similarity(fingerprints: Tensor, reference: Tensor) -> float | None:
    """Compute SNN of fingerprints (N, BITS) to a reference set (M, BITS)."""
    if not len(fingerprints) or not len(reference):
        return None
    nearest = [
        torch.stack([block.amax(1) for block in blocks]).amax(0)
        for blocks in _similarities(fingerprints, reference)
    ]
    return float(torch.cat(nearest).double().mean())


def cosine(counts: Counter[str], reference: Counter[str]) -> float | None:
    """Compute the cosine between two tables of counts; None if one of them is empty."""
    if not counts or not reference:
        return None
    product = sum(n * reference[name] for name, n in counts.items())
    lengths = [np.sqrt(sum(float(n) ** 2 for n in c.values())) for c in (counts, reference)]
    return float(product / (lengths[0] * lengths[1]))


def moments(activations: np.ndarray) -> Moments | None:
    """Compute the moments of activations (N, D); None for fewer than two."""
    if len(activations) < 2:
        return None
    activations = activations.astype(np.float64)
    return Moments(activations.mean(0), np.cov(activations, rowvar=False))


def frechet(a: Moments, b: Moments) -> float:
    """Compute the Fréchet distance between two Gaussians.

    The trace of (C C')^(1/2) is the sum of the square roots of the eigenvalues of C C', which are
    those of the symmetric R C' R, with R the square root of C.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ b.covariance @ root)
    shared = np.sqrt(product.clip(0)).sum()
    apart = ((a.mean - b.mean) ** 2).sum()
    distance = apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared
    return max(0.0, float(distance))  # rounding


def _similarities(x: Tensor, y: Tensor) -> Iterator[Iterator[Tensor]]:
    """The Tanimoto similarities of each block of x to each block of y, (BLOCK, BLOCK) each."""
    for rows in x.split(BLOCK):
        yield (_tanimoto(rows.float(), other.float()) for other in y.split(BLOCK))


def _tanimoto(x: Tensor, y: Tensor) -> Tensor:
    both = x @ y.t()
    either = x.sum(1, keepdim=True) + y.sum(1) - both
    return torch.where(either > 0, both / either, 1.0)  # two molecules without any bit are alike
