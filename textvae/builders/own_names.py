"""What user-defined functions and classes are called in records, and a hash of their source.

A name is the same in every process, so that a run, a sweep, and a metrics card can say what they
were made with, and notice that it is something else.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from torch import Tensor, nn

PLAIN = (int, float, bool, str, NoneType)  # values that are the same in every process


def name_of(part: Any) -> str:
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


def hash_of(part: Any) -> str | None:
    """Return a hash of the source of a class or a function alone, not of what it calls.

    It is None if the source is not known.
    """
    while isinstance(part, partial):
        part = part.func
    kind = part if hasattr(part, "__qualname__") else type(part)
    with suppress(OSError, TypeError):
        return hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()[:16]
    return None


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
        return name_of(value)
    return repr(value) if type(value) in PLAIN else f"<{type(value).__qualname__}>"
