"""``textvae compare``: the metrics of several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.options import new_parser
from textvae.errors import UserError
from textvae.runs.files import as_json

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "print a Markdown table with the metrics of several runs", "textvae compare RUN RUN ..."
    )
    parser.add_argument(
        "runs",
        nargs="+",
        help="run folders, JSON files with metrics, or YAML files with published rows",
    )
    parser.add_argument("--split", default="test", help="the split that was evaluated")
    parser.add_argument(
        "--average-seeds",
        action="store_true",
        help="one row for runs that differ only in their seed: mean and standard deviation",
    )
    parser.add_argument(
        "--baseline",
        type=str,
        metavar="RUN",
        help="a run to compare the others with, example by example: adds the mean difference of IW "
        "and its 95% interval",
    )
    parser.add_argument(
        "--plot",
        type=str,
        metavar="FILE",
        help="also draw KL against reconstruction (.svg, .png, or .pdf), with lines of equal ELBO",
    )
    parser.add_argument(
        "--provenance",
        action="store_true",
        help="also print commands, seeds, commits, hardware, and training cost",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the metrics as JSON, one object per row"
    )
    return parser


def run(args: Namespace) -> None:
    """Print one row per run, and draw the runs if asked to."""
    from textvae.evaluation.comparison.compare import compare, gather
    from textvae.evaluation.metrics.card_files import without_other_folders

    if args.json and args.provenance:
        raise UserError("--json, --provenance: cannot be combined; choose one of them")
    runs = without_other_folders(args.runs)
    if args.plot is not None:  # first, so that its errors are not below a table
        from textvae.evaluation.comparison.rate_distortion import draw_rate_distortion

        draw_rate_distortion(runs, args.plot, args.split, average_seeds=args.average_seeds)
    options = {"average_seeds": args.average_seeds, "baseline": args.baseline}
    if args.json:
        print(as_json(gather(runs, args.split, **options)))
        return
    print(compare(runs, args.split, **options))
    if args.plot is not None:
        print(f"wrote {args.plot}")
    if args.provenance:
        from textvae.evaluation.comparison.provenance import provenance

        print()
        print(provenance([run for run in runs if Path(run).is_dir()], args.split))
