"""Turn jsonargparse's error messages into one line that tells the user what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

from textvae.config.types import limits_of
from textvae.errors import OptionError, did_you_mean

KINDS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a string"}
NO_DEVICE = "to choose a device, set CUDA_VISIBLE_DEVICES, or ACCELERATE_USE_CPU=true for the CPU"
CLOSE = 0.65  # how alike a name and an option are, at least (difflib)
SIMILAR = 0.75  # how alike a name and the last part of an option are, at least (difflib)


def explain(message: str, names: Sequence[str], command: str | None) -> str:
    """Rewrite a message as one line, with a suggestion if a name is misspelled.

    Args:
        message: The message from jsonargparse.
        names: The command's options, or all commands if none was recognized.
        command: The command, if it was recognized.
    """
    line = re.sub(r"^error: |Parser key ", "", " ".join(message.split()))
    if nested := re.search(r'"(\w+)":.*NestedArg\(key=\'([\w.]+)\'', line):  # of a simple option
        line = f"unrecognized arguments: --{nested[1]}.{nested[2]}"
    if "are required" in line:
        line = line.replace(f"{command}.", "")
        line = re.sub(r"(?<=required: )[\w, .]+", lambda keys: _missing(keys[0], names), line)
    line = _number(line) or _value(line) or _choice(line) or _name(line, names)
    where = f"textvae {command} --help" if command else "textvae --help"
    return f"{line} (see {where})"


def as_typed(error: OptionError, names: Collection[str]) -> str:
    """Return the message of an error with ``--name value`` in place of Python's ``name=value``.

    Args:
        error: The error; arguments that are not an option of this command stay as they are.
        names: The command's options.
    """
    shown = ", ".join(_typed(name, value, names) for name, value in error.values.items())
    return f"{shown}: {error.problem}"


def _typed(argument: str, value: object, names: Collection[str]) -> str:
    named = _option(argument)
    known = [name for name in names if name == named]
    known = known or [name for name in names if name.endswith(f".{argument}")]
    if len(known) != 1:
        return f"{argument}={value!r}"
    return known[0] if value is True else f"{known[0]} {value}"


def _missing(keys: str, names: Sequence[str]) -> str:
    """Return required keys as the user types them; an argument without an option in capitals."""
    given = (key.strip() for key in keys.split(","))
    return ", ".join(_option(key) if _option(key) in names else key.upper() for key in given)


def _number(line: str) -> str | None:
    """Return the message for an option with a range (``textvae.config.types``)."""
    wrong = re.search(r'"([\w.]+)"(?: element \d+)?: .*?Not of type \w+: (.*)', line)
    if wrong is None:
        return None
    option, reason = wrong.groups()
    given = re.search(r"Given value: (.*)|^(\S+) does not|: '(.*)'$", reason)
    value = next(filter(None, given.groups()), "") if given else "null"
    limits = re.findall(r"v([<>]=?)([\d.]+)", reason)
    if limits:
        bounds = [(sign, int(limit) if limit.isdigit() else float(limit)) for sign, limit in limits]
        need = limits_of(bounds, int(value) if re.fullmatch(r"-?\d+", value) else 0)
    else:
        need = KINDS["int" if "int()" in reason else "float"]
    return f"{_option(option)} {value}: must be {need}"


def _option(name: str) -> str:
    """Return a key of the parser as the user types it."""
    if name.startswith("data_"):  # outside train, where a group data would clash with --data
        return f"--data.{name.removeprefix('data_')}"
    return f"-{name}" if len(name) == 1 else f"--{name if '.' in name else name.replace('_', '-')}"


def _value(line: str) -> str | None:
    """Return the message for a value of the wrong type."""
    wrong = re.search(r'"([\w.]+)": .*?(Expected .*?)(?:Got|Given) value: (.*)', line)
    if wrong is None:
        return None
    option, expected, value = wrong.groups()
    if "Literal" in expected:
        choices = re.findall(r"'([^']*)'", re.sub(r"<class '.*?'>", "", expected))
        return _one_of(_option(option), value, choices)
    kind = next((KINDS[name] for name in KINDS if f"'{name}'" in expected), expected)
    return f"{_option(option)} {value}: must be {kind}"


def _choice(line: str) -> str | None:
    """Return the message for a value that is not one of the option's choices."""
    wrong = re.search(r"argument (-\S+): invalid choice: '?(.*?)'? \(choose from (.*)\)", line)
    if wrong is None:
        return None
    return _one_of(wrong[1], wrong[2], [name.strip(" '") for name in wrong[3].split(",")])


def _one_of(option: str, value: str, choices: Sequence[str]) -> str:
    return f"{option} {value}: choose one of {', '.join(choices)}{did_you_mean(value, choices)}"


def _name(line: str, names: Sequence[str]) -> str:
    """Return the message for an option or a command that does not exist."""
    if re.search(r"nrecognized arguments: [^-]", line) and "--vary" in names:
        line += "; --vary takes NAME=VALUE,VALUE"
    for wrong in _unknown(line):
        if near := _nearest(wrong.replace("-", "_"), names):
            line += f"; did you mean {near}?"
        elif wrong == "device":
            line += f"; {NO_DEVICE}"
    return line


def _nearest(wrong: str, names: Sequence[str]) -> str | None:
    """Return the name that was probably meant: in the same section, or with the same last part."""
    whole = {name.lstrip("-").replace("-", "_"): name for name in names}
    section, _, option = wrong.rpartition(".")
    last = {bare.rpartition(".")[2]: name for bare, name in whole.items()}
    same = {
        bare.rpartition(".")[2]: name
        for bare, name in whole.items()
        if bare.rpartition(".")[0] == section
    }
    near = [same[bare] for bare in difflib.get_close_matches(option, same, 1, CLOSE)]
    near = near or [last[bare] for bare in difflib.get_close_matches(option, last, 1, SIMILAR)]
    return near[0] if near else None


def _unknown(line: str) -> list[str]:
    group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", line)
    if group:
        return [f"{group[1]}.{group[2]}"]
    if "nrecognized arguments" in line:
        return [word.lstrip("-").partition("=")[0] for word in re.findall(r"--[\w.-]+\S*", line)]
    other = re.search(r"(?:does not accept|invalid choice:|[Uu]nknown).*?'([\w.-]+)'", line)
    return [other[1]] if other else []
