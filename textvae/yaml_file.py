"""A YAML file of an experiment, checked before it is used: errors name the file and the line."""

from __future__ import annotations

from pathlib import Path

import yaml

from textvae.errors import UserError


def check_yaml(path: Path) -> None:
    """Checks that a file holds sections of options, each once.

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
    _check_names(root, path)
    for name, section in root.value:
        if isinstance(section, yaml.MappingNode):
            _check_names(section, path)
        elif isinstance(section, yaml.SequenceNode) or section.tag != "tag:yaml.org,2002:str":
            where = f"{path}, line {section.start_mark.line + 1}"
            raise UserError(f"{where}: {name.value} is a section and needs options below it")


def _check_names(mapping: yaml.MappingNode, path: Path) -> None:
    seen: set[str] = set()
    for name, _ in mapping.value:
        if name.value in seen:
            line = name.start_mark.line + 1
            raise UserError(f"{path}, line {line}: {name.value} stands there twice")
        seen.add(str(name.value))
