"""``textvae probe``: how well labels can be predicted from the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import layout, own_model
from textvae.cli.options import add_common, add_refinement, add_run, new_parser
from textvae.config.types import PositiveInt

if TYPE_CHECKING:
    from jsonargparse import Namespace

OPTIONS = (
    *("data", "device", "split", "target", "labels", "refine_steps"),
    *("batch_size", "seed"),
)


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "train probes that predict labels or numbers from posterior means",
        "textvae probe RUN [--target COLUMN] [...]",
    )
    add_run(parser, "the split to score", new_files=False)
    parser.add_argument(
        "--target",
        type=str,
        help="the column to predict: numbers by ridge regression, anything else by classifiers; "
        "default: the labels",
    )
    parser.add_argument(
        "--labels",
        type=PositiveInt | None,
        help="train on only this many labeled examples, chosen at random",
    )
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    add_refinement(parser)
    add_common(parser)
    return parser


def run(args: Namespace) -> None:
    """Score the probes, save the scores in the run folder, and print them."""
    from textvae.evaluation.latent.probe import probe
    from textvae.runs.files import as_json

    found = probe(
        args.run,
        model=own_model(args),
        reading=layout(args),
        **{name: args[name] for name in OPTIONS},
    )
    print(as_json(found) if args.json else found)
