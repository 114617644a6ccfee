"""The user's own metrics on a card: how they are shown, next to those of the table of metrics.

A card says which of its metrics are the user's own:

    own_metrics        the function that a metric was computed by, by the key of the metric
    own_metric_code    a hash of the source of every function, by its name
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from textvae.evaluation.metrics.metric import Metric
from textvae.evaluation.metrics.table import METRICS, NUMBERS

OWN, CODE = "own_metrics", "own_metric_code"


def own_keys(card: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys of a card's own metrics."""
    return frozenset(_functions(card))


def numbers_of(card: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys that are a number or null on this card, if it has them."""
    return NUMBERS | own_keys(card)


def metrics_of(cards: Iterable[Mapping[str, Any]]) -> tuple[Metric, ...]:
    """Return the metrics that some cards may have: those of all models, then the user's own."""
    functions: dict[str, str] = {}
    for card in cards:
        functions = _functions(card) | functions
    own = [_shown(key, function) for key, function in functions.items() if key not in NUMBERS]
    return (*METRICS, *own)


def own_metrics_of_different_code(cards: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of the own metrics that these cards did not compute by the same code."""
    codes: dict[str, set[str]] = {}
    for card in cards:
        hashes = card.get(CODE) or {}
        for key, function in _functions(card).items():
            codes.setdefault(key, set()).add(str(hashes.get(function)))
    return [key for key, found in codes.items() if len(found) > 1]


def _functions(card: Mapping[str, Any]) -> dict[str, str]:
    found = card.get(OWN)
    return dict(found) if isinstance(found, Mapping) else {}


def _shown(key: str, function: str) -> Metric:
    help = f"Your own metric: computed by {function}."
    return Metric(key, key.replace("_", " "), "", help, "own", digits=3, column="if present")
