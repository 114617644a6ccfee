"""What jsonargparse says of a wrong command line, made one line that a user can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def explain(message: str, names: Sequence[str], command: str | None) -> str:
    """The message on one line, with the nearest of ``names`` if a name is wrong.

    Args:
        names: the command's options, or the commands where none was recognised.
    """
    line = re.sub(r"^error: |Parser key ", "", " ".join(message.split()))
    if "are required" in line:
        line = line.replace(f"{command}.", "")
    line = _value(line) or _choice(line) or _name(line, names)
    where = f"textvae {command} --help" if command else "textvae --help"
    return f"{line} (see {where})"


def _value(line: str) -> str | None:
    """A value of the wrong type."""
    wrong = re.search(r'"([\w.]+)": .*?(Expected .*?)(?:Got|Given) value: (.*)', line)
    if wrong is None:
        return None
    option, expected, value = wrong.groups()
    if "Literal" in expected:
        return _one_of(f"--{option}", value, re.findall(r"'([^']*)'", expected))
    kind = next((KINDS[name] for name in KINDS if f"'{name}'" in expected), expected)
    return f"--{option} {value}: {kind} is needed"


def _choice(line: str) -> str | None:
    """A value that is none of an option's choices."""
    wrong = re.search(r"argument (-\S+): invalid choice: '?(.*?)'? \(choose from (.*)\)", line)
    if wrong is None:
        return None
    return _one_of(wrong[1], wrong[2], [name.strip(" '") for name in wrong[3].split(",")])


def _one_of(option: str, value: str, choices: Sequence[str]) -> str:
    return f"{option} {value}: choose one of {', '.join(choices)}{did_you_mean(value, choices)}"


def did_you_mean(wrong: str, names: Collection[str], prefix: str = "") -> str:
    """The end of a message: the nearest of ``names``, or nothing where none is near."""
    near = difflib.get_close_matches(wrong, names, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _name(line: str, names: Sequence[str]) -> str:
    """An option or a command that does not exist."""
    whole = {name.lstrip("-").replace("-", "_"): name for name in names}
    last = {bare.rsplit(".", 1)[-1]: name for bare, name in whole.items()}
    for wrong in (name.replace("-", "_") for name in _unknown(line)):
        near = [whole[bare] for bare in difflib.get_close_matches(wrong, whole, n=1, cutoff=0.4)]
        near = near or [last[bare] for bare in difflib.get_close_matches(wrong, last, n=1)]
        if near:
            line += f"; did you mean {near[0]}?"
    return line


def _unknown(line: str) -> list[str]:
    group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", line)
    if group:
        return [f"{group[1]}.{group[2]}"]
    if "nrecognized arguments" in line:
        return [word.lstrip("-").partition("=")[0] for word in re.findall(r"--[\w.-]+\S*", line)]
    other = re.search(r"(?:does not accept|invalid choice:|[Uu]nknown).*?'([\w.-]+)'", line)
    return [other[1]] if other else []
