"""The posteriors that stand for q(z) in an evaluation of some examples of a split."""

from __future__ import annotations

import torch

from textvae.evaluation.open_run import OpenRun, spaced
from textvae.evaluation.per_example import posteriors
from textvae.vae.aggregate import Pool
from textvae.vae.batch import Split

POOLED = 5000  # examples


def pool_of(
    opened: OpenRun,
    split: Split,
    limit: int | None,
    refine_steps: int | None = None,
    *,
    seed: int,
    batch_size: int,
) -> Pool | None:
    """Infer q(z|x) of more examples than are examined, because a few examples hide holes.

    Args:
        opened: The run.
        split: The split.
        limit: The number of examples that are examined; None for all.
        refine_steps: Number of refinement steps; as in training by default.
        seed: Seed of all noise.
        batch_size: Examples per batch; does not change the results.

    Returns:
        The posteriors of at most ``POOLED`` examples; None if as many are examined, or if they
        would have to be refined, which takes too long.
    """
    model, rows = opened.model, spaced(len(split), POOLED)
    refined = model.inference_with(refine_steps).method != "amortized"
    if limit is None or limit >= len(rows) or refined or not model.latent_dim:
        return None
    q = posteriors(model, split, rows, seed=seed, batch_size=batch_size)
    return Pool(q, torch.from_numpy(rows))
