"""``textvae interpolate``: from one example to another through the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import examples, generation, load, presenter, warn_of_collapse
from textvae.cli.options import add_do_sample, add_generation, add_model, add_refinement, new_parser
from textvae.config.types import TwoOrMore
from textvae.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "decode points between two sentences or images in latent space",
        "textvae interpolate RUN A B [--steps STEPS] [...]",
    )
    add_model(parser)
    end = "sentence, or index of the {} image in the test split"
    parser.add_argument("a", metavar="A", help=f"first {end.format('first')}")
    parser.add_argument("b", metavar="B", help=f"last {end.format('last')}")
    parser.add_argument(
        "--steps", type=TwoOrMore, default=7, help="number of points, including both ends"
    )
    parser.add_argument(
        "--kind",
        choices=["linear", "spherical"],
        help="interpolate along a straight line or along an arc; by default along a line, or along "
        "an arc if z lies on a sphere",
    )
    add_refinement(parser)
    add_do_sample(parser)
    add_generation(parser)
    return parser


def run(args: Namespace) -> None:
    """Show the decoded points in order."""
    if not (args.a.strip() and args.b.strip()):
        raise UserError("one of the two ends is empty: is a variable of the shell not set?")
    model = load(args)
    model.check_latent()
    output = presenter(model, args)
    first, last = examples(model, args, [args.a, args.b]).inputs
    options = {name: args[name] for name in ("steps", "kind", "refine_steps", "do_sample")}
    outputs = model.interpolate(first, last, **options, **generation(model, args))
    warn_of_collapse(args.run)
    with output:
        output.show(outputs, columns=args.steps)
