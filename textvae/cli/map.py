"""``textvae map``: a picture of the latent space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.options import add_common, add_refinement, add_run, load, new_parser

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """The options of the command."""
    parser = new_parser(
        "plot posterior means in two dimensions (t-SNE), colored by label",
        "textvae map RUN --out FILE.png [...]",
    )
    add_run(parser, "the split to plot")
    parser.add_argument("--out", required=True, help="the .png file to write")
    parser.add_argument(
        "--limit", type=int, default=2000, help="plot only the first LIMIT examples"
    )
    add_refinement(parser)
    add_common(parser)
    return parser


def run(args: Namespace) -> None:
    """Draws the map and says where it is."""
    from textvae.cli.arguments import run_config
    from textvae.evaluation.map import draw_map
    from textvae.evaluation.run_card import find_split

    run = Path(args.run)
    split = find_split(run, run_config(run, data_dir=args.data), args.split)
    options = {name: args[name] for name in ("limit", "refine_steps", "batch_size", "seed")}
    draw_map(Path(args.out), load(args), split, title=run.resolve().name, **options)
    print(f"wrote {args.out}")
