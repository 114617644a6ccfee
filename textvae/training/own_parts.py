"""User-defined objectives and procedures: what they need, and their names in checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from torch import Tensor, nn

from textvae.errors import UserError
from textvae.runs.model_folder import PACKAGE, is_built_in
from textvae.vae.model import Model

ADAPTIVE = ("after_update", "state_dict", "load_state_dict")
PLAIN = (int, float, bool, str, NoneType)  # values that are the same in every process
NEEDED = ("update", "state_dict", "load_state_dict")


def check_parts(objective: Any, procedure: Any) -> None:
    """Check that the parts have all methods of their contracts, before any training.

    Raises:
        TypeError: A method is missing, which training would call late or never, or an objective has
            parameters, which it would not train.
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
    if isinstance(procedure, type):
        raise TypeError(f"procedure={procedure.__name__}: pass an object, {procedure.__name__}()")
    if missing := [name for name in NEEDED if not hasattr(procedure, name)]:
        raise TypeError(f"the procedure has no {', no '.join(missing)}")
    if hasattr(objective, "after_update"):
        _check_kept(objective.state_dict(), "the objective's state_dict()")
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

    Raises:
        TypeError: It is an object, or another class.
    """
    if not (isinstance(model_class, type) and issubclass(model_class, Model)):
        raise TypeError(
            f"model_class={model_class!r:.60}: pass a subclass of one of textvae's models"
        )


def own_parts(objective: Any, procedure: Any) -> dict[str, str]:
    """Return the names of those parts that the config does not name."""
    names = {"objective": _name(objective), "procedure": _name(procedure)}
    return {part: name for part, name in names.items() if name.partition(".")[0] != PACKAGE}


def has_own_parts(model: Any, objective: Any, procedure: Any) -> bool:
    """Return whether a model, its objective, or its procedure is user-defined."""
    kinds = (type(model), type(model.decoder))
    return bool(own_parts(objective, procedure)) or not all(map(is_built_in, kinds))


def check_same_parts(run: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Check that a resumed run goes on with the parts that it began with.

    Raises:
        UserError: It has others.
    """
    for part in ("objective", "procedure"):
        if before.get(part) != now.get(part):
            own, other = (names.get(part, f"the {part} in its config") for names in (before, now))
            raise UserError(
                f"{run} was trained with {own}, and this would resume it with {other}: resume it "
                f"with the same {part} (from Python, {part}=...), or start a new run"
            )


def _name(part: Any) -> str:
    """Return the name of a part, with the arguments that ``functools.partial`` gave it."""
    named: dict[str, Any] = {}
    placed: tuple[Any, ...] = ()
    while isinstance(part, partial):
        named, placed = part.keywords | named, part.args + placed
        part = part.func
    kind = part if hasattr(part, "__qualname__") else type(part)
    arguments = [("", value) for value in placed]
    arguments += [(f"{name}=", value) for name, value in sorted(named.items())]
    shown = ", ".join(name + _shown(value) for name, value in arguments)
    return f"{kind.__module__}.{kind.__qualname__}" + (f"({shown})" if shown else "")


def _shown(value: Any) -> str:
    """Return the text of an argument, the same in every process."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(value) if type(value) in PLAIN else f"<{type(value).__qualname__}>"
