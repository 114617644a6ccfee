"""Parse the command line, and report errors in a single clear line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from textvae.cli.commands import build_parser
from textvae.cli.messages import explain
from textvae.cli.options import OWN_PARTS
from textvae.config.choices import own_option
from textvae.config.experiment import OPTIONS, read_options
from textvae.config.types import plain
from textvae.errors import UserError, did_you_mean
from textvae.runs.files import expanded

# Options of all commands that are paths, or may be.
PATHS = (
    *("run", "runs", "out", "file", "data", "baseline", "plot", "resume", "draw", "test", "train"),
    *("test_scaffolds", "filters", "cache_dir"),
)

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
    of_train: list[str] = []
    if words[0] == "train":
        words, files = _split_files(_resumed(words))
        # Options on the command line override those in files, regardless of their order.
        commands["train"].set_defaults(_flat(files, kinds=_values(words, "--data.kind")))
    if words[0] == "sweep":
        words, of_train = _split_sections(words)
    if words[0] in commands:
        _check_lists(words[1:], commands[words[0]])
    with _explained(argv[0], commands):
        args = parser.parse_args(words)
    command, options = args.subcommand, args[args.subcommand]
    found = {name: _at_home(name, plain(value)) for name, value in vars(options).items()}
    if command == "sweep":
        with _explained("train", commands):
            found |= _grid(of_train, found["vary"], commands["train"])
    return command, Namespace(found)


def _check_lists(words: Sequence[str], parser: ArgumentParser) -> None:
    """Check that no option that takes several values is given twice: only the last would count.

    Raises:
        UserError: One is.
    """
    given = [word.partition("=")[0] for word in words]
    for action in parser._actions:
        if action.nargs in ("+", "*") and sum(map(given.count, action.option_strings)) > 1:
            option = max(action.option_strings, key=len)
            raise UserError(f"{option} is given twice: give all of its values after one {option}")


def _at_home(name: str, value: Any) -> Any:
    """Expand ``~`` in a path, which a shell leaves as it is in ``--out=~/runs``."""
    if isinstance(value, list):
        return [_at_home(name, each) for each in value]
    is_path = name in PATHS and isinstance(value, str) and value.startswith("~")
    return str(expanded(value)) if is_path else value


@contextmanager
def _explained(command: str, commands: Mapping[str, ArgumentParser]) -> Iterator[None]:
    """Turn the errors of a parser into one line."""
    try:
        yield
    except ArgumentError as error:
        known = command if command in commands else None
        names = option_names(commands[command]) if known else list(commands)
        raise UserError(explain(str(error), names, known)) from None


def option_names(parser: ArgumentParser) -> list[str]:
    """Return the options of a parser, each by its longest name."""
    return [max(each.option_strings, key=len) for each in parser._actions if each.option_strings]


def _split_sections(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the options of ``train``, which have a section, from those of ``sweep``."""
    own, of_train, given = [], [], iter(words)
    for word in given:
        option, equals, _ = word.partition("=")
        if option == "--config" or (option.startswith("--") and "." in option):
            of_train += [word] if equals else [word, *itertools.islice(given, 1)]
        else:
            own.append(word)
    return own, of_train


def _grid(words: Sequence[str], vary: Sequence[str], train: ArgumentParser) -> dict[str, Any]:
    """Read the options of ``train`` that a sweep was given, and the values to try.

    Args:
        words: The options of ``train``.
        vary: Words such as ``model.latent_dim=2,10``.
        train: The parser of ``train``, which checks every value.

    Returns:
        ``files``, ``sections``: options by section, and ``vary``: values by option.

    Raises:
        UserError: ``--vary`` is given twice for an option, or is not an option and its values.
    """
    rest, files = _split_files(list(words))
    sections: dict[str, dict[str, Any]] = {}
    parsed = train.parse_args(rest)
    for name in (word.partition("=")[0][2:] for word in rest if word.startswith("--")):
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = plain(parsed[name])
    grid: dict[str, list[Any]] = {}
    for word in vary:
        option, _, values = word.partition("=")
        own = [own_option(part).removeprefix("--") for part in OWN_PARTS]
        is_own = option in own
        if not is_own and "." not in option and option.startswith("own"):
            near = did_you_mean(option, own)
            raise UserError(f"--vary {word}: there is no option {option}{near}")
        if not (is_own or "." in option) or not values:
            raise UserError(
                f"--vary {word}: give an option and its values, such as model.latent_dim=2,10; "
                "to compare methods, use --methods"
            )
        if option in grid:
            raise UserError(f"--vary {option} is given twice: give all of its values at once")
        if is_own:
            grid[option] = [None if each.lower() == "none" else each for each in values.split(",")]
            continue
        parses = [train.parse_args([f"--{option}={value}"]) for value in values.split(",")]
        grid[option] = [plain(each[option]) for each in parses]
    return {"files": files, "sections": sections, "vary": grid}


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
            from textvae.runs.run_folder import config_path  # which imports torch

            config_path(Path(runs[-1]))  # says why not
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
    pairs = zip(words, [*words, ""][1:], strict=True)
    return [
        word.partition("=")[2] if "=" in word else following
        for word, following in pairs
        if word.partition("=")[0] == option
    ]
