"""``textvae evaluate``: the metrics card of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import layout, own_model
from textvae.cli.options import (
    OF_NEW_FILE,
    add_common,
    add_condition,
    add_measures,
    add_own_metrics,
    add_refinement,
    add_run,
    new_parser,
)
from textvae.config.types import PositiveInt

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
    add_measures(parser)
    add_refinement(parser)
    add(
        "--limit",
        type=PositiveInt | None,
        help="evaluate at most LIMIT examples, evenly spaced; "
        "the card is saved under a separate name",
    )
    add(
        "--fit-sampler",
        action="store_true",
        help="first fit the sampler of textvae sample --from aggregate, so that the card also "
        "reports how many of its draws fall into holes",
    )
    add_own_metrics(parser)
    add("--json", action="store_true", help="print the metrics as JSON")
    add_common(parser)
    add_condition(parser, OF_NEW_FILE)
    return parser


def run(args: Namespace) -> None:
    """Evaluate the best model of a run, save the card in its folder, and print it."""
    from textvae.evaluation.evaluate_run import evaluate_run
    from textvae.evaluation.own_metrics import load_own_metrics
    from textvae.runs.files import as_json

    card = evaluate_run(
        args.run,
        model=own_model(args),
        reading=layout(args),
        own_metrics=load_own_metrics(args.own_metric),
        **{name: args[name] for name in OPTIONS},
    )
    print(as_json(card) if args.json else card)
