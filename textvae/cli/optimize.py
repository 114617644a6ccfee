"""``textvae optimize``: search the latent space for texts with a property."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import load
from textvae.cli.options import (
    DRAWN,
    add_common,
    add_condition,
    add_data,
    add_run_folder,
    new_parser,
)
from textvae.config.types import PositiveInt
from textvae.text.presentation import on_one_line

if TYPE_CHECKING:
    from jsonargparse import Namespace

OPTIONS = ("budget", "method", "minimize", "condition", "data", "batch_size", "seed")


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "search the latent space for texts that maximize an objective, and compare the search "
        "with samples from the model and with training texts",
        "textvae optimize RUN --objective MODULE:FUNCTION [--budget N] [--out FILE] [...]",
    )
    add_run_folder(parser)
    add = parser.add_argument
    add(
        "--objective",
        required=True,
        help="your own function, which is imported and called: module:function or file.py:function "
        "maps a text to a number (or to None); or probe:COLUMN for what textvae probe --target "
        "COLUMN has learned to predict",
    )
    add(
        "--budget",
        type=PositiveInt,
        default=200,
        help="evaluations of the objective for the search, and for each of the two comparisons",
    )
    add(
        "--method",
        choices=["bayes", "botorch", "evolution"],
        default="bayes",
        help="how points are chosen: bayes takes those with the largest expected improvement under "
        "a Gaussian process; botorch also moves them to where it is larger (needs pip install "
        "botorch); evolution selects, recombines, and mutates, for a budget of thousands",
    )
    add("--minimize", action="store_true", help="search for a small value instead of a large one")
    add("--top", type=PositiveInt, default=10, help="number of the best texts to print")
    add(
        "--out",
        type=str,
        help="write every evaluation to this .jsonl or .parquet file; until it is complete, the "
        "values are kept in OUT.values, so that an interrupted search does not compute them again",
    )
    add(
        "--plot",
        type=str,
        metavar="FILE",
        help="also draw the best value so far against evaluations (.svg, .png, or .pdf)",
    )
    add_data(parser)
    add_condition(parser, DRAWN)
    add_common(parser)
    return parser


def run(args: Namespace) -> None:
    """Print the best value so far, by number of evaluations, and the best texts."""
    from textvae.errors import quantity
    from textvae.evaluation.search.optimize import optimize
    from textvae.evaluation.search.text_objectives import PROBE
    from textvae.runs.tables import check_table_file, write_table

    if args.out is not None:
        check_table_file(Path(args.out))
    if args.plot is not None:
        from textvae.evaluation.plot_file import check_plot_file, save_plot
        from textvae.evaluation.search.curve import draw_search

        check_plot_file(args.plot)
    model = load(args)
    options = {name: args[name] for name in OPTIONS}
    kept = Path(f"{args.out}.values")
    if args.out is not None and not args.objective.startswith(f"{PROBE}:"):  # which is quick
        options["keep"] = kept
    found = optimize(args.run, args.objective, model=model, **options)
    print(found)
    print("\nbest texts of the search:")
    for call in found.best(args.top):
        print(f"{call.value:12.4g}  " + on_one_line(call.text))
    if args.out is not None:
        count = write_table(Path(args.out), found.rows(), numbers=("value", "best"))
        if "keep" in options:
            kept.unlink(missing_ok=True)
        print(f"\nwrote {quantity(count, 'row')} to {args.out}")
    if args.plot is not None:
        save_plot(draw_search(found.rows()), args.plot)
        print(f"wrote {args.plot}")
