"""``textvae report``: one run, or a comparison of several, as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import own_models
from textvae.cli.options import add_common, add_data, add_own_model, new_parser
from textvae.config.types import NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from jsonargparse import Namespace

OPTIONS = (
    *("split", "data", "device", "limit", "samples", "fit_sampler"),
    *("batch_size", "seed"),
)


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "write one HTML file about a run, or about several side by side",
        "textvae report RUN [RUN ...] --out FILE.html [...]",
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        help="run folders, or a folder of them; JSON files with metrics and YAML files with "
        "published rows are added to the table and the rate-distortion plane",
    )
    add("--out", required=True, help="the .html file to write")
    add("--split", default="test", help="the split that was evaluated")
    add_data(parser)
    add(
        "--limit",
        type=PositiveInt,
        default=1000,
        help="number of examples for everything that is not on the metrics card: the diagnosis, "
        "the map, and the most and least compressible ones",
    )
    add(
        "--samples",
        type=NonNegativeInt,
        default=200,
        help="number of samples K for the importance-weighted bound of runs without a metrics card",
    )
    add(
        "--fit-sampler",
        action="store_true",
        help="first fit the sampler of textvae sample --from aggregate, so that the report also "
        "shows its samples",
    )
    add_own_model(parser, several=True)
    add_common(parser)
    return parser


def run(args: Namespace) -> None:
    """Write the report and print where it is."""
    from textvae.evaluation.metrics.card_files import run_folders
    from textvae.evaluation.report import report

    runs = run_folders(args.runs)
    options = {name: args[name] for name in OPTIONS}
    report(runs, args.out, models=own_models(args, runs), **options)
    print(f"wrote {args.out}")
