"""``textvae probe``: how well labels can be predicted from the latent space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.options import add_common, add_refinement, add_run, load, new_parser

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """The options of the command."""
    parser = new_parser(
        "train classifiers that predict labels from posterior means", "textvae probe RUN [...]"
    )
    add_run(parser, "the split to score")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    add_refinement(parser)
    add_common(parser)
    return parser


def run(args: Namespace) -> None:
    """Scores the classifiers, saves the scores in the run folder and prints them."""
    from textvae.build import build_data
    from textvae.cli.arguments import run_config
    from textvae.evaluation.probe import probe, render

    run = Path(args.run)
    splits = build_data(run_config(run, data_dir=args.data), run)
    options = {name: args[name] for name in ("split", "refine_steps", "batch_size", "seed")}
    found = probe(run, load(args), splits, **options)
    print(json.dumps(found, indent=2) if args.json else render(found))
