"""``textvae bounds``: how tight the bounds on log p(x) are, and what a better posterior gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.exit_codes import show
from textvae.cli.given import layout, own_model
from textvae.cli.options import OF_NEW_FILE, add_common, add_condition, add_run, new_parser
from textvae.config.types import NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from jsonargparse import Namespace

OPTIONS = (
    *("data", "condition", "device", "split", "samples", "limit", "simulated"),
    *("chains", "steps", "leapfrogs", "regret_steps", "precision", "batch_size", "seed"),
)


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "say how tight the bounds on log p(x) are and what better posteriors could gain",
        "textvae bounds RUN [...]",
    )
    add_run(parser, "the split to take examples from")
    add = parser.add_argument
    add(
        "--limit",
        type=PositiveInt,
        default=50,
        help="take at most LIMIT examples, evenly spaced",
    )
    add(
        "--samples",
        type=PositiveInt,
        default=500,
        help="number of samples K for the importance-weighted bound",
    )
    add(
        "--chains",
        type=PositiveInt,
        default=5,
        help="chains of annealed importance sampling (AIS) for every example",
    )
    add(
        "--steps",
        type=PositiveInt,
        default=25,
        help="intermediate distributions of AIS; more of them make it tighter and slower",
    )
    add("--leapfrogs", type=PositiveInt, default=5, help="gradient steps from one to the next")
    add(
        "--regret-steps",
        type=NonNegativeInt,
        default=100,
        help="gradient steps that look for a better q(z|x) of the same family; 0 skips the search",
    )
    add(
        "--simulated",
        type=NonNegativeInt,
        default=16,
        help="generated examples, for which AIS also gives an upper bound on log p(x); 0: none",
    )
    add(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="precision of matrix products; bf16 is faster where it is supported",
    )
    add("--json", action="store_true", help="print the bounds as JSON")
    add_common(parser)
    parser.set_defaults(batch_size=16)
    add_condition(parser, OF_NEW_FILE)
    return parser


def run(args: Namespace) -> None:
    """Compare the bounds of the best model of a run, save them in its folder, and print them."""
    from textvae.evaluation.bounds.run_bounds import bounds_run
    from textvae.runs.files import as_json

    found = bounds_run(
        args.run,
        model=own_model(args),
        reading=layout(args),
        **{name: args[name] for name in OPTIONS},
    )
    show(as_json(found.to_dict()) if args.json else found)
