"""``textvae compare``: the metrics of several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.options import new_parser

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "print a Markdown table with the metrics of several runs", "textvae compare RUN RUN ..."
    )
    parser.add_argument("runs", nargs="+", help="run folders, or JSON files with metrics")
    parser.add_argument("--split", default="test", help="the split that was evaluated")
    parser.add_argument(
        "--provenance",
        action="store_true",
        help="also print commands, seeds, commits, hardware and training cost",
    )
    return parser


def run(args: Namespace) -> None:
    """Print one row per run."""
    from textvae.evaluation.compare import compare

    print(compare(args.runs, args.split))
    if args.provenance:
        from textvae.evaluation.provenance import provenance

        print()
        print(provenance([run for run in args.runs if Path(run).is_dir()], args.split))
