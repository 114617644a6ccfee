"""``textvae arithmetic``: examples moved from one label to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import examples, generation, load, presenter, warn_of_collapse
from textvae.cli.options import (
    add_data,
    add_do_sample,
    add_generation,
    add_refinement,
    add_run_folder,
    new_parser,
)
from textvae.config.types import PositiveInt
from textvae.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "move sentences or images from one label toward another and decode them",
        "textvae arithmetic RUN --from LABEL --to LABEL EXAMPLE [...] [--strength S]",
    )
    add_run_folder(parser)
    add = parser.add_argument
    add(
        "examples",
        nargs="+",
        help="text models: sentences; image models: indices into the test split",
    )
    add("--from", type=str, required=True, help="the label to move away from, by name or number")
    add("--to", type=str, required=True, help="the label to move to, by name or number")
    add(
        "--strength",
        type=float,
        default=1.0,
        help="multiple of the difference between the mean latent vectors of the two labels",
    )
    add(
        "--limit",
        type=PositiveInt | None,
        help="compute the means from at most LIMIT training examples of each label; default: all",
    )
    add_data(parser)
    add_refinement(parser)
    add_do_sample(parser)
    add_generation(parser, show_source=True)
    return parser


def run(args: Namespace) -> None:
    """Show each example after the move, with its source if the output format includes it."""
    from textvae.evaluation.latent.arithmetic import attribute_vector, moved

    model = load(args)
    model.check_latent()
    if model.condition is not None and args.condition is None:
        raise UserError(
            f"{args.run} is conditioned on the {model.condition.noun}, so z need not hold it: to "
            "change it, use textvae reconstruct --condition A --decode-condition B; to move in z "
            "anyway, give the condition of the examples with --condition"
        )
    output = presenter(model, args)
    sources = examples(model, args, args.examples).inputs
    shared = {name: args[name] for name in ("refine_steps", "seed", "batch_size")}
    vector = attribute_vector(
        args.run, args["from"], args.to, data=args.data, model=model, limit=args.limit, **shared
    )
    q = model.encode(sources, condition=args.condition, **shared)
    z = moved(model, q.center(), vector, args.strength)
    options = generation(model, args) | {"do_sample": args.do_sample}
    warn_of_collapse(args.run)
    with output:
        output.show(model.decode(z, **options), sources=sources)
