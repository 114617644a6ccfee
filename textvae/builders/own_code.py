"""Code of the user's own, by the name that a command was given: nothing else is ever imported.

``my_file.py:name`` is in a file, and ``my_module:name`` in a module that Python can import, such as
one in the working folder.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import logging
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from traceback import FrameSummary, extract_tb
from typing import Any

from textvae.errors import UserError, did_you_mean, first_line
from textvae.runs.files import expanded

logger = logging.getLogger(__name__)
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
    if place.endswith(".py"):
        _check_imports(expanded(place).resolve())
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
        except BaseException:
            if known is module:
                del sys.modules[place.stem]
            raise
        _files[key] = module
    return _files[key]


def _check_imports(place: Path) -> None:
    """Check that what a file imports from its folder is not taken from that of another one.

    Raises:
        UserError: Both folders have such a module, with different content, and Python takes the
            other one.
    """
    others = {other.parent for other, _ in _files} - {place.parent}
    for name in sorted(_imported(place)):
        own, found = _module_in(place.parent, name), _found(name)
        if own is None or found is None or others.isdisjoint(found.parents[:2]):
            continue
        if found.read_bytes() != own.read_bytes():
            raise UserError(
                f"{place} imports {name}, and Python would take {found} and not {own}: rename one"
            )


def _imported(place: Path) -> set[str]:
    """Return the modules that a file imports, without what is in them."""
    try:
        nodes = list(ast.walk(ast.parse(place.read_bytes())))
    except (SyntaxError, ValueError):  # executing it says so
        return set()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in (*names, *(node.module or "" for node in froms))}


def _module_in(folder: Path, name: str) -> Path | None:
    """Return the file of a module or a package in a folder, if there is one."""
    files = (folder / name / "__init__.py", folder / f"{name}.py")
    return next((file for file in files if file.is_file()), None)


def _found(name: str) -> Path | None:
    """Return the file that Python takes a module from; None if there is no such module yet."""
    with suppress(ValueError):  # a module without a specification, such as __main__
        if (found := importlib.util.find_spec(name)) and found.has_location:
            return Path(str(found.origin))
    return None


def check_function(part: Any, what: str, arguments: str, tried: tuple[Any, ...]) -> None:
    """Check that a function of the user's can be called; warn if it has no name of its own.

    Args:
        part: The function, or another object that can be called.
        what: What it is, with its article, for messages.
        arguments: Its arguments, for messages.
        tried: Values of these arguments.

    Raises:
        TypeError: It cannot be called with them.
    """
    if not callable(part):
        raise TypeError(f"{what} is a function, not {type(part).__name__}")
    if isinstance(part, type):
        raise TypeError(f"{what} is not a class: pass an object, {part.__name__}(...)")
    with suppress(ValueError):  # a compiled function has no signature
        try:
            inspect.signature(part).bind(*tried)
        except TypeError as error:
            raise TypeError(f"{what} is called with {arguments}: {error}") from error
    if "<lambda>" in getattr(part, "__qualname__", ""):
        logger.warning(
            "%s that is a lambda looks like any other: use a named function, so that a run is only "
            "resumed and averaged with the same one",
            what,
        )


def what_failed(error: BaseException) -> str:
    """Say in one line what went wrong in the user's code, and where."""
    frames = [frame for frame in extract_tb(error.__traceback__) if not _is_of_a_library(frame)]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    kind, reason = type(error).__name__, first_line(error)
    return f"{kind if reason == kind else f'{kind}: {reason}'}{where}"


def _is_of_a_library(frame: FrameSummary) -> bool:
    places = (Path(__file__).parents[1], Path(sysconfig.get_path("purelib")))
    return any(Path(frame.filename).is_relative_to(place) for place in places)
