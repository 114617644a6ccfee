"""User-defined models, objectives, and the like: loading them, and recognizing them again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from textvae.builders.own_code import load_named
from textvae.builders.own_names import hash_of, name_of
from textvae.config.choices import own_option
from textvae.errors import UserError, did_you_mean
from textvae.runs.files import quoted
from textvae.runs.model_folder import is_built_in
from textvae.training.own_checks import (
    check_kl_schedule,
    check_model_class,
    check_objective,
    check_procedure,
)
from textvae.vae.model import Model

logger = logging.getLogger(__name__)
# The arguments of ``train`` that the parts are.
ARGUMENTS = {
    "model": "model_class",
    "objective": "objective",
    "kl_schedule": "kl_schedule",
    "procedure": "procedure",
}
CHECKS: dict[str, Callable[[Any], None]] = {
    "model": check_model_class,
    "objective": check_objective,
    "kl_schedule": check_kl_schedule,
    "procedure": check_procedure,
}


def load_own_parts(names: Mapping[str, str]) -> dict[str, Any]:
    """Return parts of the user's own as arguments of ``train``, executing the files they are in.

    Args:
        names: ``file.py:name`` or ``module:name``, by ``model``, ``objective``, ``kl_schedule``,
            and ``procedure``.

    Raises:
        UserError: There is no such part, or it does not fulfill its contract.
    """
    if not isinstance(names, Mapping) or not all(isinstance(n, str) for n in names.values()):
        raise TypeError(
            "parts of your own are given by name, such as {'objective': 'my_parts.py:capacity'}"
        )
    found = {}
    for part, name in names.items():
        if part not in CHECKS:
            near = did_you_mean(part, list(CHECKS))
            raise UserError(f"{part} cannot be replaced by a part of your own{near}")
        own = found[ARGUMENTS[part]] = load_named(name, own_option(part))
        try:
            CHECKS[part](own)
        except TypeError as error:
            raise UserError(f"{own_option(part)} {name}: {error}") from None
    return found


def options_of(names: Mapping[str, str]) -> list[str]:
    """Return the options of a command that ``load_own_parts`` is given the names of."""
    return [word for part, name in names.items() for word in (own_option(part), name)]


def place_of(kind: type) -> str:
    """Return how a command names a class of the user's own, ``file.py:name``."""
    codes = (getattr(each, "__code__", None) for each in vars(kind).values())
    file = Path(next((code.co_filename for code in codes if code), "FILE.py"))
    with suppress(OSError):  # the working folder was deleted
        file = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    known = file.suffix == ".py" and file.is_file()  # not a cell of a notebook
    return f"{quoted(file) if known else 'FILE.py'}:{kind.__qualname__}"


def code_of(**parts: Any) -> dict[str, str]:
    """Return a hash of the source of every part that was given as an argument of ``train``.

    It is that of the class or the function alone, not of what it calls. A part whose source is not
    known has none.
    """
    found = {}
    for name, argument in ARGUMENTS.items():
        if (part := parts.get(argument)) is None:
            continue
        if code := hash_of(part):
            found[name] = code
    return found


def warn_of_other_code(run: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Warn if a run is resumed with a part whose code has changed since."""
    for part in before.keys() & now.keys():
        if before[part] != now[part]:
            logger.warning(
                "the code of the %s has changed since %s was last saved: its earlier steps were "
                "trained with other code",
                *(part, run),
            )


def class_of(model_class: Any) -> type[Model]:
    """Return the class that was given, or of which a ``functools.partial`` was."""
    while isinstance(model_class, partial):
        model_class = model_class.func
    found: type[Model] = model_class
    return found


def own_parts(model: Model, **given: Any) -> dict[str, str]:
    """Return the names of the parts that the config does not ask for, with their arguments.

    What changes in training must not be in a name, so names are made before it.

    Args:
        model: The model.
        given: The other parts, as arguments of ``train``; None: not given.
    """
    kind, found = type(model), {}
    if not is_built_in(kind):
        found["model"] = name_of(partial(kind, **model.own_options()))
    return found | names_of(**given)


def names_of(**parts: Any) -> dict[str, str]:
    """Return the names of parts that were given as arguments of ``train``; None: not given."""
    given = {part: parts.get(argument) for part, argument in ARGUMENTS.items()}
    return {part: name_of(each) for part, each in given.items() if each is not None}


def check_same_parts(run: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Check that a resumed run goes on with the parts that it began with.

    Raises:
        UserError: It has others.
    """
    for part in ARGUMENTS:
        names = [_compared(part, parts.get(part)) for parts in (before, now)]
        if names[0] == names[1]:
            continue
        own, other = (each.get(part, f"the {part} of its config") for each in (before, now))
        raise UserError(
            f"{run} was trained with {own}, and this would resume it with {other}: resume it with "
            f"the same {part} ({own_option(part)} FILE.py:NAME, or in Python "
            f"{ARGUMENTS[part]}=...), or start a new run"
        )


def _compared(part: str, name: str | None) -> str | None:
    """Return what must be the same: a class of models may have moved to another module."""
    if part != "model" or name is None:
        return name
    kind, _, arguments = name.partition("(")
    return f"{kind.rpartition('.')[2]}({arguments}"
