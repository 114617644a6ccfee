"""Parse the command line, and report errors in a single clear line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from jsonargparse import ArgumentError, Namespace

from textvae.cli.commands import build_parser
from textvae.cli.messages import explain
from textvae.config.experiment import OPTIONS, read_options
from textvae.config.types import plain
from textvae.errors import UserError

RESUME_OR_START = "--resume-or-start"


def parse(argv: Sequence[str]) -> tuple[str, Namespace]:
    """Return the command and its options.

    Raises:
        UserError: An option is unknown or has a wrong value; the message suggests a valid name.
    """
    parser, commands = build_parser()
    if not argv:
        parser.print_help()
        raise SystemExit(0)
    words = list(argv)
    if words[0] == "train":
        words, files = _split_files(_resumed(words))
        # Options on the command line override those in files, regardless of their order.
        commands["train"].set_defaults(_flat(files, kinds=_values(words, "--data.kind")))
    try:
        args = parser.parse_args(words)
    except ArgumentError as error:
        command = argv[0] if argv[0] in commands else None
        options = [a.option_strings for a in commands[command]._actions] if command else []
        names = [max(each, key=len) for each in options if each] or list(commands)
        raise UserError(explain(str(error), names, command)) from None
    command, options = args.subcommand, args[args.subcommand]
    return command, Namespace({name: plain(value) for name, value in vars(options).items()})


def _resumed(words: list[str]) -> list[str]:
    """Replace ``--out RUN --resume-or-start`` with ``--resume RUN`` if the run exists.

    Raises:
        UserError: There is no ``--out``.
    """
    if RESUME_OR_START not in words:
        return words
    if not (runs := _values(words, "--out")) or _values(words, "--resume"):
        raise UserError(f"{RESUME_OR_START} needs --out RUN, and no --resume")
    if not (Path(runs[-1]) / "config.yaml").exists():
        return words
    rest, given = [], iter(word for word in words if word != RESUME_OR_START)
    for word in given:
        if word == "--out":
            next(given, None)
        elif not word.startswith("--out="):
            rest.append(word)
    return [*rest, f"--resume={runs[-1]}"]


def _split_files(words: list[str]) -> tuple[list[str], list[Path]]:
    """Separate ``--config FILE`` from the other words; the config of a resumed run comes first.

    Raises:
        UserError: ``--resume`` does not name a run folder.
    """
    files = []
    if runs := _values(words, "--resume"):
        if runs[-1].startswith("-") or not runs[-1]:
            raise UserError("--resume needs the folder of the run to resume")
        config = Path(runs[-1]) / "config.yaml"
        if not config.exists():
            raise UserError(f"{runs[-1]} is not a run folder: it has no config.yaml")
        files.append(config)
    rest, given = [], iter(words)
    for word in given:
        option, equals, value = word.partition("=")
        if option.startswith("--") and (options := OPTIONS.get(option[2:])):
            raise UserError(
                f"{option} is a group of options: use one of them, such as {option}."
                f"{next(iter(options))}, or a file with --config"
            )
        if option != "--config":
            rest.append(word)
        elif path := value if equals else next(given, None):
            files.append(Path(path))
        else:
            rest.append("--config")  # the parser reports the missing file
    return rest, files


def _flat(files: Sequence[Path], kinds: Sequence[str]) -> dict[str, object]:
    """Read the options in a stack of files, with the parser's names for them."""
    known = [kind for kind in kinds if kind in get_args(OPTIONS["data"]["kind"])]
    options = read_options(files, kind=known[-1] if known else None)
    return {
        f"{section}.{name}": value
        for section, values in options.items()
        for name, value in values.items()
    }


def _values(words: Sequence[str], option: str) -> list[str]:
    """Return the values given for an option, as ``--option value`` or ``--option=value``."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return [
        word.partition("=")[2] if "=" in word else following
        for word, following in pairs
        if word.partition("=")[0] == option
    ]
