"""``textvae sample``: sentences or images from the prior or the aggregate posterior."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from textvae.cli.given import generation, load, presenter
from textvae.cli.options import add_data, add_generation, add_model, new_parser
from textvae.config.types import Count
from textvae.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from textvae.vae.model import Model

logger = logging.getLogger(__name__)

SAMPLES = 10


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "generate sentences or images: z from the prior, then x from p(x|z)",
        "textvae sample RUN [-n N] [--from prior|aggregate] [...]",
    )
    add_model(parser)
    parser.add_argument("-n", type=Count | None, help=f"number of samples; default: {SAMPLES}")
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
    add_generation(parser, samples=True)
    return parser


def run(args: Namespace) -> None:
    """Show samples, or a grid over a two-dimensional latent space."""
    if args.data is not None and args["from"] != "aggregate":
        raise UserError("--data has no effect without --from aggregate")
    model = load(args)
    output, options = presenter(model, args), generation(model, args)
    if args.greedy:
        if args.num_beams > 1:
            raise UserError(
                f"--greedy, --num-beams {args.num_beams}: cannot be combined; choose one of them"
            )
        options["do_sample"] = False
    if args.walk is not None:
        if args["from"] != "prior":
            raise UserError("--walk shows the quantiles of the prior: leave out --from aggregate")
        if args.n is not None:
            raise UserError(f"--walk {args.walk} shows {args.walk**2} images: leave out -n")
        options.setdefault("do_sample", model.samples_pixels)
        with output:
            output.show(model.walk(args.walk, **options), columns=args.walk)
        return
    if args["from"] == "aggregate" and model.sampler is None:
        from textvae.evaluation.latent.fit_sampler import fit_sampler

        fit_sampler(args.run, data=args.data, model=model, batch_size=args.batch_size)
    elif args.data is not None:
        logger.info("%s has a fitted sampler already: --data has no effect", args.run)
    options["source"] = args["from"]
    total = SAMPLES if args.n is None else args.n
    with output:
        for start in range(0, max(total, 1), output.at_once or max(total, 1)):
            count = min(output.at_once or total, total - start)
            under = _conditions(model, args, count, start)
            if under:
                options["condition"] = next(iter(under.values()))
            options["first_row"] = start
            output.show(model.sample(count, **options), conditions=under)


def _conditions(model: Model, args: Namespace, count: int, first: int) -> dict[str, list[Any]]:
    """Return the label or the number of each sample, by that name; empty without a condition."""
    from textvae.vae.conditioning import codes_of

    if model.condition is None:
        return {}
    codes = codes_of(model.condition, args.condition, count) if args.condition is not None else None
    if codes is None:
        return {model.condition.noun: model.draw_conditions(count, args.seed, first) or []}
    return {model.condition.noun: model.condition.values(codes.tolist())}
