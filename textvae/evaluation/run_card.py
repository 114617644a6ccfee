"""A run's metrics card: its model, its corpus and everything ``evaluate`` says of the two."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textvae.build import build_data, generation_metrics
from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.evaluation.card import evaluate
from textvae.evaluation.compare import save_card
from textvae.evaluation.diagnosis import remedies
from textvae.evaluation.metrics import clock
from textvae.runs import run_folder as checkpoint
from textvae.vae.batching import LengthBuckets, Split
from textvae.vae.model import Model

logger = logging.getLogger(__name__)


def evaluate_run(
    run: Path,
    config: Config,
    model: Model,
    *,
    split: str = "test",
    samples: int = 200,
    limit: int | None = None,
    refine_steps: int | None = None,
    generations: int = 500,
    precision: str = "fp32",
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluates the best model of a run on a split of its corpus and saves the card.

    Args:
        samples: K of the importance-weighted bound.
        limit: only the first so many rows (the card then says how many it counts).
        refine_steps: gradient steps that refine q(z|x), for any model; as in training where it is
            not given. Given, the card is saved beside the run's own, as ``SPLIT-refineN.json``.
        generations: of text, sentences reconstructed and sampled for BLEU, distinct-n, self-BLEU.

    Raises:
        UserError: the corpus has no such split, or is not the one of the run.
    """
    checkpoint.make_folder(run / "metrics")
    chosen = find_split(run, config, split)
    rows = LengthBuckets(chosen.lengths, batch_size).sequential()
    if limit is not None:
        rows = [kept for r in rows if len(kept := r[r < limit])]
    count = sum(len(r) for r in rows)
    inference = model.inference_with(refine_steps)
    started = time.perf_counter()
    with (
        torch.autocast(model.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    ):
        card = evaluate(
            model,
            lambda: (chosen.batch(r) for r in rows),
            samples=samples if model.latent_dim else 1,
            seed=seed,
            inference=inference,
            remedies=remedies(config),
            generation=generation_metrics(
                config,
                model,
                chosen,
                min(generations, count),
                seed=seed,
                refine_steps=refine_steps,
                batch_size=batch_size,
            ),
            progress=_progress(np.concatenate([chosen.lengths[r] for r in rows]), started),
        )
    card = {
        "model": run.name if refine_steps is None else f"{run.name}, {refine_steps} steps",
        "split": split,
        **card,
        "precision": precision,
        "seed": seed,
        "corpus_hash": chosen.content_hash,
        "commit": checkpoint.commit(),
    }
    save_card(run, split if refine_steps is None else f"{split}-refine{refine_steps}", card)
    return card


def find_split(run: Path, config: Config, split: str) -> Split:
    """A split of the corpus that a run was trained on.

    Raises:
        UserError: the corpus has no such split, or is another one.
    """
    splits = build_data(config, run)
    if split not in splits:
        raise UserError(f"{config.data.dir} has no split {split!r}: choose {', '.join(splits)}")
    if checkpoint.corpus_hash(run) not in (None, splits["train"].content_hash):
        raise UserError(
            f"{config.data.dir} is not the corpus that {run} was trained on: give its place with "
            "--data"
        )
    return splits[split]


def _progress(lengths: np.ndarray, started: float) -> Callable[[int], None]:
    """Time left by tokens, not by examples: the longest come first."""
    tokens, last = np.cumsum(lengths), started

    def show(done: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last > 10:
            last = now
            left = (now - started) * (tokens[-1] / tokens[done - 1] - 1)
            logger.info("evaluated %d of %d, about %s left", done, len(tokens), clock(left))

    return show
