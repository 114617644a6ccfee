"""``textvae sample``: sentences or images from the prior or the aggregate posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import generation, load, presenter
from textvae.cli.options import add_data, add_generation, add_model, new_parser
from textvae.config.types import Count
from textvae.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "generate sentences or images: z from the prior, then x from p(x|z)",
        "textvae sample RUN [-n N] [--from prior|aggregate] [...]",
    )
    add_model(parser)
    parser.add_argument("-n", type=Count, default=10, help="number of samples")
    parser.add_argument(
        "--from",
        choices=["prior", "aggregate"],
        default="prior",
        help="what z is drawn from: the prior, or a mixture of Gaussians fitted to the posteriors "
        "of the training split (fitted on first use, and saved in RUN)",
    )
    parser.add_argument(
        "--greedy",
        action="store_true",
        help="take the most likely words or pixels instead of sampling them",
    )
    add_data(parser, " (for --from aggregate, on first use)")
    add_generation(parser, walk=True)
    return parser


def run(args: Namespace) -> None:
    """Show samples, or a grid over a two-dimensional latent space."""
    if args.data is not None and args["from"] != "aggregate":
        raise UserError("--data has no effect without --from aggregate")
    model = load(args)
    output, options = presenter(model, args), generation(model, args)
    options["do_sample"] = not args.greedy
    if args.walk is not None:
        if args["from"] != "prior":
            raise UserError("--walk shows the quantiles of the prior: leave out --from aggregate")
        with output:
            output.show(model.walk(args.walk, **options), columns=args.walk)
        return
    if args["from"] == "aggregate" and model.sampler is None:
        from textvae.evaluation.latent.fit_sampler import fit_sampler

        fit_sampler(args.run, data=args.data, model=model, batch_size=args.batch_size)
    options["source"] = args["from"]
    with output:
        if output.at_once is None:
            output.show(model.sample(args.n, **options))
            return
        for start in range(0, args.n, output.at_once):
            count = min(output.at_once, args.n - start)
            output.show(model.sample(count, first_row=start, **options))
