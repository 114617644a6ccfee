"""``textvae compare``: the metrics of several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from textvae.cli.options import new_parser
from textvae.errors import UserError
from textvae.runs.files import as_json

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "compare the metrics of several runs in a table", "textvae compare RUN RUN ..."
    )
    parser.add_argument(
        "runs",
        nargs="+",
        help="run folders, or a folder of them; JSON files with metrics; YAML files with published "
        "rows",
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
        "--axes",
        type=str,
        nargs=2,
        metavar="METRIC",
        help="with --plot, draw these metrics instead, such as mi ppl_iw: the first one on the "
        "horizontal axis, the second one on the vertical axis",
    )
    parser.add_argument(
        "--provenance",
        action="store_true",
        help="also print commands, seeds, commits, hardware, and training cost",
    )
    parser.add_argument(
        "--columns",
        type=str,
        nargs="+",
        metavar="METRIC",
        help="the metrics to show, by their names in the metrics files (default: the usual ones)",
    )
    parser.add_argument(
        "--format",
        type=Literal["markdown", "latex", "csv"],
        default="markdown",
        help="markdown; latex: a table for a paper; csv: unrounded, with the seed and the "
        "options in which the runs differ",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the metrics as JSON, one object per row"
    )
    return parser


def run(args: Namespace) -> None:
    """Print one row per run, and draw the runs if asked to."""
    from textvae.evaluation.comparison.compare import compare, gather, with_gain
    from textvae.evaluation.metrics.card_files import run_folders

    given = [f"--{name}" for name in ("json", "provenance") if args[name]]
    given += [f"--format {args.format}"] if args.format != "markdown" else []
    if len(given) > 1:
        raise UserError(f"{', '.join(given)}: cannot be combined; choose one of them")
    runs = run_folders(args.runs)
    if args.columns and args.json:
        raise UserError("--columns has no effect with --json: use --format csv")
    args.columns = with_gain(args.columns, args.baseline)
    if args.axes and args.plot is None:
        raise UserError("--axes has no effect without --plot FILE")
    if args.plot is not None:  # first, so that its errors are not below a table
        _plot(runs, args)
    options = {"average_seeds": args.average_seeds, "baseline": args.baseline}
    if args.json:
        print(as_json(gather(runs, args.split, **options)))
        return
    if args.format == "csv":
        _print_csv(runs, args)
        return
    print(compare(runs, args.split, columns=args.columns, latex=args.format == "latex", **options))
    if args.plot is not None:
        print(f"wrote {args.plot}")
    if args.provenance:
        from textvae.evaluation.comparison.provenance import provenance

        print()
        print(provenance([run for run in runs if Path(run).is_dir()], args.split))


def _plot(runs: list[str], args: Namespace) -> None:
    """Draw the rate-distortion plane, or the metrics that were asked for."""
    from textvae.evaluation.comparison.rate_distortion import draw_rate_distortion
    from textvae.evaluation.comparison.scatter import draw_metrics

    if args.axes is None:
        draw_rate_distortion(runs, args.plot, args.split, average_seeds=args.average_seeds)
        return
    x, y = args.axes
    options = {"average_seeds": args.average_seeds, "baseline": args.baseline}
    draw_metrics(runs, args.plot, x, y, args.split, **options)


def _print_csv(runs: list[str], args: Namespace) -> None:
    """Print a row for every run; the columns of the options in which they differ come first."""
    from textvae.evaluation.comparison.results import as_csv, results

    if args.average_seeds:
        raise UserError("--average-seeds: csv has a row for every run: leave it out")
    if others := [run for run in runs if not Path(run).is_dir()]:
        raise UserError(f"{others[0]}: csv has a row for every run, and this is not a run folder")
    records = results(runs, args.split, baseline=args.baseline, columns=args.columns)
    print(as_csv(records), end="")
