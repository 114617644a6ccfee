"""Runs as rows of numbers, for one's own tables and pictures: one flat record per run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from textvae.config.experiment import PLACES, Config, option_names, options_read
from textvae.errors import UserError
from textvae.evaluation.comparison.compare import check_columns, gather
from textvae.evaluation.metrics.card_files import run_folders
from textvae.evaluation.metrics.own import numbers_of
from textvae.runs.run_folder import config_path

LEFT_OUT = ("train.seed", *(f"data.{name}" for name in PLACES))


def results(
    runs: Path | str | Iterable[Path | str],
    split: str = "test",
    *,
    baseline: Path | str | None = None,
    columns: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Return one flat record per run: its folder, seed, differing options, and metrics.

    ``pandas.DataFrame(textvae.results("runs/sizes"))`` is a table of a sweep.

    Args:
        runs: Run folders, or a folder of runs, such as that of ``textvae sweep``.
        split: The split that was evaluated.
        baseline: As in ``compare``: adds ``iw_gain``.
        columns: The metrics to return, by their keys; all by default.

    Returns:
        Dictionaries with the same keys: ``run``, ``seed`` of the training, the options in which
        the runs differ (``model.latent_dim``), and every metric that one of them has, unrounded;
        None where a run does not have it.

    Raises:
        UserError: A folder is not a run, it has no metrics for the split, or there is no such
            metric.
    """
    folders = _folders(runs)
    cards = gather(folders, split, baseline=baseline)
    configs = [Config.load(config_path(folder)) for folder in folders]
    options = [_options(config) for config in configs]
    names = dict.fromkeys(name for each in options for name in each)
    differing = [name for name in names if len({str(each.get(name)) for each in options}) > 1]
    check_columns(columns, cards)
    known = sorted(frozenset().union(*map(numbers_of, cards)))
    wanted = known if columns is None else [key for key in known if key in columns]
    metrics = [key for key in wanted if any(card.get(key) is not None for card in cards)]
    return [
        {"run": str(folder), "seed": config.train.seed}
        | {name: each.get(name) for name in differing}
        | {key: card.get(key) for key in metrics}
        for folder, config, each, card in zip(folders, configs, options, cards, strict=True)
    ]


def as_csv(records: Sequence[dict[str, Any]]) -> str:
    """Return records with the same keys as CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _folders(runs: Path | str | Iterable[Path | str]) -> list[Path]:
    if isinstance(runs, str | Path):
        runs = [runs]
    if not isinstance(runs, Iterable):
        raise TypeError(f"runs must be a folder or a list of folders, not {runs!r:.50}")
    folders = [Path(run) for run in run_folders(runs)]
    if not folders:
        raise UserError("there are no runs: give one or more run folders")
    return folders


def _options(config: Config) -> dict[str, Any]:
    """Return the options of a run by name, without its seed and the places of its files."""
    found = {}
    for option in option_names(options_read(config)):
        section, name = option.split(".")
        if option not in LEFT_OUT:
            found[option] = getattr(getattr(config, section), name)
    return found
