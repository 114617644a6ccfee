"""``textvae traverse``: what a latent dimension does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import examples, generation, load, presenter, warn_of_collapse
from textvae.cli.options import (
    add_data,
    add_do_sample,
    add_generation,
    add_model,
    add_refinement,
    new_parser,
)
from textvae.config.types import Deviations, NonNegativeInt, PositiveInt, TwoOrMore
from textvae.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from textvae.vae.model import Model

MOST = 5  # dimensions that are shown


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "change the latent dimensions of a sentence or image one at a time, and decode the results",
        "textvae traverse RUN EXAMPLE [--dim DIM ...] [--steps STEPS] [...]",
    )
    add_model(parser)
    add = parser.add_argument
    add("example", help="a sentence, or the index of an image in the test split")
    add(
        "--dim",
        type=NonNegativeInt,
        nargs="+",
        help="the dimensions to change, from 0; default: the active dimensions with the largest "
        "KL on the validation split",
    )
    add("-n", type=PositiveInt | None, help=f"number of dimensions; default: {MOST}")
    add("--steps", type=TwoOrMore, default=7, help="number of values of each dimension")
    add("--span", type=Deviations, default=3.0, help="the values go from -SPAN to SPAN")
    add_data(parser)
    add_refinement(parser)
    add_do_sample(parser)
    add_generation(parser)
    return parser


def run(args: Namespace) -> None:
    """Show the decoded points, one dimension after the other."""
    import torch

    from textvae.evaluation.latent.traversal import traverse

    if args.dim and args.n is not None:
        raise UserError("-n has no effect with --dim: leave it out")
    if args.dim and args.data is not None:
        raise UserError("--data has no effect with --dim: leave it out")
    model = load(args)
    output = presenter(model, args)
    options = generation(model, args) | {"do_sample": args.do_sample}
    sources = examples(model, args, [args.example]).inputs
    encoding = {"condition": args.condition, "refine_steps": args.refine_steps, "seed": args.seed}
    z = model.encode(sources, **encoding).center()[0]
    dimensions = args.dim or _leading(model, args)
    values = torch.linspace(-args.span, args.span, args.steps)
    outputs = traverse(model, z, dimensions, values, **options)
    details = [{"dimension": d, "value": v} for d in dimensions for v in values.tolist()]
    warn_of_collapse(args.run)
    with output:
        output.show(outputs, columns=args.steps, details=details)


def _leading(model: Model, args: Namespace) -> list[int]:
    from textvae.evaluation.latent.traversal import leading_dimensions
    from textvae.evaluation.open_run import open_run

    split = open_run(args.run, data=args.data, model=model).split("valid")
    options = {name: args[name] for name in ("seed", "refine_steps", "batch_size")}
    return list(leading_dimensions(model, split, args.n or MOST, **options))
