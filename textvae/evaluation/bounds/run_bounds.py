"""The bounds of a run: everything that ``textvae bounds`` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from textvae.config.arguments import check_choice, check_integers
from textvae.evaluation.bounds.bounds import bounds
from textvae.evaluation.bounds.result import Bounds
from textvae.evaluation.metrics.saving import may_save, save_record
from textvae.evaluation.open_run import Opening, open_run, spaced
from textvae.evaluation.per_example import log_progress, short_first
from textvae.evaluation.scoring.regret import REGRET_STEPS
from textvae.runs import origin
from textvae.runs.files import read_if_there
from textvae.runs.model_folder import metrics_path, weights_hash

if TYPE_CHECKING:
    from typing_extensions import Unpack

LIMIT = 50  # examples: some minutes for a small model on a CPU
SIMULATED = 16
SAMPLES = 500
SUFFIX = "-bounds"  # ends the name of the record


def bounds_run(
    run: Path | str,
    *,
    condition: str | float | None = None,
    split: str = "test",
    samples: int = SAMPLES,
    limit: int | None = LIMIT,
    simulated: int = SIMULATED,
    chains: int = 5,
    steps: int = 25,
    leapfrogs: int = 5,
    regret_steps: int = REGRET_STEPS,
    precision: str = "fp32",
    batch_size: int = 16,
    seed: int = 0,
    **opening: Unpack[Opening],
) -> Bounds:
    """Compare the bounds on log p(x) of the best model of a run, and save them in its folder.

    They are saved as ``RUN/metrics/SPLIT-bounds.json``, with the values of every example.

    Args:
        run: A run folder.
        condition: For a model that is conditioned on labels or numbers: that of all examples in a
            file of new ones; None: those in the file.
        split: Which split to take examples from.
        samples: Draws of z for the ELBOs and the importance-weighted bound.
        limit: At most this many examples, evenly spaced; None: all of them.
        simulated: Number of examples to generate, for an upper bound; 0 skips it.
        chains: As in ``textvae.bounds``.
        steps: As in ``textvae.bounds``.
        leapfrogs: As in ``textvae.bounds``.
        regret_steps: As in ``textvae.bounds``.
        precision: The precision of matrix products: ``fp32`` or ``bf16``.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of all noise.
        opening: data, reading, device, model, as in ``Opening``.

    Returns:
        The bounds; ``print`` shows them.

    Raises:
        UserError: It is not a run folder, its data is missing or has changed, there is no such
            split, or as in ``textvae.bounds``.
    """
    check_integers(1, batch_size=batch_size)
    check_choice(("fp32", "bf16"), precision=precision)
    opened = open_run(run, condition=condition, **opening)
    save, chosen = may_save(opened.folder, opened.is_foreign), opened.split(split)
    rows = spaced(len(chosen), limit)
    kind = opened.model.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
        found = bounds(
            opened.model,
            short_first(chosen, rows, batch_size),
            samples=samples,
            chains=chains,
            steps=steps,
            leapfrogs=leapfrogs,
            regret_steps=regret_steps,
            simulated=simulated,
            seed=seed,
            inference=opened.model.inference_with(None),
            progress=log_progress(np.sort(chosen.lengths[rows])),
            name=opened.name,
            split=opened.title(split),
        )
    if save:
        record = {
            "limit": limit,
            "leapfrogs": leapfrogs,
            "regret_steps": regret_steps,
            "seed": seed,
            "precision": precision,
            "weights": opened.weights,
            "commit": origin.commit(),
            "rows": rows.tolist(),
            "by_example": {key: bound.tolist() for key, bound in found.bounds().items()},
        }
        record["corpus_hash"] = chosen.content_hash
        save_record(opened.folder, f"{opened.title(split)}{SUFFIX}", found.to_dict() | record)
    return found


def load_bounds(run: Path, split: str) -> dict[str, Any]:
    """Return what ``bounds_run`` saved of a run's last weights; empty if there is nothing."""
    record = read_if_there(metrics_path(run, f"{split}{SUFFIX}"))
    return record if record.get("weights") == weights_hash(run) else {}
