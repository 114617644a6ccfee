"""Mutual information as vae-lagging-encoder reports it (He et al. 2019), for comparisons with it.

Its mini-batches hold at most 32 sentences of equal length, so no estimate exceeds ln 32 = 3.47 nats
(``textvae.vae.estimators.minibatch_information``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from textvae.evaluation.metrics.metric import decimals
from textvae.evaluation.metrics.table import BY_KEY
from textvae.evaluation.open_run import open_run
from textvae.evaluation.per_example import posteriors
from textvae.runs.markdown import markdown_table
from textvae.vae.batching import LengthBuckets
from textvae.vae.estimators import minibatch_information
from textvae.vae.noise import Purpose, RowNoise

BATCH = 32


def lagging_information(
    run: Path | str,
    *,
    data: Path | str | None = None,
    split: str = "test",
    seed: int = 0,
) -> float:
    """Estimate the mutual information of a run within mini-batches, in nats.

    Args:
        run: A run folder.
        data: Where the data is, if it has moved since training.
        split: The split.
        seed: Seed of the draws, which are those of the estimate over the whole split.

    Raises:
        UserError: The run cannot be opened.
    """
    opened = open_run(run, data=data)
    chosen = opened.split(split)
    q = posteriors(opened.model, chosen, seed=seed)
    batches = LengthBuckets(chosen.lengths, BATCH, equal_length=True).sequential()
    noise = RowNoise(seed, Purpose.MIXTURE, range(len(chosen)))
    return minibatch_information(q, map(torch.from_numpy, batches), noise=noise)


def lagging_table(rows: Sequence[tuple[str, Mapping[str, float], float]]) -> str:
    """Return Markdown with both estimates of some runs.

    Args:
        rows: The name of a run, its card, and the estimate within mini-batches.
    """
    metric = BY_KEY["mi"]
    cells = [(name, metric.show(card), decimals(value)) for name, card, value in rows]
    return "\n".join(
        [
            f"MI over the whole split, and within mini-batches of {BATCH} sentences of equal "
            "length, as vae-lagging-encoder estimates it (at most "
            f"ln {BATCH} = {math.log(BATCH):.2f}):",
            "",
            markdown_table([("run", "MI", "MI (mini-batches)"), *cells], right=(1, 2)),
        ]
    )
