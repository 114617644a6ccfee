"""``textvae reproduce``: a recipe run and compared with its published results."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.exit_codes import show
from textvae.cli.options import new_parser
from textvae.config.types import PositiveInt

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "run a recipe and compare its results with published ones",
        "textvae reproduce NAME [--methods NAME ...] [--seeds N] [--data PLACE] [--out DIR] [...]",
    )
    add = parser.add_argument
    add("name", help="a folder in recipes with a file published.yaml, such as toy or ptb")
    add(
        "--methods",
        nargs="+",
        default=[],
        metavar="NAME",
        help="the methods to reproduce; default: all with published results",
    )
    add(
        "--seeds",
        type=PositiveInt,
        default=1,
        help="number of seeds per method; their mean is compared",
    )
    add("--jobs", type=PositiveInt, default=1, help="number of runs to execute in parallel")
    add("--data", type=str, help="the corpus, for recipes that need one")
    add(
        "--out",
        type=str,
        help="the folder for the corpus and the runs; default: runs/NAME, as in the recipe",
    )
    add("--recipes", type=str, help="the folder with the recipes, if not in a checkout")
    add(
        "--lagging-compat",
        action="store_true",
        help="also print the mutual information as vae-lagging-encoder estimates it",
    )
    return parser


def run(args: Namespace) -> int:
    """Print the comparison; return 1 if metrics were not reproduced, or a run failed."""
    from textvae.training.reproduce import reproduce

    names = ("methods", "seeds", "jobs", "data", "out", "recipes", "lagging_compat")
    done = reproduce(args.name, **{name: args[name] for name in names})
    show(done)
    for name, why in done.failed.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    return 0 if done.succeeded else 1
