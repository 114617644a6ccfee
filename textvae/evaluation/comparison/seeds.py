"""Runs that differ only in their seed: the mean and the spread of their metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from textvae.config.experiment import PLACES, Config
from textvae.config.sections import DataConfig
from textvae.errors import UserError
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.metrics.own import numbers_of, own_metrics_of_different_code
from textvae.evaluation.metrics.table import BY_KEY
from textvae.runs.files import read_if_there
from textvae.runs.run_folder import SUMMARY, config_path, split_hash

SEED_SUFFIX = r"-seed-\d+$"  # of the folder of a run of textvae sweep
SPREAD = "_spread"  # ends the key of a standard deviation over seeds
CONSTANTS = ("latent_dim", "samples", "count", "units", "refine_steps", "au_threshold")


def experiments_of(runs: Sequence[Path | str]) -> list[str]:
    """Return what is the same for runs that differ only in their seed: options, data, own parts.

    The same data may be in another place, and the number of threads may differ.

    Raises:
        UserError: Two runs of an experiment have the same seed, so that one would count twice.
    """
    configs = [Config.load(config_path(Path(run))) for run in runs]
    found = [_experiment(Path(run), config) for run, config in zip(runs, configs, strict=True)]
    seen: dict[tuple[str, int], Path | str] = {}
    for run, experiment, config in zip(runs, found, configs, strict=True):
        key = (experiment, config.train.seed)
        if key in seen:
            raise UserError(
                f"{seen[key]} and {run} are the same experiment with the same seed "
                f"{config.train.seed}: give one of them"
            )
        seen[key] = run
    return found


def _experiment(run: Path, config: Config) -> str:
    data, train = config.data, replace(config.train, seed=0, threads=None)
    content = split_hash(run)
    if content is not None:
        data = replace(data, **{name: getattr(DataConfig(), name) for name in PLACES})
    summary = read_if_there(run / SUMMARY)
    own = [summary.get(key) or {} for key in ("own_parts", "own_code")]
    return f"{replace(config, data=data, train=train).to_yaml()}data: {content}, own: {own}\n"


def average_cards(cards: Sequence[Mapping[str, Any]]) -> Card:
    """Return one card with the mean of every metric, and its standard deviation over the cards.

    Args:
        cards: The cards of runs that differ only in their seed.

    Returns:
        A card named after the first one. The standard deviation (dividing by the number of cards
        minus 1) has the key of the metric followed by ``_spread``. Anything else, such as an
        interval or the KL by dimension, is left out if it differs.

    Raises:
        UserError: The cards were not computed in the same way.
    """
    first = cards[0]
    if len(cards) == 1:
        return Card.of(first)
    name = re.sub(SEED_SUFFIX, "", str(first["model"]))
    for key in CONSTANTS:
        if len({card.get(key) for card in cards}) > 1:
            raise UserError(
                f"the runs of {name} have different values of {BY_KEY[key].header} "
                f"({', '.join(str(card.get(key)) for card in cards)}): evaluate all seeds alike"
            )
    for key, what in (("corpus_hash", "data"), ("precision", "precisions")):
        if len({card[key] for card in cards if card.get(key) is not None}) > 1:
            raise UserError(
                f"the runs of {name} were evaluated with different {what}: evaluate all seeds alike"
            )
    if differing := own_metrics_of_different_code(cards):
        raise UserError(
            f"{', '.join(differing)} of the runs of {name}: computed by different code; evaluate "
            "all seeds alike"
        )
    stale = any(card.get("stale") for card in cards)
    common = {
        key: value for key, value in first.items() if all(_same(key, c, first) for c in cards)
    }
    averaged = Card({**common, "model": f"{name} ({len(cards)} seeds)", "stale": stale})
    for key in numbers_of(first) & first.keys() - set(CONSTANTS):
        values = [card[key] for card in cards if card.get(key) is not None]
        if len(values) < len(cards):  # a mean over some of the seeds would mislead
            averaged[key] = None
        else:
            averaged[key], averaged[key + SPREAD] = mean(values), stdev(values)
    bounds = [getattr(card, "iw_by_example", None) for card in cards]
    known = [each for each in bounds if each is not None]
    averaged.iw_by_example = torch.stack(known).mean(0) if len(known) == len(cards) else None
    return averaged


def _same(key: str, card: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return key in card and card[key] == other[key]
