"""The metrics card of a run: everything that ``textvae evaluate`` measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from textvae.config.arguments import check_choice, check_integers
from textvae.evaluation.diagnosis.history import read_history, read_training
from textvae.evaluation.evaluate import evaluate
from textvae.evaluation.latent.fit_sampler import fit_opened
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.metrics.saving import may_save, not_saved_with_a_warning, save_card
from textvae.evaluation.open_run import Opening, OpenRun, open_run, rows_of, spaced
from textvae.evaluation.own_metrics import OwnMetric, check_own_metrics
from textvae.evaluation.per_example import log_progress
from textvae.evaluation.pool import pool_of
from textvae.runs import origin
from textvae.vae.batch import Split

if TYPE_CHECKING:
    from typing_extensions import Unpack

GENERATIONS = 500


def evaluate_run(
    run: Path | str,
    *,
    condition: str | float | None = None,
    split: str = "test",
    samples: int = 200,
    limit: int | None = None,
    refine_steps: int | None = None,
    generations: int = GENERATIONS,
    fit_sampler: bool = False,
    own_metrics: Sequence[OwnMetric] = (),
    precision: str = "fp32",
    batch_size: int = 64,
    seed: int = 0,
    **opening: Unpack[Opening],
) -> Card:
    """Evaluate the best model of a run on a split of its data, and save the card.

    The card is saved as ``RUN/metrics/SPLIT.json``, or as ``SPLIT-refineN.json`` if
    ``refine_steps`` is given. For a file of new examples, SPLIT is the name of the file,
    with ``-given-CONDITION`` if one is given.

    Args:
        run: A run folder.
        condition: For a model that is conditioned on labels or numbers: that of all examples in a
            file of new ones; None: those in the file.
        split: Which split to evaluate.
        samples: Samples K of the importance-weighted bound; 0 skips it.
        limit: Evaluate at most ``limit`` examples, evenly spaced; the card is then saved as
            ``SPLIT-limitN.json``.
        refine_steps: Gradient steps that refine q(z|x); None: as in training.
        generations: Sentences to reconstruct and to sample for BLEU, distinct-n, and self-BLEU, if
            the data is text; 0 skips them.
        fit_sampler: Whether to fit a sampler to the aggregate posterior first, as
            ``textvae.fit_sampler`` does. Without it, the card uses the one that was fitted before,
            if any.
        own_metrics: As for ``evaluate``.
        precision: The precision of matrix products: ``fp32`` or ``bf16``.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of all noise.
        opening: data, reading, device, model, as in ``Opening``.

    Returns:
        The card; ``print`` shows it.

    Raises:
        UserError: It is not a run folder, its data is missing or has changed, there is no such
            split, there is no such device, or a metric of your own failed.
    """
    _check_options(samples, limit, generations, precision, batch_size)
    check_own_metrics(own_metrics)
    opened = open_run(run, condition=condition, **opening)
    save = may_save(opened.folder, opened.is_foreign)
    chosen, model = opened.split(split), opened.model
    if fit_sampler:
        fit_opened(opened, batch_size=batch_size, seed=seed)
    figures = _figures(
        opened,
        chosen,
        limit=limit,
        generations=generations,
        own_metrics=own_metrics,
        precision=precision,
        samples=samples,
        refine_steps=refine_steps,
        batch_size=batch_size,
        seed=seed,
    )
    card = Card(
        model=opened.name if refine_steps is None else f"{opened.name}, {refine_steps} steps",
        split=opened.title(split),
        **figures,
        **_condition(opened),
        precision=precision,
        generations=generations,
        seed=seed,
        corpus_hash=chosen.content_hash,
        weights=opened.weights,
        commit=origin.commit(),
    )
    card.iw_by_example = figures.iw_by_example
    if save:
        name = _card_name(opened.title(split), refine_steps, limit)
        save_card(opened.folder, name, card)
        if name == "test":
            with not_saved_with_a_warning():
                model.write_card(opened.folder)
    return card


def _figures(
    opened: OpenRun,
    split: Split,
    *,
    limit: int | None,
    generations: int,
    own_metrics: Sequence[OwnMetric],
    precision: str,
    samples: int,
    refine_steps: int | None,
    batch_size: int,
    seed: int,
) -> Card:
    """Return the metrics of the card; the options are those of ``evaluate_run``."""
    model, rows = opened.model, rows_of(split, batch_size, limit)
    evaluated = spaced(len(split), limit)
    generated = evaluated[spaced(len(evaluated), generations)] if generations else []
    half = torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16")
    with half:
        return evaluate(
            model,
            lambda: (split.batch(batch) for batch in rows),
            samples=samples if model.latent_dim else 1,
            seed=seed,
            inference=model.inference_with(refine_steps),
            config=opened.config,
            training=read_training(opened.folder, opened.config, read_history(opened.folder)),
            generation=model.generation_metrics(
                split,
                [int(row) for row in generated],
                tokenized=opened.config.data.tokenized,
                seed=seed,
                refine_steps=refine_steps,
                batch_size=batch_size,
            ),
            progress=log_progress(np.concatenate([split.lengths[batch] for batch in rows])),
            own_metrics=own_metrics,
            pool=pool_of(opened, split, limit, refine_steps, seed=seed, batch_size=batch_size),
        )


def _condition(opened: OpenRun) -> dict[str, Any]:
    """Return what the examples are conditioned on, and the value if it is the same for all."""
    if opened.model.condition is None:
        return {}
    given = {} if opened.given is None else {"given": opened.given}
    return {"condition": opened.config.model.condition, **given}


def _card_name(title: str, refine_steps: int | None, limit: int | None) -> str:
    """Return what a card is saved as: a part of a split never in place of the whole."""
    refined = "" if refine_steps is None else f"-refine{refine_steps}"
    return title + refined + ("" if limit is None else f"-limit{limit}")


def _check_options(
    samples: int, limit: int | None, generations: int, precision: str, batch_size: int
) -> None:
    check_integers(0, samples=samples, generations=generations)
    check_integers(1, batch_size=batch_size)
    if limit is not None:
        check_integers(1, limit=limit)
    check_choice(("fp32", "bf16"), precision=precision)
