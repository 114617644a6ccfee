"""What was asked for on the command line, and one clear line where that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jsonargparse import ArgumentError, Namespace

from textvae.cli.commands import build_parser
from textvae.cli.messages import explain
from textvae.config.experiment import Config
from textvae.config.yaml_file import check_yaml
from textvae.errors import UserError

AT_LEAST = {"batch_size": 1, "limit": 1, "walk": 1, "refine_steps": 0}
LARGEST_SEED = 2**63 - 1  # of torch's generators
AT_LEAST |= dict.fromkeys(("samples", "generations", "seed", "n"), 0)


def parse(argv: Sequence[str]) -> tuple[str, Namespace]:
    """The command and its options.

    Raises:
        UserError: an unknown option or a wrong value, with the nearest valid name.
    """
    parser, commands = build_parser()
    if not argv:
        parser.print_help()
        raise SystemExit(0)
    try:
        args = parser.parse_args(_with_run_config(list(argv)))
    except ArgumentError as error:
        command = argv[0] if argv[0] in commands else None
        options = [a.option_strings for a in commands[command]._actions] if command else []
        names = [max(each, key=len) for each in options if each] or list(commands)
        raise UserError(explain(str(error), names, command)) from None
    command = args.subcommand
    _check_numbers(args[command])
    return command, args[command]


def _check_numbers(args: Namespace) -> None:
    for name, least in AT_LEAST.items():
        value = args.get(name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {least}")
    if (args.get("seed") or 0) > LARGEST_SEED:
        raise UserError(f"--seed {args.seed}: must be at most {LARGEST_SEED}")


def config_of(args: Namespace) -> Config:
    """The experiment in the options of ``train``."""
    _, commands = build_parser()
    fields = Namespace({name: args[name] for name in asdict(Config())})
    return Config(**vars(commands["train"].instantiate(fields)))


def run_config(run: Path, data_dir: str | None = None) -> Config:
    """The experiment of a run folder, perhaps with its corpus at another place.

    Raises:
        UserError: it is no run folder, or its config is broken.
    """
    other = ["--data.dir", data_dir] if data_dir is not None else []
    _, args = parse(["train", "--resume", str(run), *other])
    return config_of(args)


def _with_run_config(argv: list[str]) -> list[str]:
    """A resumed run starts from its own config; options given beside --resume come after it.

    Raises:
        UserError: it is no run folder, or a YAML file is broken.
    """
    if argv[:1] != ["train"]:
        return argv
    if runs := _values(argv, "--resume"):
        config = Path(runs[0]) / "config.yaml"
        if runs[0].startswith("-") or not runs[0]:
            raise UserError("--resume needs the folder of the run to continue")
        if not config.exists():
            raise UserError(f"{runs[0]} is no run folder: it has no config.yaml")
        argv = ["train", "--config", str(config), *argv[1:]]
    for path in filter(None, _values(argv, "--config")):
        check_yaml(Path(path), asdict(Config()))
    return argv


def _values(argv: list[str], option: str) -> list[str]:
    """What is given for an option, as ``--option value`` or ``--option=value``."""
    pairs = zip(argv, [*argv[1:], ""], strict=True)
    return [
        word.partition("=")[2] if "=" in word else following
        for word, following in pairs
        if word.partition("=")[0] == option
    ]
