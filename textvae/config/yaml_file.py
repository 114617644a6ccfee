"""YAML files with options: read as checked values, each with its line number."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from textvae.config.recipes import methods_folder
from textvae.config.types import check_values, current_value
from textvae.errors import UserError, did_you_mean


class Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, which YAML 1.1 treats as text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+\.?\d*[eE][-+]?\d+$"), list("+-0123456789")
)


class Dumper(yaml.SafeDumper):
    """Quotes text that ``Loader`` would read as something else."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


class Setting(NamedTuple):
    """One option in a file."""

    section: str
    name: str
    value: Any
    where: str  # the file and the line


def read_yaml(path: Path, types: Mapping[str, Mapping[str, Any]]) -> list[Setting]:
    """Read the options in a file that consists of sections.

    Args:
        path: The file.
        types: The type of each option, by section and name.

    Raises:
        UserError: The file cannot be read or is not YAML, or an option is unknown, is given twice,
            has the wrong type or is out of range; the message names the line.
    """
    path = Path(path)
    loader, root = _compose(path)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: must contain sections with options: model: {{latent_dim: 32}}")
    settings = []
    for section, options, where in _pairs(root, path, types, "section", ""):
        if not isinstance(options, yaml.MappingNode):
            raise UserError(f"{where}: {section} is a section: put its options below it")
        known = types[section]
        for name, node, line in _pairs(options, path, known, "option", f"{section}."):
            value = _value(loader, node, line, f"{section}.{name}")
            check_values(known, {name: value}, f"{line}: {section}.")
            settings.append(Setting(section, name, value, line))
    return settings


def _compose(path: Path) -> tuple[Loader, yaml.Node | None]:
    try:
        loader = Loader(path.read_text(encoding="utf-8"))
        return loader, loader.get_single_node()
    except OSError as error:
        where = _elsewhere(path) if isinstance(error, FileNotFoundError) else ""
        raise UserError(f"{path}: cannot be read ({error.strerror}){where}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not YAML, because it is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply") from error


def _elsewhere(path: Path) -> str:
    """Return where a missing file of the recipes is, for the end of a message."""
    if path.parts[:1] != ("recipes",) or Path("recipes").exists():
        return ""
    method = methods_folder() / path.name
    if path.parent.name == "methods" and method.is_file():
        return f": it is {method}"
    return ": recipes are part of the repository, so run this from its root"


def _pairs(
    mapping: yaml.MappingNode, path: Path, known: Collection[str], kind: str, prefix: str
) -> Iterator[tuple[str, yaml.Node, str]]:
    """Yield names with their nodes and lines; check that each name is known and not repeated."""
    seen: set[str] = set()
    for key, node in mapping.value:
        where = f"{path}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{where}: must be the name of a{'n' * (kind[0] == 'o')} {kind}")
        name = key.value
        if name not in known:
            near = did_you_mean(name, known, prefix)
            raise UserError(f"{where}: there is no {kind} {prefix}{name}{near}")
        if name in seen:
            raise UserError(f"{where}: {name} is given twice")
        seen.add(name)
        yield name, node, where


def _value(loader: Loader, node: yaml.Node, where: str, option: str) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise UserError(f"{where}: {option} is an option: give it a single value")
    try:
        return current_value(option, loader.construct_object(node))
    except (yaml.YAMLError, ValueError) as error:  # such as an unknown or unsuitable tag
        raise UserError(f"{where}: {option} {node.value}: cannot be read as a value") from error
