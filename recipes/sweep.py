#!/usr/bin/env python
"""Train and evaluate every model of a recipe, for every combination of the values of some options.

    python recipes/sweep.py ptb --data CORPUS --out runs/ptb --models "lm vae skip_vae"
    python recipes/sweep.py mnist --data CORPUS --out runs/mnist --models "vae skip_vae" \
        --vary model.latent_dim=2,10,50

A model is a stack of files: ``small-vae`` is the recipe's base.yaml, small.yaml, and vae.yaml, in
that order, from recipes/methods and from the recipe's folder (both files, if both exist). Run it
again to skip finished runs and resume the others. Options that are not listed below are passed to
``textvae train``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import yaml

from textvae.config import Config
from textvae.errors import UserError

RECIPES = Path(__file__).resolve().parent


class Experiment(NamedTuple):
    """One run."""

    name: str  # of its run folder
    files: list[Path]
    options: list[str]


def stack(recipe: str, model: str) -> list[Path]:
    """Return the YAML files of a model, in order.

    Raises:
        UserError: There is no file for a part of the model's name.
    """
    files = [RECIPES / recipe / "base.yaml"]
    for part in model.split("-"):
        found = [RECIPES / folder / f"{part}.yaml" for folder in ("methods", recipe)]
        found = [file for file in found if file.exists()]
        if not found:
            raise UserError(f"{model}: no {part}.yaml in recipes/methods or recipes/{recipe}")
        files += found
    return files


def experiments(recipe: str, models: Sequence[str], vary: Sequence[str]) -> list[Experiment]:
    """Return every model with every combination of values; default values are not in its name.

    Args:
        recipe: The folder in recipes.
        models: The models.
        vary: Options and their values: ``model.latent_dim=2,10``.
    """
    grid = [(option, values.split(",")) for option, _, values in (v.partition("=") for v in vary)]
    found: dict[str, Experiment] = {}
    for model in models:
        files = stack(recipe, model)
        given = yaml.safe_load(Config.load(*files).to_yaml())
        for values in itertools.product(*(values for _, values in grid)):
            name, options = model, []
            for (option, _), value in zip(grid, values, strict=True):
                section, _, key = option.partition(".")
                if yaml.safe_load(value) != given.get(section, {}).get(key):
                    name += f"-{key}-{value}"
                    options += [f"--{option}", value]
            found.setdefault(name, Experiment(name, files, options))
    return list(found.values())


def commands(experiment: Experiment, args: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the commands of one run; each is built only after the previous one is done."""
    run = args.out / experiment.name
    if args.only != "evaluate":
        if (run / "config.yaml").exists():
            yield ["textvae", "train", "--resume", str(run), *args.train_options]
        else:
            stacked = [word for file in experiment.files for word in ("--config", _short(file))]
            place = ["--out", str(run), "--data.dir", args.data]
            yield ["textvae", "train", *stacked, *place, *experiment.options, *args.train_options]
    if args.only == "evaluate" or (args.only is None and not _is_evaluated(run, args.samples)):
        yield ["textvae", "evaluate", str(run), "--samples", str(args.samples)]
        if args.probe:
            yield ["textvae", "probe", str(run)]


def _short(file: Path) -> str:
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def _is_evaluated(run: Path, samples: int) -> bool:
    card, weights = run / "metrics" / "test.json", run / "model.safetensors"
    if not card.exists() or card.stat().st_mtime < weights.stat().st_mtime:
        return False
    return json.loads(card.read_text(encoding="utf-8")).get("samples") == samples


class Runner:
    """Runs commands in parallel; passes Ctrl-C on to each of them once and waits for them."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.running: set[subprocess.Popen[str]] = set()
        self.stopped = False

    def run_all(self, all_experiments: Sequence[Experiment], args: argparse.Namespace) -> int:
        """Run the commands of all experiments; return the first exit code that is not 0, else 0."""
        with ThreadPoolExecutor(self.jobs) as pool:
            # The last ones first: tables go from small to large, and the longest run sets the end.
            queue = reversed(all_experiments)
            futures = [pool.submit(self._run, each, args) for each in queue]
            try:
                statuses = [future.result() for future in futures]
            except KeyboardInterrupt:
                self.stopped = True
                for process in list(self.running):
                    with suppress(ProcessLookupError):
                        process.send_signal(signal.SIGINT)
                return 130
        return next(filter(None, statuses), 0)

    def _run(self, experiment: Experiment, args: argparse.Namespace) -> int:
        for command in commands(experiment, args):
            if self.stopped:
                return 130
            if status := self._call(command, experiment.name):
                return status
        return 0

    def _call(self, command: list[str], name: str) -> int:
        alone = self.jobs == 1
        print(f"\n-- {name}" if alone else f"[{name}] {' '.join(command[:2])}", flush=True)
        environment = os.environ if alone else os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(  # a new session does not receive the terminal's Ctrl-C
            command,
            env=environment,
            start_new_session=True,
            text=True,
            stdout=None if alone else subprocess.PIPE,
            stderr=None if alone else subprocess.STDOUT,
        )
        self.running.add(process)
        for line in process.stdout or ():
            print(f"[{name}] {line}", end="", flush=True)
        status = process.wait()
        self.running.discard(process)
        return abs(status)


def write_table(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Write the comparison of all runs as a section of a results page."""
    runs = [str(args.out / name) for name in names]
    command = ["textvae", "compare", *runs, "--provenance"]
    text = f"## {args.title}\n\n{subprocess.check_output(command, text=True)}"
    args.table.write_text(text, encoding="utf-8")
    print(text)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the options; unknown ones become ``train_options``."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("recipe", help="a folder in recipes, such as ptb")
    add("--data", required=True, help="the prepared corpus")
    add("--out", type=Path, required=True, help="the folder for the run folders")
    add("--models", required=True, help='which models, such as "lm small-vae"')
    add("--vary", action="append", default=[], metavar="OPTION=A,B", help="values to try")
    add("--samples", type=int, default=200, help="samples of the importance-weighted bound")
    add("--probe", action="store_true", help="also measure how well labels can be predicted from z")
    add("--jobs", type=int, default=1, help="number of parallel runs, with one thread each")
    add("--only", choices=["train", "evaluate"], help="evaluate: again, even if it is done")
    add("--table", type=Path, help="a Markdown file for the comparison of all runs")
    add("--title", default="Sweep", help="its heading")
    args, args.train_options = parser.parse_known_args(argv)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; return the exit code."""
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        found = experiments(args.recipe, args.models.split(), args.vary)
    except UserError as error:
        print(f"sweep.py: {error}", file=sys.stderr)
        return 2
    status = Runner(args.jobs).run_all(found, args)
    if status == 0 and args.table:
        write_table(args, [each.name for each in found])
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the runs as Ctrl-C does
    sys.exit(main())
