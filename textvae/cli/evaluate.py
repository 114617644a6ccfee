"""``textvae evaluate``: the metrics card of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.options import (
    add_common,
    add_condition,
    add_refinement,
    add_run,
    layout,
    new_parser,
)
from textvae.config.types import NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from jsonargparse import Namespace

OPTIONS = (
    *("data", "condition", "device", "split", "samples", "limit", "refine_steps"),
    *("generations", "fit_sampler", "precision", "batch_size", "seed"),
)


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "compute, print, and save the metrics of a run", "textvae evaluate RUN [...]"
    )
    add_run(parser, "the split to evaluate")
    add = parser.add_argument
    add(
        "--samples",
        type=NonNegativeInt,
        default=200,
        help="samples K of the importance-weighted bound; 0 skips it",
    )
    add_refinement(parser)
    add(
        "--limit",
        type=PositiveInt | None,
        help="evaluate at most LIMIT examples, evenly spaced; "
        "the card is saved under a name of its own",
    )
    add(
        "--generations",
        type=NonNegativeInt,
        default=500,
        help="sentences generated for BLEU, distinct-n, and self-BLEU; 0 skips them",
    )
    add(
        "--fit-sampler",
        action="store_true",
        help="first fit the sampler of textvae sample --from aggregate, so that the card also "
        "reports how many of its draws fall into holes",
    )
    add(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="precision of matrix products",
    )
    add("--json", action="store_true", help="print the metrics as JSON")
    add_common(parser)
    add_condition(parser)
    return parser


def run(args: Namespace) -> None:
    """Evaluate the best model of a run, save the card in its folder, and print it."""
    from textvae.evaluation.run_card import evaluate_run

    card = evaluate_run(args.run, reading=layout(args), **{name: args[name] for name in OPTIONS})
    print(json.dumps(card, indent=2) if args.json else card)
