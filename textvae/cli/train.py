"""``textvae train``: start a run, or resume one."""

from __future__ import annotations

from argparse import SUPPRESS
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, set_parsing_settings

from textvae.cli.given import own_parts
from textvae.cli.options import add_own_parts, new_parser
from textvae.config.experiment import OPTIONS, Config, config_from
from textvae.config.types import plain
from textvae.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def parser() -> ArgumentParser:
    """Return the parser of the command, with an option for every field of ``Config``."""
    parser = new_parser(
        "train a language model, a VAE, or a Skip-VAE",
        "textvae train --config FILE ... --out RUN [--data.dir PLACE] [--SECTION.NAME VALUE ...]\n"
        "       textvae train --resume RUN [--SECTION.NAME VALUE ...]",
    )
    parser.add_argument(
        "--config",
        action="config",
        help="a YAML file with any of the options below; if given more than once, later files "
        "override earlier ones",
    )
    parser.add_argument("--out", type=str, help="the run folder to create")
    parser.add_argument("--resume", type=str, help="the run folder to resume")
    parser.add_argument(
        "--resume-or-start",
        action="store_true",
        help="with --out: resume the run if the folder already holds one, so that a cluster can "
        "repeat the same command",
    )
    add_own_parts(parser)
    parser.add_class_arguments(Config, as_group=False)
    for section in OPTIONS:  # files are given with --config alone
        parser._option_string_actions[f"--{section}"].help = SUPPRESS
    return parser


def run(args: Namespace) -> None:
    """Train a new run, or the rest of an interrupted one."""
    from textvae.training.own_parts import load_own_parts
    from textvae.training.train import train

    if (args.out is None) == (args.resume is None):
        raise UserError("give either --out RUN to start a new run or --resume RUN to resume one")
    parts = load_own_parts(own_parts(args))
    train(config_of(args), args.resume or args.out, resume=args.resume is not None, **parts)


def config_of(args: Namespace) -> Config:
    """Build the config from the options of ``train``.

    Raises:
        UserError: A value is not valid, or an option does not apply to this kind of data.
    """
    config = config_from(
        {
            section: {name: plain(value) for name, value in vars(args[section]).items()}
            for section in OPTIONS
        }
    )
    config.check(prefix="--")
    return config
