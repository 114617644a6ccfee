"""Latent arithmetic: move examples along the difference between two labels.

    v = mean of E_q[z|x] over the training examples with one label
        - the same over those with the other,        z' = E_q[z|x] + strength * v

(Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric", section 4.1.)
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from textvae.config.arguments import check_integers
from textvae.errors import UserError
from textvae.evaluation.labels import find_label, label_of
from textvae.evaluation.open_run import Opening, open_run, spaced
from textvae.evaluation.per_example import posteriors
from textvae.vae.model import Model

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)


def attribute_vector(
    run: Path | str,
    start: str | int,
    end: str | int,
    *,
    limit: int | None = None,
    refine_steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **opening: Unpack[Opening],
) -> Tensor:
    """Return the vector that leads from one label to another in the latent space.

    Args:
        run: A run folder whose training split has labels.
        start: The label to start from, by name or number.
        end: The label to move to.
        limit: Use at most ``limit`` examples of each label, evenly spaced.
        refine_steps: Gradient steps that refine q(z|x); None: as in training.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of the refinement steps.
        opening: data, reading, device, model, as in ``Opening``.

    Returns:
        (Z,) the difference of the mean centers of the posteriors, ``end`` - ``start``.

    Raises:
        UserError: There is no latent variable, the training split has no labels or no such label,
            both labels are the same, or the run cannot be opened.
    """
    if limit is not None:
        check_integers(1, limit=limit)
    opened = open_run(run, **opening)
    if not opened.model.latent_dim:
        raise UserError(f"{run} has no latent variable (latent_dim 0) to move in")
    split = opened.split("train")
    first, last = find_label(split, start), find_label(split, end)
    if first == last:
        raise UserError(f"{start} and {end} are the same label: choose two")
    labels = np.asarray(split.labels)
    of_both = [np.flatnonzero(labels == label) for label in (first, last)]
    logger.info("from label %s to label %s", *(label_of(split, rows[0]) for rows in of_both))
    rows = np.sort(np.concatenate([rows[spaced(len(rows), limit)] for rows in of_both]))
    q = posteriors(
        opened.model, split, rows, seed=seed, refine_steps=refine_steps, batch_size=batch_size
    )
    centers = q.center().double()  # (N, Z)
    means = [centers[torch.from_numpy(labels[rows] == n)].mean(0) for n in (first, last)]
    return (means[1] - means[0]).float()


def moved(model: Model, z: Tensor, vector: Tensor, strength: float = 1.0) -> Tensor:
    """Move latent vectors along an attribute vector.

    Args:
        model: The model they belong to.
        z: (N, Z).
        vector: (Z,).
        strength: Multiple of the vector to add; negative for the opposite direction.

    Returns:
        (N, Z); on the unit sphere if the posterior is von Mises-Fisher.
    """
    z = z + strength * vector.to(z)
    return F.normalize(z, dim=-1) if model.on_sphere else z
