"""Code of the user's own, by the name that a command was given: nothing else is ever imported.

``my_file.py:name`` is in a file, and ``my_module:name`` in a module that Python can import, such as
one in the working folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from textvae.errors import UserError, did_you_mean
from textvae.runs.files import expanded

# Modules by their files and what is in them: one that is named twice is executed once.
_files: dict[tuple[Path, bytes], Any] = {}


def load_named(name: str, option: str) -> Any:
    """Return the object with this name, executing the module that it is in.

    Args:
        name: ``file.py:name`` or ``module:name``.
        option: The option that was given, for messages.

    Raises:
        UserError: There is no such file, module, or object, or executing it failed.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise UserError(f"{option} {name}: give file.py:name or module:name")
    if place.endswith(".py") and not expanded(place).is_file():
        raise UserError(f"{option} {name}: {place}: no such file")
    if expanded(place).name == "textvae.py":
        raise UserError(
            f"{option} {name}: a file of this name hides the package textvae from its own "
            "imports: rename it"
        )
    try:
        module = _of_file(expanded(place)) if place.endswith(".py") else _of_name(place)
    except (Exception, SystemExit) as error:  # anything can go wrong in the user's code
        raise UserError(f"{option} {name}: {place}: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        near = did_you_mean(attribute, [each for each in vars(module) if each[0] != "_"])
        raise UserError(f"{option} {name}: {place} has no {attribute!r}{near}")
    return getattr(module, attribute)


def _of_name(name: str) -> Any:
    if str(Path.cwd()) not in sys.path:  # as with python -m
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _of_file(path: Path) -> Any:
    """Execute a file as a module; files next to it can be imported."""
    place = path.resolve()
    key = (place, place.read_bytes())
    if key not in _files:
        spec = importlib.util.spec_from_file_location(place.stem, place)
        assert spec is not None and spec.loader is not None  # the name ends with .py
        module = importlib.util.module_from_spec(spec)
        if str(place.parent) not in sys.path:
            sys.path.append(str(place.parent))
        known = sys.modules.setdefault(place.stem, module)  # where dataclasses look for it
        try:
            spec.loader.exec_module(module)
            _check_neighbors(place)
        except BaseException:
            if known is module:
                del sys.modules[place.stem]
            raise
        _files[key] = module
    return _files[key]


def _check_neighbors(place: Path) -> None:
    """Check that what a file may import from its folder is not taken from that of another.

    Raises:
        UserError: Both folders have a module of the same name, and the other one is imported.
    """
    for folder in {other.parent for other, _ in _files} - {place.parent}:
        for neighbor in place.parent.glob("*.py"):
            loaded = getattr(sys.modules.get(neighbor.stem), "__file__", None)
            if neighbor == place or loaded != str(folder / neighbor.name):
                continue
            if Path(loaded).exists() and Path(loaded).read_bytes() == neighbor.read_bytes():
                continue
            raise UserError(
                f"{neighbor} and {loaded} have the same name, so Python imports only one of them: "
                "rename one"
            )
