"""Metrics of the user's own: functions of a model and of the batches that it is evaluated on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor, nn

from textvae.builders.own_code import check_function, load_named, what_failed
from textvae.builders.own_names import hash_of, name_of
from textvae.errors import UserError
from textvae.evaluation.comparison.seeds import SPREAD
from textvae.evaluation.metrics.card_files import OF_A_ROW, is_number_of_a_card
from textvae.evaluation.metrics.own import CODE, ERROR, OWN
from textvae.evaluation.metrics.table import NOT_METRICS, NUMBERS
from textvae.vae.batch import Batch, device_of
from textvae.vae.modes import undisturbed

logger = logging.getLogger(__name__)

Figures = float | Mapping[str, float | None] | None
OwnMetric = Callable[[Any, Iterable[Batch]], Figures]
OPTION = "--own-metric"


class _Batches:
    """All batches on the device of the model, as often as they are asked for."""

    def __init__(self, source: Callable[[], Iterable[Batch]], model: nn.Module) -> None:
        self._source, self._device = source, device_of(model)

    def __iter__(self) -> Iterator[Batch]:
        return (batch.to(self._device) for batch in self._source())


def load_own_metrics(names: Sequence[str]) -> list[OwnMetric]:
    """Return metrics of the user's own, executing the files they are in.

    Args:
        names: ``file.py:name`` or ``module:name`` of every function.

    Raises:
        UserError: There is no such function, or it cannot be a metric.
    """
    found = [load_named(name, OPTION) for name in names]
    try:
        check_own_metrics(found)
    except TypeError as error:
        raise UserError(f"{OPTION}: {error}") from None
    return found


def check_own_metrics(metrics: Sequence[OwnMetric]) -> None:
    """Check metrics of the user's own before any work.

    Raises:
        TypeError: One of them is not a function of (model, batches), or has no name of its own.
    """
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        raise TypeError(f"own_metrics must be a list of functions, not {metrics!r:.50}")
    names = [_key_of(metric) for metric in metrics]
    for metric, name in zip(metrics, names, strict=True):
        if name == "<lambda>":
            raise TypeError("a metric of your own needs a name: define it with def, not lambda")
        check_function(metric, f"the metric {name}", "(model, batches)", (None, ()))
        if names.count(name) > 1:
            raise TypeError(
                f"two metrics of your own are called {name}: let one function return both, as a "
                "dict"
            )


def code_of_metrics(metrics: Sequence[OwnMetric]) -> dict[str, str | None]:
    """Return a hash of the source of every metric, by the name of its function."""
    return {name_of(metric): hash_of(metric) for metric in metrics}


def measure_own(
    metrics: Sequence[OwnMetric],
    model: nn.Module,
    source: Callable[[], Iterable[Batch]],
    seed: int,
) -> dict[str, Any]:
    """Compute metrics of the user's own, none of which influences another.

    Args:
        metrics: The functions. Each is called with the model, in evaluation mode, and with all
            batches, which it may go through as often as it likes. It returns a number, which has
            the name of the function; or numbers by name; None for what is meaningless for a model.
        model: The model.
        source: Returns the batches.
        seed: Seed of torch's random numbers for each.

    Returns:
        The metrics, and where they come from, as on a card (``textvae.evaluation.metrics.own``).

    Raises:
        UserError: A function failed, or returned something else.
    """
    figures: dict[str, float | None] = {}
    functions: dict[str, str] = {}
    for metric in metrics:
        name = name_of(metric)
        logger.info("computing %s", name)
        try:
            with undisturbed(model, seed):
                returned = metric(model, _Batches(source, model))
        except (Exception, SystemExit) as error:  # anything can go wrong in the user's code
            raise UserError(f"{OPTION} {name}: {what_failed(error)}") from error
        for key, value in _by_key(returned, metric).items():
            _check_key(key, name, functions)
            figures[key], functions[key] = _number(value, key, name), name
    return figures | {OWN: functions, CODE: code_of_metrics(metrics)} if metrics else {}


def _key_of(metric: OwnMetric) -> str:
    """Return what a function is called without its module."""
    while isinstance(metric, partial):
        metric = metric.func
    return str(getattr(metric, "__name__", type(metric).__name__))


def _by_key(returned: Any, metric: OwnMetric) -> Mapping[Any, Any]:
    return returned if isinstance(returned, Mapping) else {_key_of(metric): returned}


def _check_key(key: Any, name: str, known: Mapping[str, str]) -> None:
    """Check what a metric is called on the card.

    Raises:
        UserError: It cannot be called that, or another metric is.
    """
    if not isinstance(key, str) or not key.isidentifier():
        raise UserError(
            f"{OPTION} {name} returned a metric called {key!r:.50}: use letters, digits, and _"
        )
    taken = NUMBERS | NOT_METRICS | OF_A_ROW
    if not taken.isdisjoint((key, key.removesuffix(ERROR))) or key.endswith(SPREAD):
        raise UserError(
            f"{OPTION} {name}: {key} is a metric or a setting of every card: choose another name"
        )
    if key in known:
        raise UserError(f"{OPTION} {name} and {known[key]} both return {key}: rename one")


def _number(value: Any, key: str, name: str) -> float | None:
    """Return a number as JSON can hold it.

    Raises:
        UserError: It is something else.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    if value is None:
        return None
    if isinstance(value, Real):
        number = float(value)
        if is_number_of_a_card(number):
            return number
        logger.warning("%s returned %s for %s: it has no value on the card", name, value, key)
        return None
    kind = f"a {type(value).__name__}"
    if isinstance(value, np.ndarray):
        kind = f"an array of shape {value.shape}"
    raise UserError(
        f"{OPTION} {name} returned {kind} for {key}: return a number, numbers by name, or None"
    )
