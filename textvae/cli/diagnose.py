"""``textvae diagnose``: whether a latent variable is used, and what to do if it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.exit_codes import show
from textvae.cli.given import layout, own_model
from textvae.cli.options import OF_NEW_FILE, add_common, add_condition, add_run, new_parser
from textvae.config.types import PositiveInt
from textvae.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace

# Verdicts that a check may be for, from mildest to worst.
FAIL_ON = {
    "under-trained": "under-trained",
    "holes": "holes",
    "partial": "partly collapsed",
    "unread": "unread",
    "over-refined": "over-refined",
    "collapsed": "collapsed",
}
OPTIONS = (
    *("data", "condition", "device", "split", "baseline", "samples", "limit"),
    *("batch_size", "seed"),
)


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "say whether the latent variable is used and, if not, why and what to do",
        "textvae diagnose RUN [...]",
    )
    add_run(parser, "the split to examine")
    add = parser.add_argument
    add(
        "--baseline",
        type=str,
        help="the run of a language model on the same data, as a baseline for the reconstruction",
    )
    add("--samples", type=PositiveInt, default=20, help="draws of z per example")
    add("--limit", type=PositiveInt | None, help="examine at most LIMIT examples, evenly spaced")
    add(
        "--fail-on",
        choices=list(FAIL_ON),
        help="exit with status 1 if a finding is at least this bad, from mildest to worst: "
        f"{', '.join(FAIL_ON)}; with status 2 if there are too few examples to tell, or "
        "it is too early in training",
    )
    add("--json", action="store_true", help="print the diagnosis as JSON")
    add_common(parser)
    add_condition(parser, OF_NEW_FILE)
    return parser


def run(args: Namespace) -> int:
    """Diagnose the best model of a run, save the result in its folder, and print it.

    Returns:
        1 if a finding is at least as bad as ``--fail-on``, else 0.

    Raises:
        UserError: ``--fail-on`` cannot be answered, or as in ``diagnose_run``.
    """
    from textvae.evaluation.diagnosis.run_diagnosis import diagnose_run
    from textvae.runs.files import as_json

    options = {name: args[name] for name in OPTIONS}
    found = diagnose_run(args.run, model=own_model(args), reading=layout(args), **options)
    show(as_json(found.to_dict()) if args.json else found)
    failed = False if args.fail_on is None else found.is_at_least(FAIL_ON[args.fail_on])
    if failed is None:
        raise UserError(f"--fail-on {args.fail_on}: {found.why_undecided(FAIL_ON[args.fail_on])}")
    return int(failed)
