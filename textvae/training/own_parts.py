"""User-defined objectives and procedures: what they need, and their names in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.runs.model_folder import PACKAGE, is_built_in

ADAPTIVE = ("after_update", "state_dict", "load_state_dict")
NEEDED = ("update", "state_dict", "load_state_dict")


def check_parts(objective: Any, procedure: Any) -> None:
    """Check that the parts have all methods of their contracts, before any training.

    Raises:
        TypeError: A method is missing, which training would call late or never.
    """
    if not callable(objective):
        raise TypeError(f"an objective is a function, not {type(objective).__name__}")
    missing = [name for name in ADAPTIVE if not hasattr(objective, name)]
    if missing and hasattr(objective, "after_update"):
        raise TypeError(f"an objective with after_update also needs {' and '.join(missing)}")
    if isinstance(procedure, type):
        raise TypeError(f"procedure={procedure.__name__}: pass an object, {procedure.__name__}()")
    if missing := [name for name in NEEDED if not hasattr(procedure, name)]:
        raise TypeError(f"the procedure has no {', no '.join(missing)}")


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
            own, other = (names.get(part, "the one in its config") for names in (before, now))
            raise UserError(
                f"{run} was trained with the {part} {own}, and this would continue with {other}: "
                f"resume it from Python with {part}=..., or start a new run"
            )


def _name(part: Any) -> str:
    while isinstance(part, partial):
        part = part.func
    kind = part if hasattr(part, "__qualname__") else type(part)
    return f"{kind.__module__}.{kind.__qualname__}"
