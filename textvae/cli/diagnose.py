"""``textvae diagnose``: whether a latent variable is used, and what to do if it is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.options import add_common, add_run, new_parser
from textvae.config.types import PositiveInt

if TYPE_CHECKING:
    from jsonargparse import Namespace

OPTIONS = ("data", "device", "split", "baseline", "samples", "limit", "batch_size", "seed")


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "say whether the latent variable is used, why not, and what to do",
        "textvae diagnose RUN [...]",
    )
    add_run(parser, "the split to examine")
    add = parser.add_argument
    add(
        "--baseline",
        type=str | None,
        help="the run of a language model on the same data, to compare the reconstruction with",
    )
    add("--samples", type=PositiveInt, default=20, help="draws of z per example")
    add("--limit", type=PositiveInt | None, help="examine only the first LIMIT examples")
    add("--json", action="store_true", help="print the diagnosis as JSON")
    add_common(parser)
    return parser


def run(args: Namespace) -> None:
    """Diagnose the best model of a run, save the result in its folder, and print it."""
    from textvae.evaluation.diagnose import diagnose_run

    found = diagnose_run(args.run, **{name: args[name] for name in OPTIONS})
    print(json.dumps(found.to_dict(), indent=2) if args.json else found)
