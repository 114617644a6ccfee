"""Everything that a report says about one run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.evaluation.bounds.run_bounds import load_bounds
from textvae.evaluation.diagnosis.result import Diagnosis
from textvae.evaluation.diagnosis.run_diagnosis import diagnose_run, with_current_remedies
from textvae.evaluation.diagnosis.saved_diagnosis import load_diagnosis
from textvae.evaluation.evaluate_run import evaluate_run
from textvae.evaluation.latent.fit_sampler import fit_opened
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.metrics.card_files import find_card
from textvae.evaluation.metrics.metric import clock
from textvae.evaluation.open_run import OpenRun, open_run
from textvae.evaluation.report.exhibits import Exhibits, exhibit
from textvae.runs.files import quoted, read_if_there
from textvae.runs.model_folder import VERSIONS, metrics_path
from textvae.runs.run_folder import SUMMARY, read_log
from textvae.vae.model import Model

logger = logging.getLogger(__name__)
SOFTWARE = ("textvae", "torch", "python")


class Origin(NamedTuple):
    """Where a run comes from and what it cost."""

    commands: str
    facts: dict[str, str]
    config: str  # YAML


class Contents(NamedTuple):
    """Everything about one run."""

    name: str
    folder: str
    about: str  # a sentence
    card: Card
    diagnosis: Diagnosis | None  # None without a latent variable
    train: list[dict[str, Any]]
    valid: list[dict[str, Any]]
    exhibits: Exhibits
    label_names: list[str] | None
    content_hash: str  # of the split
    can_fit: bool  # whether a sampler could be fitted, and none was
    bounds: dict[str, Any]  # the record of textvae bounds; empty if there is none
    origin: Origin


def read_contents(
    folder: Path,
    *,
    split: str,
    model: Model | None,
    data: Path | str | None,
    device: str | torch.device | None,
    limit: int,
    samples: int,
    fit_sampler: bool,
    batch_size: int,
    seed: int,
) -> Contents:
    """Read what a run recorded, and compute what it did not.

    Args:
        folder: The run folder.
        split: The split that was evaluated, and that examples are taken from.
        model: A model to use instead of the one in the folder.
        data: Where the data is, if it has moved since training.
        device: Where to compute; None: a GPU if there is one.
        limit: Number of examples to diagnose, to encode, and to score.
        samples: Samples K of the importance-weighted bound, if there is no card yet.
        fit_sampler: Whether to fit a sampler to the aggregate posterior first.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of all noise.

    Raises:
        UserError: The run cannot be opened, ``data`` is new examples, a record is broken, or there
            is no such split.
    """
    opened = open_run(folder, data=data, device=device, model=model)
    if opened.new is not None:
        raise UserError(
            f"{data} is not the data that {folder} was trained on, which a report is about: "
            "for new examples, use textvae evaluate or textvae diagnose with --data"
        )
    chosen = opened.split(split)
    model = opened.model
    can_fit = bool(model.latent_dim) and not model.on_sphere
    if fit_sampler and can_fit:
        fit_opened(opened, batch_size=batch_size, seed=seed)
    elif fit_sampler:
        why = "its z lies on a sphere" if model.latent_dim else "it has no latent variable"
        logger.info("%s: no sampler to fit, since %s", opened.name, why)
    card = _card(opened, split, data=data, samples=samples, batch_size=batch_size, seed=seed)
    log = read_log(folder)
    return Contents(
        name=opened.name,
        folder=str(folder),
        about=model.describe().kind,
        card=card,
        diagnosis=_diagnosis(
            opened, card, limit=limit, data=data, batch_size=batch_size, seed=seed
        ),
        train=[record for record in log if record.get("group") == "train"],
        valid=[record for record in log if record.get("group") == "valid"],
        exhibits=exhibit(model, chosen, limit=limit, seed=seed, batch_size=batch_size),
        label_names=chosen.label_names,
        content_hash=chosen.content_hash,
        can_fit=can_fit and model.sampler is None,
        bounds=load_bounds(opened.folder, split),
        origin=_origin(folder, opened.config, card),
    )


def _card(opened: OpenRun, split: str, **options: Any) -> Card:
    """Return the card of a run; compute and save it if there is none."""
    if metrics_path(opened.folder, split).exists():
        card = find_card(opened.folder, split)
        if not card.get("stale"):
            return card
    logger.info(
        "%s has no metrics card of these weights for %r: computing it, as textvae evaluate %s "
        "--split %s does",
        *(opened.name, split, quoted(opened.folder), split),
    )
    return evaluate_run(opened.folder, model=opened.model, split=split, **options)


def _diagnosis(
    opened: OpenRun, card: Mapping[str, Any], *, limit: int, **options: Any
) -> Diagnosis | None:
    """Return the diagnosis of a run; compute and save it if there is none of this model."""
    if not opened.model.latent_dim:
        return None
    split = str(card["split"])
    some = limit if limit < len(opened.split(split)) else None
    for of in (None, some):  # one of all examples is as good
        if saved := load_diagnosis(opened.folder, split, card, of):
            return with_current_remedies(saved, opened, card, of, options["data"])
    logger.info("diagnosing %s, as textvae diagnose does", opened.name)
    return diagnose_run(opened.folder, model=opened.model, split=split, limit=some, **options)


def _origin(folder: Path, config: Config, card: Mapping[str, Any]) -> Origin:
    versions, training = (read_if_there(folder / name) for name in (VERSIONS, SUMMARY))
    memory = training.get("peak_memory_mb")
    found = {
        "Training": _joined(
            training.get("hours") is not None and clock(3600 * training["hours"]),
            _number(training.get("epochs"), "{:g} epochs"),
            _number(training.get("steps"), "{:,} steps"),
        ),
        "Peak memory": _number(memory, "{:,} MiB"),
        "Stopped because": training.get("finished") or ("not finished" if training else None),
        "Seed": str(config.train.seed),
        **{f"Own {part}": name for part, name in (training.get("own_parts") or {}).items()},
        "Machine": _joined(
            versions.get("device"),
            _number(versions.get("threads"), "threads: {}"),
            versions.get("precision"),
        ),
        "Software": _joined(
            *(f"{name} {versions[name]}" for name in SOFTWARE if versions.get(name))
        ),
        "Commit": versions.get("commit"),
        "Data": str(config.data.dir),
        "Hash of the training split": versions.get("corpus_hash"),
        "Evaluation": _joined(
            _number(card.get("samples"), "K = {}"),
            _number(card.get("seed"), "seed {}"),
            card.get("precision"),
            _number(card.get("seconds"), "{:.0f} seconds"),
            card.get("commit") and f"commit {card['commit']}",
        ),
        f"Hash of the {card.get('split', 'evaluated')} split": card.get("corpus_hash"),
    }
    facts = {name: str(value) for name, value in found.items() if value}
    return Origin(str(versions.get("command") or ""), facts, config.to_yaml())


def _number(value: Any, form: str) -> str | None:
    return None if value is None else form.format(value)


def _joined(*parts: str | Literal[False] | None) -> str:
    return ", ".join(part for part in parts if part)
