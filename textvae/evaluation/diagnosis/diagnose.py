"""``textvae diagnose``: examine a latent variable, judge it, and say what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textvae.config.inference import AMORTIZED, Inference
from textvae.errors import UserError
from textvae.evaluation.card import Batches, Examination, examine, repeatable
from textvae.evaluation.card_files import prepare_to_save, save_record
from textvae.evaluation.diagnosis.history import History, read_history, read_training
from textvae.evaluation.diagnosis.judge import dimension_states, judge
from textvae.evaluation.diagnosis.remedies import remedies_for
from textvae.evaluation.diagnosis.remedy import UNKNOWN, Case
from textvae.evaluation.diagnosis.result import Diagnosis, Dimension, Evidence
from textvae.evaluation.diagnosis.saved_diagnosis import diagnosis_name
from textvae.evaluation.diagnosis.shuffle import dimension_gaps
from textvae.evaluation.diagnosis.symptoms import Symptoms
from textvae.evaluation.intervals import Interval, of_means
from textvae.evaluation.metrics import BY_KEY
from textvae.evaluation.open_run import OpenRun, open_run, rows_of, run_config
from textvae.evaluation.per_example import collect, log_progress
from textvae.runs import run_folder
from textvae.vae.batch import Split
from textvae.vae.inference import undisturbed
from textvae.vae.model import Model

NO_HISTORY = History()
SHOWN = (
    *("elbo", "rec", "kl", "encoder_kl", "mi", "encoder_mi", "au", "encoder_au", "shuffle_gap"),
    *("marginal_kl", "hole_share", "gap", "overshoot", "rec_gain", "elbo_gain"),
)
NAMES = {
    "encoder_kl": ("KL before refinement", "nats per example"),
    "encoder_mi": ("MI before refinement", "nats"),
    "encoder_au": ("AU before refinement", "dimensions"),
    "overshoot": ("last step - best step", "nats per example"),
    "rec_gain": ("rec - baseline", "nats per example"),
    "elbo_gain": ("ELBO - baseline", "nats per example"),
}


def diagnose(
    model: nn.Module,
    batches: Batches,
    *,
    samples: int = 20,
    seed: int = 0,
    inference: Inference = AMORTIZED,
    baseline: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
    max_symbols: int | None = None,
) -> Diagnosis:
    """Say whether the latent variable of a model is used and, if not, what is wrong with it.

    It works with any ``VAE``, or any module with the attributes of
    ``textvae.vae.contracts.LatentModel``. The global random state and the train/eval mode of the
    model do not change.

    Args:
        model: The model.
        batches: Every row of the data set once, in any order, as ``Batch`` objects, or as plain
            tensors x, whose rows are numbered in the order given; or a function that returns them.
        samples: Draws of z per example for the reconstruction term.
        seed: Seed of all noise.
        inference: How q(z|x) is found.
        baseline: (N,) log p(x) in nats of a model without a latent variable, in the order of the
            rows, to compare the reconstruction term and the ELBO with.
        progress: Called with the number of examples done.
        max_symbols: Maximum number of symbols decoded at once; limits memory. The default depends
            on the device.

    Returns:
        The diagnosis; ``print`` shows it.

    Raises:
        UserError: The model has no latent variable, or the baseline has another number of examples.
        ValueError: There are no examples, or a row occurs twice.
    """
    return _diagnose(
        model,
        batches,
        Case(UNKNOWN),
        samples=samples,
        seed=seed,
        inference=inference,
        baseline=baseline,
        progress=progress,
        max_symbols=max_symbols,
    )


def _diagnose(
    model: Any,
    batches: Batches,
    case: Case,
    *,
    seed: int,
    baseline: Tensor | None = None,
    name: str = "",
    split: str = "",
    history: History = NO_HISTORY,
    **options: Any,
) -> Diagnosis:
    found, symptoms = _examined(model, batches, name or "the model", seed, baseline, **options)
    findings, states = judge(symptoms, case.training), dimension_states(symptoms)
    path = found.card.get("elbo_by_step") or [0.0]
    case = case._replace(alive=len(states) - states.count("dead"), best_steps=path.index(max(path)))
    return Diagnosis(
        verdict=findings[0].verdict,
        summary=findings[0].summary,
        model=name,
        split=split,
        count=symptoms.count,
        findings=tuple(findings),
        evidence=_evidence(symptoms),
        dimensions=_dimensions(found, symptoms, states, history),
        history=history,
        remedies=remedies_for(findings[0].verdict, case),
    )


def _examined(
    model: Any,
    batches: Batches,
    name: str,
    seed: int,
    baseline: Tensor | None,
    max_symbols: int | None = None,
    **options: Any,
) -> tuple[Examination, Symptoms]:
    if not model.prior.latent_dim:
        raise UserError(
            f"{name} has no latent variable (latent_dim 0): there is nothing to diagnose"
        )
    source = repeatable(batches)
    with undisturbed(model, seed), torch.no_grad():
        found = examine(model, source, seed=seed, max_symbols=max_symbols, **options)
        gaps = dimension_gaps(model, source(), found.stats, seed, max_symbols)
    if found.symptoms is None or not math.isfinite(found.card["elbo"]):
        raise UserError(f"the ELBO of {name} is {found.card['elbo']}: it cannot be diagnosed")
    return found, replace(
        found.symptoms,
        figures=found.symptoms.figures | _compared(found, baseline, seed),
        dimension_gaps=None if gaps is None else of_means(gaps, seed),
    )


def _compared(found: Examination, baseline: Tensor | None, seed: int) -> dict[str, Interval]:
    """Compare with log p(x) of another model, example by example."""
    if baseline is None:
        return {}
    stats = found.stats
    if baseline.shape != stats.rec.shape:
        raise UserError(
            f"the baseline has log p(x) of {len(baseline)} examples, and there are {len(stats.rec)}"
        )
    gain = stats.rec.double() - baseline.double().cpu()
    pair = of_means(torch.stack([gain, gain - stats.kl.double().sum(1)], 1), seed)
    return dict(zip(("rec_gain", "elbo_gain"), pair, strict=True))


def _evidence(symptoms: Symptoms) -> tuple[Evidence, ...]:
    rows = []
    for key in SHOWN:
        if key in symptoms.figures:
            name, unit = NAMES[key] if key in NAMES else (BY_KEY[key].header, BY_KEY[key].unit)
            rows.append(Evidence(key, name, *symptoms.figures[key], unit))
    return tuple(rows)


def _dimensions(
    found: Examination, symptoms: Symptoms, states: Sequence[str], history: History
) -> tuple[Dimension, ...]:
    stats, gaps, aggregate = found.stats, symptoms.dimension_gaps, found.marginal_kls
    kl = stats.own_kl if "encoder_kl" in symptoms.figures else stats.kl  # (N, Z) or (N, 1)
    kls = kl.double().mean(0).tolist() if kl.size(1) == len(states) else [None] * len(states)
    return tuple(
        Dimension(
            number=d,
            state=state,
            kl=kls[d],
            variance=symptoms.variances[d].value,
            shuffle_gap=None if gaps is None else gaps[d].value,
            aggregate_kl=None if aggregate is None else float(aggregate[d]),
            died=history.died(d) if state == "dead" and kls[d] is not None else None,
        )
        for d, state in enumerate(states)
    )


def diagnose_run(
    run: Path | str,
    *,
    data: Path | str | None = None,
    reading: Mapping[str, Any] | None = None,
    condition: str | float | None = None,
    device: str | torch.device | None = None,
    model: Model | None = None,
    split: str = "test",
    baseline: Path | str | None = None,
    samples: int = 20,
    limit: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> Diagnosis:
    """Diagnose the best model of a run, and save the result in its folder.

    It is saved as ``RUN/metrics/SPLIT-diagnosis.json``; for a file of new examples, SPLIT is the
    name of the file.

    Args:
        run: A run folder.
        data: Where the data is, if it has moved since the training; or a file of new examples.
        reading: Options of the section ``data`` that differ for these files, such as text_column.
        condition: For a model that is conditioned on labels or numbers: that of all examples in a
            file of new ones; None: those in the file.
        device: Where to compute; None: a GPU if there is one.
        model: A model to use instead of the one in the folder.
        split: Which split to examine.
        baseline: The run of a language model trained on the same data, to compare with.
        samples: Draws of z per example for the reconstruction term.
        limit: Examine at most ``limit`` examples, evenly spaced; the result is then saved as
            ``SPLIT-diagnosis-limitN.json``.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of all noise.

    Returns:
        The diagnosis; ``print`` shows it.

    Raises:
        UserError: It is not a run folder, its model has no latent variable, its data is missing or
            has changed, there is no such split, or the baseline is no language model of the same
            data.
    """
    for option, value in (("samples", samples), ("limit", limit), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise UserError(f"{option}={value}: must be at least 1")
    opened = open_run(
        run, data=data, reading=reading, condition=condition, device=device, model=model
    )
    prepare_to_save(opened.folder)
    chosen, history = opened.split(split), read_history(opened.folder)
    rows = rows_of(chosen, batch_size, limit)
    reference = None
    if baseline is not None:
        other = _open_baseline(baseline, opened, reading, condition)
        reference = _log_p(other, opened, chosen, rows, seed)
    found = _diagnose(
        opened.model,
        lambda: (chosen.batch(batch) for batch in rows),
        Case(
            opened.config,
            read_training(opened.folder, opened.config, history),
            larger_split=_larger(opened, split),
            run=Path(run),
            data=None if data is None or opened.new else str(data),
        ),
        samples=samples,
        seed=seed,
        inference=opened.model.inference_with(None),
        baseline=reference,
        progress=log_progress(np.concatenate([chosen.lengths[batch] for batch in rows])),
        name=opened.name,
        split=opened.title(split),
        history=history,
    )
    record = {"seed": seed, "corpus_hash": chosen.content_hash, "commit": run_folder.commit()}
    save_record(opened.folder, diagnosis_name(opened.title(split), limit), found.to_dict() | record)
    return found


def _open_baseline(
    run: Path | str,
    opened: OpenRun,
    reading: Mapping[str, Any] | None,
    condition: str | float | None,
) -> OpenRun:
    """Open a language model with the data of another run."""
    conditional = run_config(Path(run)).model.condition != "none"
    baseline = open_run(
        run,
        data=opened.config.data.dir,
        reading=reading,
        condition=condition if conditional else None,
        device=opened.model.device,
    )
    if baseline.model.latent_dim:
        raise UserError(
            f"{run} has a latent variable: a baseline is a language model (latent_dim 0)"
        )
    return baseline


def _log_p(
    baseline: OpenRun, opened: OpenRun, split: Split, rows: Sequence[np.ndarray], seed: int
) -> Tensor:
    """Compute log p(x) of the same examples under a language model, (N,) nats."""
    same = [s for s in baseline.splits.values() if s.content_hash == split.content_hash]
    if not same:
        raise UserError(
            f"{baseline.folder} was not trained on the data of {opened.folder}: choose another"
        )
    with undisturbed(baseline.model, seed), torch.no_grad():
        return collect(baseline.model, (same[0].batch(batch) for batch in rows), 1, seed).rec


def _larger(opened: OpenRun, split: str) -> str | None:
    largest = max(opened.splits, key=lambda name: len(opened.splits[name]))
    return largest if len(opened.splits[largest]) > len(opened.splits[split]) else None
