"""``textvae evaluate``: the metrics card of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.options import add_common, add_refinement, add_run, load, new_parser

if TYPE_CHECKING:
    from jsonargparse import Namespace

OPTIONS = (
    *("split", "samples", "limit", "refine_steps", "generations"),
    *("precision", "batch_size", "seed"),
)


def parser() -> ArgumentParser:
    """The options of the command."""
    parser = new_parser(
        "compute, print and save the metrics of a run", "textvae evaluate RUN [...]"
    )
    add_run(parser, "the split to evaluate")
    add = parser.add_argument
    add(
        "--samples",
        type=int,
        default=200,
        help="samples K of the importance-weighted bound; 0 skips it",
    )
    add_refinement(parser)
    add("--limit", type=int | None, help="evaluate only the first LIMIT examples")
    add(
        "--generations",
        type=int,
        default=500,
        help="sentences generated for BLEU, distinct-n and self-BLEU; 0 skips them",
    )
    add(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="precision of matrix products",
    )
    add("--json", action="store_true", help="print the metrics as JSON")
    add_common(parser)
    return parser


def run(args: Namespace) -> None:
    """Evaluates the best model of a run, saves the card in its folder and prints it."""
    from textvae.cli.arguments import run_config
    from textvae.evaluation.compare import render_card
    from textvae.evaluation.run_card import evaluate_run

    config = run_config(Path(args.run), data_dir=args.data)
    options = {name: args[name] for name in OPTIONS}
    card = evaluate_run(Path(args.run), config, load(args), **options)
    print(json.dumps(card, indent=2) if args.json else render_card(card))
