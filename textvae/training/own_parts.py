"""User-defined models, objectives, and procedures: what they need, and their names in records."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textvae.builders.own_code import load_named
from textvae.config.experiment import ObjectiveConfig
from textvae.config.inference import Inference
from textvae.errors import UserError, did_you_mean
from textvae.runs.model_folder import is_built_in
from textvae.vae.batch import Batch
from textvae.vae.model import Model
from textvae.vae.modes import undisturbed

logger = logging.getLogger(__name__)
ADAPTIVE = ("after_update", "state_dict", "load_state_dict")
PLAIN = (int, float, bool, str, NoneType)  # values that are the same in every process
ARGUMENTS = {"model": "model_class", "objective": "objective", "procedure": "procedure"}
NEEDED = ("update", "state_dict", "load_state_dict")


def check_objective(objective: Any) -> None:
    """Check that an objective has all methods of its contract, before any training.

    Raises:
        TypeError: A method is missing, which training would call late or never, or the objective
            has parameters, which it would not train.
    """
    if not callable(objective):
        raise TypeError(f"an objective is a function, not {type(objective).__name__}")
    if isinstance(objective, type):
        name = objective.__name__
        raise TypeError(f"objective={name}: pass an object, {name}(...)")
    with suppress(ValueError):  # a compiled function has no signature
        try:
            inspect.signature(objective).bind(None, 1.0)
        except TypeError as error:
            raise TypeError(f"an objective is called with (terms, beta): {error}") from error
    if isinstance(objective, nn.Module) and any(p.requires_grad for p in objective.parameters()):
        raise TypeError(
            "the objective has parameters, and only those of the model are trained: make them part "
            "of the model, or turn them off with requires_grad_(False)"
        )
    missing = [name for name in ADAPTIVE if not hasattr(objective, name)]
    if missing and hasattr(objective, "after_update"):
        raise TypeError(f"an objective with after_update also needs {' and '.join(missing)}")
    if hasattr(objective, "after_update"):
        _check_kept(objective.state_dict(), "the objective's state_dict()")
    if "<lambda>" in getattr(objective, "__qualname__", ""):
        logger.warning(
            "the objective is a lambda, which looks like any other: use a named function, so "
            "that a run is only resumed and averaged with the same one"
        )


def check_loss(loss: Any, trains_encoder: bool) -> None:
    """Check what an objective returned.

    Args:
        loss: What it returned.
        trains_encoder: Whether another loss trains the encoder.

    Raises:
        TypeError: It is not a tensor.
        ValueError: It is not a scalar, or it was detached from the model.
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"the objective returned a {type(loss).__name__}, not a tensor")
    if not loss.is_floating_point():
        raise ValueError(f"the objective returned a tensor of {loss.dtype}, not of real numbers")
    if loss.dim():
        raise ValueError(
            f"the objective returned a tensor of shape {tuple(loss.shape)}, not a scalar: the mean "
            "over the examples of the batch"
        )
    if not (loss.requires_grad or trains_encoder):
        raise ValueError("the objective's loss does not depend on the weights: was it detached?")


def check_objective_on(
    model: Model, batch: Batch, objective: Any, options: ObjectiveConfig, inference: Inference
) -> None:
    """Check on a batch, before any training, that what an objective returns is a loss.

    Raises:
        UserError: It is not.
    """
    with undisturbed(model):
        terms = model(batch.to(model.device), options.samples, 1.0, inference)
        # A copy, because an objective may count its calls; functions are not copied.
        loss = deepcopy(objective)(terms._replace(encoder_loss=None), 1.0)
        try:
            check_loss(loss, trains_encoder=terms.encoder_loss is not None)
            _check_first_loss(loss, model)
        except (TypeError, ValueError) as error:
            raise UserError(f"{_name(objective)}: {error}") from error


def _check_first_loss(loss: Tensor, model: Model) -> None:
    """Check the loss of a model that has not been trained.

    Raises:
        ValueError: It is not finite, or does not depend on the weights.
    """
    if not loss.isfinite():
        raise ValueError(f"the first loss is {float(loss.detach())}")
    weights = [p for p in model.parameters() if p.requires_grad]
    if loss.requires_grad:
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        if all(gradient is None for gradient in found):
            raise ValueError("the objective's loss does not depend on the weights")


def check_procedure(procedure: Any) -> None:
    """Check that a procedure has all methods of its contract, before any training.

    Raises:
        TypeError: A method is missing, or a checkpoint cannot hold the state.
    """
    if isinstance(procedure, type):
        raise TypeError(f"procedure={procedure.__name__}: pass an object, {procedure.__name__}()")
    if missing := [name for name in NEEDED if not hasattr(procedure, name)]:
        raise TypeError(f"the procedure has no {', no '.join(missing)}")
    _check_kept(procedure.state_dict(), "the procedure's state_dict()")


def _check_kept(value: Any, where: str) -> None:
    """Check that a checkpoint can hold a value: it is read without executing anything."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_kept(entry, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for entry in value:
            _check_kept(entry, where)
    elif not isinstance(value, Tensor) and type(value) not in PLAIN:
        raise TypeError(
            f"{where} has the type {type(value).__name__}, which a checkpoint cannot hold: use "
            "tensors, Python numbers, strings, lists, and dicts"
        )


def check_model_class(model_class: Any) -> None:
    """Check that a class of the user's own is one of ours with other parts.

    Args:
        model_class: The class, or a ``functools.partial`` of it.

    Raises:
        TypeError: It is an object, or another class.
    """
    while isinstance(model_class, partial) and not model_class.args:
        model_class = model_class.func
    if not (isinstance(model_class, type) and issubclass(model_class, Model)):
        raise TypeError(
            f"model_class={getattr(model_class, '__name__', repr(model_class)):.60}: pass a "
            "subclass of one of textvae's models"
        )


def load_own_parts(names: Mapping[str, str]) -> dict[str, Any]:
    """Return parts of the user's own as arguments of ``train``, executing the files they are in.

    Args:
        names: ``file.py:name`` or ``module:name``, by ``model``, ``objective``, and ``procedure``.

    Raises:
        UserError: There is no such part, or it does not fulfill its contract.
    """
    checks: dict[str, Callable[[Any], None]] = {
        "model": check_model_class,
        "objective": check_objective,
        "procedure": check_procedure,
    }
    if not isinstance(names, Mapping) or not all(isinstance(n, str) for n in names.values()):
        raise TypeError(
            "parts of your own are given by name, such as {'objective': 'my_parts.py:capacity'}"
        )
    found = {}
    for part, name in names.items():
        if part not in checks:
            near = did_you_mean(part, list(checks))
            raise UserError(f"{part} cannot be replaced by a part of your own{near}")
        own = found[ARGUMENTS[part]] = load_named(name, f"--own-{part}")
        try:
            checks[part](own)
        except TypeError as error:
            raise UserError(f"--own-{part} {name}: {error}") from None
    return found


def class_of(model_class: Any) -> type[Model]:
    """Return the class that was given, or of which a ``functools.partial`` was."""
    while isinstance(model_class, partial):
        model_class = model_class.func
    found: type[Model] = model_class
    return found


def own_parts(model: Model, objective: Any, procedure: Any) -> dict[str, str]:
    """Return the names of the parts that the config does not ask for, with their arguments.

    What changes in training must not be in a name, so names are made before it.

    Args:
        model: The model.
        objective: The user's own; None: that of the config.
        procedure: The user's own; None: that of the config.
    """
    kind, found = type(model), {}
    if not is_built_in(kind):
        name = f"{_module(kind)}.{kind.__qualname__}"
        found["model"] = _with_arguments(name, (), model.own_options())
    return found | names_of(objective=objective, procedure=procedure)


def names_of(**parts: Any) -> dict[str, str]:
    """Return the names of parts that were given as arguments of ``train``; None: not given."""
    given = {part: parts.get(argument) for part, argument in ARGUMENTS.items()}
    return {part: _name(each) for part, each in given.items() if each is not None}


def check_same_parts(run: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Check that a resumed run goes on with the parts that it began with.

    Raises:
        UserError: It has others.
    """
    for part in ("model", "objective", "procedure"):
        names = [_compared(part, parts.get(part)) for parts in (before, now)]
        if names[0] != names[1]:
            own, other = (names.get(part, f"the {part} in its config") for names in (before, now))
            raise UserError(
                f"{run} was trained with {own}, and this would resume it with {other}: resume it "
                f"with the same {part} (--own-{part} FILE.py:NAME, or in Python "
                f"{ARGUMENTS[part]}=...), or start a new run"
            )


def _compared(part: str, name: str | None) -> str | None:
    """Return what must be the same: a class of models may have moved to another module."""
    if part != "model" or name is None:
        return name
    kind, _, arguments = name.partition("(")
    return f"{kind.rpartition('.')[2]}({arguments}"


def _name(part: Any) -> str:
    """Return the name of a part, with the arguments that ``functools.partial`` gave it."""
    named: dict[str, Any] = {}
    placed: tuple[Any, ...] = ()
    while isinstance(part, partial):
        named, placed = part.keywords | named, part.args + placed
        part = part.func
    kind = part if hasattr(part, "__qualname__") else type(part)
    if kind is not part:
        named = _constructed_with(part) | named
    elif cells := getattr(part, "__closure__", None):
        named = _closed_over(part.__code__.co_freevars, cells) | named
    return _with_arguments(f"{_module(kind)}.{kind.__qualname__}", placed, named)


def _module(kind: Any) -> str:
    """Return the module of a class or a function; that of a script is named after its file."""
    name: str = kind.__module__
    file = getattr(sys.modules["__main__"], "__file__", None) if name == "__main__" else None
    return name if file is None else Path(file).stem


def _with_arguments(name: str, placed: tuple[Any, ...], named: Mapping[str, Any]) -> str:
    arguments = [("", value) for value in placed]
    arguments += [(f"{key}=", value) for key, value in sorted(named.items())]
    shown = ", ".join(key + _shown(value) for key, value in arguments)
    return name + (f"({shown})" if shown else "")


def _constructed_with(part: object) -> dict[str, Any]:
    """Return the arguments of a constructor that became attributes of the same name."""
    with suppress(ValueError):  # a compiled class has no signature
        attributes = inspect.signature(type(part)).parameters
        return {name: getattr(part, name) for name in attributes if hasattr(part, name)}
    return {}


def _closed_over(names: Sequence[str], cells: Sequence[Any]) -> dict[str, Any]:
    """Return the values that an inner function took from the function around it."""
    found = {}
    for name, cell in zip(names, cells, strict=True):
        with suppress(ValueError):  # not assigned yet
            found[name] = cell.cell_contents
    return found


def _shown(value: Any) -> str:
    """Return the text of an argument, the same in every process."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if callable(value) and not isinstance(value, nn.Module | type):
        return _name(value)
    return repr(value) if type(value) in PLAIN else f"<{type(value).__qualname__}>"
