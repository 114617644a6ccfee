"""The user's own metrics on a card: how they are shown, next to those of the table of metrics.

A card says which of its metrics are the user's own:

    own_metrics        the function that a metric was computed by, by the key of the metric
    own_metric_code    a hash of the source of every function, by its name

A metric whose key ends in ``_se`` is the standard error of another one, and is shown with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from textvae.evaluation.metrics.metric import Metric
from textvae.evaluation.metrics.table import METRICS, NUMBERS

OWN, CODE = "own_metrics", "own_metric_code"
ERROR = "_se"  # ends the key of a standard error


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
    own = {key: function for key, function in functions.items() if key not in NUMBERS}
    errors = {key + ERROR for key in own} & own.keys()
    shown = [
        _shown(key, function, key + ERROR if key + ERROR in errors else None)
        for key, function in own.items()
        if key not in errors
    ]
    return (*METRICS, *shown)


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


def _shown(key: str, function: str, error: str | None) -> Metric:
    help = f"Your own metric: computed by {function}."
    header = key.replace("_", " ")
    return Metric(key, header, "", help, "own", digits=3, column="if present", error=error)
