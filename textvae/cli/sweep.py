"""``textvae sweep``: a grid of runs, trained, evaluated, and compared."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import ArgumentParser

from textvae.cli.exit_codes import show
from textvae.cli.given import own_parts
from textvae.cli.options import (
    OWN_PARTS,
    add_measures,
    add_own_metrics,
    add_own_parts,
    new_parser,
)
from textvae.config.types import PositiveInt
from textvae.errors import UserError, quantity

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """Return the parser of the command, without the options of ``train`` that it takes, too."""
    parser = new_parser(
        "train, evaluate, and compare a grid of runs",
        "textvae sweep --config FILE ... --out DIR [--methods NAME ...] "
        "[--vary SECTION.NAME=A,B ...]\n"
        "                     [--seeds N] [--jobs N] [--SECTION.NAME VALUE ...]",
    )
    parser.epilog = (
        "--config FILE (may be repeated) and --SECTION.NAME VALUE are options of\n"
        "textvae train; see textvae train --help."
    )
    add = parser.add_argument
    add("--out", required=True, help="the folder of the sweep, with a folder for every run")
    add(
        "--vary",
        action="append",
        default=[],
        metavar="SECTION.NAME=A,B",
        help="values of an option to try; if given more than once, all combinations; "
        "own-objective=none,FILE.py:NAME compares an objective of your own with the config's "
        "(likewise the other --own-... options)",
    )
    add(
        "--methods",
        nargs="+",
        default=[],
        metavar="NAME",
        help="methods to try: stacks of files in recipes/methods and next to the base, such as "
        "skip_vae or skip_vae-free_bits",
    )
    add("--seeds", type=PositiveInt, default=1, help="number of seeds per model")
    add("--jobs", type=PositiveInt, default=1, help="number of runs to execute in parallel")
    add_measures(parser)
    add_own_metrics(parser)
    add("--probe", action="store_true", help="also predict labels from z")
    add("--no-report", action="store_true", help="do not write report.html at the end")
    add("--train-only", action="store_true", help="do not evaluate the runs")
    _add_launcher(parser)
    add_own_parts(parser)
    add(
        "--run",
        type=str,
        metavar="NAME",
        help="train and evaluate only this run of the manifest in DIR, in this process",
    )
    return parser


def _add_launcher(parser: ArgumentParser) -> None:
    """Add where the runs are trained."""
    add = parser.add_argument
    add(
        "--launcher",
        choices=["local", "submitit"],
        default="local",
        help="processes on this machine with one thread each (--train.threads for more), or jobs "
        "of a cluster",
    )
    add(
        "--launcher-options",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of submitit's executor, such as timeout_min=60 slurm_partition=gpu",
    )


def run(args: Namespace) -> int:
    """Run a sweep, or one of its runs; return 1 if a run failed."""
    if args.run is not None:
        _run_one(args)
        return 0
    from textvae.training.sweeps.sweep import sweep

    done = sweep(
        *args.files,
        out=args.out,
        methods=args.methods,
        vary=args.vary,
        seeds=args.seeds,
        jobs=args.jobs,
        evaluate=not args.train_only,
        samples=args.samples,
        generations=args.generations,
        precision=args.precision,
        probe=args.probe,
        with_report=not args.no_report,
        launcher=args.launcher,
        launcher_options=_parameters(args.launcher_options),
        own_parts=own_parts(args),
        own_metrics=args.own_metric,
        **args.sections,
    )
    if done.table:
        show(done.table)
    if done.failed:
        print(
            f"{len(done.failed)} of "
            f"{quantity(len(done.runs) + len(done.failed), 'run')} failed: "
            f"{', '.join(done.failed)}; run the same command again to retry them",
            file=sys.stderr,
        )
    return 1 if done.failed else 0


def _run_one(args: Namespace) -> None:
    """Train and evaluate one run of a manifest, which has all of its options."""
    from textvae.training.sweeps.job import run_job

    defaults = vars(parser().get_defaults())
    ignored = {"out", "run", "vary", "own_metric", *(f"own_{part}" for part in OWN_PARTS)}
    names = defaults.keys() - ignored
    others = any(args[name] != defaults[name] for name in names)
    if args.files or args.sections or args.vary or others:
        raise UserError(
            "--run takes its options from the manifest: give only --out and --own-... with it"
        )
    run_job(args.out, args.run, own_parts=own_parts(args), own_metrics=args.own_metric)


def _parameters(words: list[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` words."""
    parameters = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(f"--launcher-options {word}: must be NAME=VALUE")
        try:
            parameters[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--launcher-options {word}: not a value in YAML") from None
    return parameters
