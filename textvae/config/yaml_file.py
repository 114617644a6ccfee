"""A YAML file of an experiment, checked before it is used: errors name the file and the line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from textvae.cli.messages import did_you_mean
from textvae.errors import UserError


def check_yaml(path: Path, options: Mapping[str, Collection[str]]) -> None:
    """Checks that a file holds sections of options, each known and given once.

    Args:
        options: the names in each section.

    Raises:
        UserError: it does not; the message has the line.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text, so no YAML") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: sections of options are needed, as model: {{latent_dim: 32}}")
    _check_names(root, path, options, "section", "")
    for name, section in root.value:
        if isinstance(section, yaml.MappingNode):
            _check_names(section, path, options[name.value], "option", f"{name.value}.")
        elif isinstance(section, yaml.SequenceNode) or section.tag != "tag:yaml.org,2002:str":
            where = f"{path}, line {section.start_mark.line + 1}"
            raise UserError(f"{where}: {name.value} is a section and needs options below it")


def _check_names(
    mapping: yaml.MappingNode, path: Path, known: Collection[str], kind: str, prefix: str
) -> None:
    seen: set[str] = set()
    for name, _ in mapping.value:
        where = f"{path}, line {name.start_mark.line + 1}"
        if name.value in seen:
            raise UserError(f"{where}: {name.value} stands there twice")
        if name.value not in known:
            near = did_you_mean(str(name.value), known, prefix)
            raise UserError(f"{where}: there is no {kind} {prefix}{name.value}{near}")
        seen.add(name.value)
