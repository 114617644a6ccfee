"""``textvae map``: a plot of the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import layout, own_model, warn_of_collapse
from textvae.cli.options import (
    OF_NEW_FILE,
    add_common,
    add_condition,
    add_refinement,
    add_run,
    new_parser,
)
from textvae.config.types import PositiveInt

if TYPE_CHECKING:
    from jsonargparse import Namespace

OPTIONS = (
    *("data", "condition", "device", "split", "method", "limit", "refine_steps"),
    *("batch_size", "seed"),
)


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "plot posterior means in two dimensions, colored by label",
        "textvae map RUN --out FILE [...]",
    )
    add_run(parser, "the split to plot")
    parser.add_argument("--out", required=True, help="the file to write (.svg, .png, or .pdf)")
    parser.add_argument(
        "--method",
        choices=["tsne", "pca"],
        default="tsne",
        help="t-SNE, or the first two principal components",
    )
    parser.add_argument(
        "--limit", type=PositiveInt, default=2000, help="plot at most LIMIT examples, evenly spaced"
    )
    add_refinement(parser)
    add_common(parser)
    add_condition(parser, OF_NEW_FILE)
    return parser


def run(args: Namespace) -> None:
    """Draw the map and print where it was written."""
    from textvae.evaluation.latent.map import draw_map

    draw_map(
        args.run,
        args.out,
        model=own_model(args),
        reading=layout(args),
        **{name: args[name] for name in OPTIONS},
    )
    warn_of_collapse(args.run)
    print(f"wrote {args.out}")
