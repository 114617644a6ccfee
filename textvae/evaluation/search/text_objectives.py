"""Objectives for ``textvae optimize``: your own Python function, or a regression probe.

    my_module:function    in a module that Python can import, or in the working folder
    my_file.py:function   in a file
    probe:COLUMN          the number that a regression probe predicts for the text

The function maps a text to a number, or to None if the text has no value. Only what is named on the
command line is imported, never anything that comes with a model.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textvae.builders.own_code import load_named, what_failed
from textvae.errors import UserError
from textvae.evaluation.latent.probe import card_name
from textvae.evaluation.latent.regression import Regression
from textvae.runs.files import quoted, read_record
from textvae.runs.model_folder import metrics_path, weights_hash
from textvae.vae.conditions import Given
from textvae.vae.model import Model

logger = logging.getLogger(__name__)

PROBE = "probe"


def load_objective(
    name: str, run: Path, model: Model, condition: Given | None = None
) -> Callable[[str], float | None]:
    """Return the objective with this name.

    Args:
        name: ``module:function``, ``file.py:function``, or ``probe:COLUMN``.
        run: The run folder, which holds the scores of its probes.
        model: The model, which encodes the texts for a probe.
        condition: What the model is conditioned on, if it is.

    Raises:
        UserError: There is no such function or probe.
    """
    place, _, function = name.rpartition(":")
    if not place or not function:
        raise UserError(
            f"--objective {name}: give module:function, file.py:function, or probe:COLUMN"
        )
    if place == PROBE:
        return _probe(function, run, model, condition)
    found = load_named(name, "--objective")
    if not callable(found):
        raise UserError(f"--objective {name}: {function} is not a function")
    return checked(found, name)


def checked(function: Callable[[str], Any], name: str) -> Callable[[str], float | None]:
    """Wrap a function so that whatever goes wrong in it becomes a ``UserError``."""

    def evaluate(text: str) -> float | None:
        try:
            value = function(text)
            return None if value is None else float(value)
        except (Exception, SystemExit) as error:  # anything can go wrong in the user's code
            why = what_failed(error)
            raise UserError(f"--objective {name} failed for {text!r}: {why}") from error

    return evaluate


def _probe(
    column: str, run: Path, model: Model, condition: Given | None
) -> Callable[[str], float | None]:
    path = metrics_path(run, card_name("test", column))
    command = f"textvae probe {quoted(run)} --target {shlex.quote(column)}"
    missing = f"--objective {PROBE}:{column}: no {path}: create it with {command}"
    record = read_record(path, missing=missing, advice=f"create it again with {command}")
    regression = Regression.of_record(record, str(path), model.latent_dim)
    if record.get("weights") not in (None, weights_hash(run)):
        raise UserError(f"{path} was computed from earlier weights: run {command} again")
    if isinstance(record.get("r2"), float) and record["r2"] <= 0:
        logger.warning(
            "the probe predicts %s no better than its mean (R² %.3f): the search follows noise",
            column,
            record["r2"],
        )

    def evaluate(text: str) -> float:
        mean = model.encode([text], condition=condition).center()
        return float(regression.predict(mean.double().numpy())[0])

    return evaluate
