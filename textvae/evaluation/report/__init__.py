"""A report: one run, or several side by side, as a single HTML file.

The file needs no network and no scripts. It is a function of the runs, the options, and the seed.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from textvae.errors import UserError, quantity
from textvae.evaluation.comparison.compare import Table, tabulate
from textvae.evaluation.comparison.gains import add_gains_over_language_model
from textvae.evaluation.comparison.marks import Style, styles
from textvae.evaluation.comparison.rate_distortion import point_of
from textvae.evaluation.comparison.seeds import average_cards, experiments_of
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.metrics.card_files import read_cards, run_folders
from textvae.evaluation.report.contents import Contents, read_contents
from textvae.evaluation.report.exhibits import STEPS
from textvae.evaluation.report.figures import Line, draw_curves, draw_information, draw_models
from textvae.evaluation.report.page import render
from textvae.evaluation.report.view import MAPPED, View, kl_records, make_view
from textvae.runs.files import check_writable, write_text
from textvae.runs.run_folder import config_path, make_folder
from textvae.vae.model import Model

logger = logging.getLogger(__name__)


def report(
    runs: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    split: str = "test",
    models: Mapping[Any, Model] | None = None,
    data: Path | str | None = None,
    device: str | torch.device | None = None,
    limit: int = 1000,
    samples: int = 200,
    fit_sampler: bool = False,
    batch_size: int = 64,
    seed: int = 0,
) -> None:
    """Write a report about one run, or a comparison of several, as an HTML file.

    A run without a metrics card for the split is evaluated first, as by ``evaluate_run``. A saved
    diagnosis is used if it is of the same model and examples as the card.

    Args:
        runs: Run folders. Metrics cards (.json) and published rows (.yaml) among them appear in the
            table and in the rate-distortion plane only.
        out: The .html file to write.
        split: The split that was evaluated, and that examples are taken from.
        models: Models to use instead of those in the folders, by the run as it is given: those of a
            class of your own, as from ``MyVAE.from_pretrained``.
        data: Where the data is, if it has moved since training.
        device: Where to compute; None: a GPU if there is one.
        limit: Number of examples for what is not on the card: the diagnosis, the map, and the most
            and least compressible examples.
        samples: Samples K of the importance-weighted bound, for runs that are evaluated first.
        fit_sampler: Whether to fit a sampler to the aggregate posterior of each run first, as
            ``textvae.fit_sampler`` does. Without it, samples are shown from the one that was fitted
            before, if any.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of all noise.

    Raises:
        UserError: There is no run, one of them cannot be opened, a record is broken, the file
            cannot be written, or there is a model for something else than these runs.
    """
    path = Path(out)
    given = run_folders([runs] if isinstance(runs, (str, Path)) else runs)
    own = {str(run): model for run, model in (models or {}).items()}
    _check(path, given, own)
    options: dict[str, Any] = {"data": data, "device": device, "split": split, "limit": limit}
    options |= {"samples": samples, "fit_sampler": fit_sampler}
    options |= {"batch_size": batch_size, "seed": seed}
    found: list[Contents | Mapping[str, Any]] = []
    for each in given:
        if not Path(each).is_dir():
            found += read_cards(each, split)
            continue
        logger.info("reading %s", each)
        found.append(read_contents(Path(each), model=own.get(str(each)), **options))
    write_text(path, render(_values(found, split, seed)))


def _check(path: Path, given: Sequence[Path | str], own: Collection[str]) -> None:
    """Check what can be checked before the work.

    Raises:
        UserError: There is no run, the file cannot be written, or a model is of none of the runs.
    """
    if path.suffix.lower() != ".html":
        raise UserError(f"{str(path)!r}: a report is written as .html")
    if path.is_dir():
        raise UserError(f"{path} is a folder: choose a file for the report")
    check_writable(path)
    make_folder(path.parent)
    folders = [Path(each) for each in given if Path(each).is_dir()]
    for folder in folders:
        config_path(folder)
    for each in given:
        if not Path(each).is_dir():
            read_cards(each)
    if not folders:
        raise UserError("nothing to report: give one or more run folders")
    if unknown := sorted(set(own) - {str(folder) for folder in given}):
        raise UserError(f"models has {unknown[0]!r}, which is none of the runs")


class Entry(NamedTuple):
    """A model in a legend."""

    name: str
    style: Style


def _values(found: Sequence[Contents | Mapping[str, Any]], split: str, seed: int) -> dict[str, Any]:
    """Return what the template needs."""
    contents = [each for each in found if isinstance(each, Contents)]
    names = iter(_names(contents))
    cards = [Card.of(each.card if isinstance(each, Contents) else each) for each in found]
    for card, each in zip(cards, found, strict=True):
        if isinstance(each, Contents):
            card["model"] = next(names)
    own = [card for card, each in zip(cards, found, strict=True) if isinstance(each, Contents)]
    means = _means_over_seeds(contents, own)
    add_gains_over_language_model(cards)
    models = [Entry(str(c["model"]), look) for c, look in zip(cards, styles(cards), strict=True)]
    of_runs = [m for m, each in zip(models, found, strict=True) if isinstance(each, Contents)]
    kls = [kl for each in contents for record in kl_records(each) for kl in record["kl_per_dim"]]
    highest = max((kl for kl in kls if kl is not None), default=0.0)
    views = [
        make_view(each, place, *model, highest, seed)
        for place, (each, model) in enumerate(zip(contents, of_runs, strict=True))
    ]
    latent = [view for view in views if view.has_latent]
    compared = bool(latent) and len(cards) > 1
    information, informed = draw_information(cards) if compared else (None, [])
    return {
        "runs": views,
        "models": models,
        "drawn": [
            model
            for model, card in zip(models, cards, strict=True)
            if point_of(card) is not None or card in informed
        ],
        "title": views[0].name if len(views) == 1 else f"Comparison of {len(views)} runs",
        "examined": _examined(latent),
        "split": split,
        "seed": seed,
        "steps": STEPS,
        "table": tabulate(cards),
        "means": means,
        "has_language_model": any(card.get("latent_dim") == 0 for card in cards),
        "curves": draw_curves(
            [
                Line(each.train, each.valid, view.style, view.has_latent)
                for each, view in zip(contents, views, strict=True)
            ]
        ),
        "dimensions": [view for view in views if view.by_dimension],
        "plane": draw_models(cards) if compared else None,
        "information": information,
        "groups": _groups(latent),
        "mapped": max(
            (min(MAPPED, view.contents.exhibits.costs.measured) for view in latent if view.map),
            default=0,
        ),
        "labeled": any(view.labels for view in latent),
        "same_labels": len(latent) > 1 and all(view.labels == latent[0].labels for view in latent),
        "flattened": any(view.contents.card["latent_dim"] > 2 for view in latent),
        "fitted": any("aggregate" in view.contents.exhibits.samples for view in latent),
        "unfitted": [view.name for view in latent if view.contents.can_fit],
    }


def _examined(views: Sequence[View]) -> str:
    """Say how many examples the verdicts are from, if they are fewer than those of the metrics."""
    counts = {view.diagnosed for view in views if view.diagnosed < view.contents.card["count"]}
    if len(counts) != 1:
        return ""
    (count,) = counts
    limit = f"their MI is at most {math.log(max(1, count)):.2f} nats"
    return f"From {quantity(count, 'example')}, evenly spaced: {limit}."


def _means_over_seeds(contents: Sequence[Contents], cards: Sequence[Card]) -> Table | None:
    """Return a table of the runs with the mean of those that differ only in their seed.

    It is None if there are none, or if they cannot be averaged: one seed twice, different samples.
    """
    groups: dict[str, list[Card]] = {}
    try:
        experiments = experiments_of([each.folder for each in contents])
        for experiment, card in zip(experiments, cards, strict=True):
            groups.setdefault(experiment, []).append(card)
        means = [average_cards(group) for group in groups.values()]
    except UserError as error:
        logger.info("no means over seeds: %s", error)
        return None
    if len(means) == len(contents):
        return None
    add_gains_over_language_model(means)
    return tabulate(means)


def _names(contents: Sequence[Contents]) -> list[str]:
    """Return a name for every run: that of its folder, or the whole path if two are the same."""
    counts = Counter(each.name for each in contents)
    return [each.name if counts[each.name] == 1 else each.folder for each in contents]


def _groups(views: Sequence[View]) -> list[list[View]]:
    """Group runs that reconstruct the same examples."""
    groups: dict[str, list[View]] = {}
    for view in views:
        groups.setdefault(view.contents.content_hash, []).append(view)
    return list(groups.values())
