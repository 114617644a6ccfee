"""Examine a latent variable, judge it, and say what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from textvae.config.arguments import check_integers
from textvae.config.inference import Inference
from textvae.errors import UserError
from textvae.evaluation.diagnosis.history import History
from textvae.evaluation.diagnosis.judge import dimension_states, judge, too_few
from textvae.evaluation.diagnosis.remedies import remedies_for
from textvae.evaluation.diagnosis.remedy import UNKNOWN, Case
from textvae.evaluation.diagnosis.result import Diagnosis, Dimension, Evidence
from textvae.evaluation.examination import (
    Batches,
    Examination,
    check_model,
    examine,
    is_negative,
    repeatable,
    why_wrong,
)
from textvae.evaluation.intervals import Interval, of_means
from textvae.evaluation.metrics.table import BY_KEY
from textvae.evaluation.shuffle import dimension_gaps
from textvae.evaluation.symptoms import Symptoms
from textvae.vae.inference import inference_of
from textvae.vae.modes import undisturbed

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
    inference: Inference | None = None,
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
        batches: Every row of the dataset once, in any order, as ``Batch`` objects, or as plain
            tensors x, whose rows are numbered in the order given; or a function that returns them.
        samples: Draws of z per example for the reconstruction term.
        seed: Seed of all noise.
        inference: How q(z|x) is found; by default, as the model was trained (``TextVAE``,
            ``ImageVAE``), or by the encoder alone.
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
    return diagnose_case(
        model,
        batches,
        Case(UNKNOWN),
        samples=samples,
        seed=seed,
        inference=inference_of(model, inference),
        baseline=baseline,
        progress=progress,
        max_symbols=max_symbols,
    )


def diagnose_case(
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
    """Diagnose a model about which more is known than its metrics.

    Args:
        model: As in ``diagnose``.
        batches: As in ``diagnose``.
        case: What is known about its training.
        seed: Seed of all noise.
        baseline: As in ``diagnose``.
        name: What the model is called.
        split: What the examples are called.
        history: How its metrics changed in training.
        options: The other options of ``diagnose``.
    """
    found, symptoms = _examined(model, batches, name or "the model", seed, baseline, **options)
    findings, states = judge(symptoms, case.training), dimension_states(symptoms)
    case = with_measurements(case, states, found.card)
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


def with_measurements(case: Case, states: Sequence[str], card: Mapping[str, Any]) -> Case:
    """Add what remedies depend on: the states of the dimensions, and the best refinement step."""
    path = card.get("elbo_by_step")
    best = path.index(max(path)) if path else None
    return case._replace(alive=len(states) - states.count("dead"), best_steps=best)


def _examined(
    model: Any,
    batches: Batches,
    name: str,
    seed: int,
    baseline: Tensor | None,
    max_symbols: int | None = None,
    samples: int = 20,
    **options: Any,
) -> tuple[Examination, Symptoms]:
    check_model(model)
    check_integers(1, samples=samples)
    if not model.prior.latent_dim:
        raise UserError(
            f"{name} has no latent variable (latent_dim 0): there is nothing to diagnose"
        )
    source = repeatable(batches)
    with undisturbed(model, seed), torch.no_grad():
        found = examine(
            model, source, samples=samples, seed=seed, max_symbols=max_symbols, **options
        )
        gaps = dimension_gaps(model, source(), found.stats, seed, max_symbols)
    if found.symptoms is None or not math.isfinite(found.card["elbo"]):
        raise UserError(f"the ELBO of {name} is {found.card['elbo']}: it cannot be diagnosed")
    if is_negative(found.stats.total_kl):
        raise UserError(f"{name} cannot be diagnosed: {why_wrong(found.card['kl'])}")
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
    pair = of_means(torch.stack([gain, gain - stats.total_kl], 1), seed)
    return dict(zip(("rec_gain", "elbo_gain"), pair, strict=True))


def _evidence(symptoms: Symptoms) -> tuple[Evidence, ...]:
    rows = []
    for key in SHOWN:
        # KL - MI of a few examples is all KL, and has no interval that would say so.
        hidden = key == "marginal_kl" and too_few(symptoms)
        if key in symptoms.figures and not hidden:
            name, unit = NAMES[key] if key in NAMES else (BY_KEY[key].header, BY_KEY[key].unit)
            value, low, high = symptoms.figures[key]
            ends = (math.nan, math.nan) if too_few(symptoms) else (low, high)
            rows.append(Evidence(key, name, value, *ends, unit))
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
