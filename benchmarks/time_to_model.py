"""How long it takes to get a good model from nothing, and where the minutes go.

    python benchmarks/time_to_model.py --data FOLDER --out runs/time --json FILE

Trains a stack of recipes, by default one that does not collapse on Penn Treebank, and checks the
target after every evaluation of the training: the perplexity of the importance-weighted bound and
the mutual information on the validation split. It stops at the first checkpoint of a model that
meets both, at the end of the training, or when the time is over. The checks are part of this
script, not of a training, so their time is listed but not counted. Interrupted, the same command
continues; the times then include those of the earlier parts.

The last row is what the steps so far would take with the plain PyTorch step of ``train_speed.py``
on padded random batches, as some published code trains.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
sys.path.insert(0, str(Path(__file__).parent))

import torch
from measuring import Row, measure, row, run_as_program, save, show, timed
from train_speed import PLAIN, PlainVAE, Size, random_batches, step_of

from textvae.config.experiment import Config
from textvae.config.recipes import method_files
from textvae.evaluation.evaluate_run import evaluate_run
from textvae.evaluation.metrics.metric import decimals
from textvae.runs import run_folder
from textvae.runs.files import read_record, write_json
from textvae.training import train as training
from textvae.training.loop import Trainer

RECIPES = Path(__file__).parent.parent / "recipes"
METHODS = "skip_vae-autoencode-free_bits-denoising-short"
PARTS = ("start-up", "data", "steps", "evaluation", "saving")
SPENT = "time-to-model.json"  # in the run folder: the seconds of every part so far


class Reached(Exception):
    """The model meets the target, and it is saved."""


class Watch:
    """Measures the parts of a training, and ends it once the model is good enough.

    Args:
        run: The run folder.
        args: The target, and how it is checked.
        began: When the program started, in seconds since the epoch.
    """

    def __init__(self, run: Path, args: argparse.Namespace, began: float) -> None:
        self.run, self.args, self.began = run, args, began
        before = read_record(run / SPENT) if (run / SPENT).exists() else {}
        self.seconds: dict[str, float] = dict.fromkeys((*PARTS, "checks"), 0.0) | before
        self.reached, self.figures = False, (float("nan"),) * 2

    def fit(self, original: Any, trainer: Trainer, stop: Any) -> None:
        """Run the loop; whatever came before it, except the data, was the start-up."""
        self.seconds["start-up"] += time.time() - self.began - self.reading
        self.earlier = dict(self.seconds)
        self.started = time.perf_counter()
        try:
            original(trainer, stop)
        finally:
            self.count_steps()

    def count_steps(self) -> None:
        """Count what the loop did besides evaluating, saving, and checking as steps."""
        others = ("evaluation", "saving", "checks")
        apart = sum(self.seconds[part] - self.earlier[part] for part in others)
        spent = time.perf_counter() - self.started - apart
        self.seconds["steps"] = self.earlier["steps"] + spent

    def build_data(self, original: Any, *given: Any, **options: Any) -> Any:
        """Read the data as the training does."""
        before = self.seconds["data"]
        with self.part("data"):
            splits = original(*given, **options)
        self.reading = self.seconds["data"] - before
        return splits

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time spent inside as that of a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def evaluate(self, original: Any, trainer: Trainer) -> None:
        """Evaluate as the training does, then compare the model with the target."""
        with self.part("evaluation"):
            original(trainer)
        card, args = trainer.card or {}, self.args
        if card.get("mi", 0) < args.mi or card["ppl_elbo"] > args.near * args.ppl:
            return
        with self.part("checks"):
            options = {"split": "valid", "samples": args.samples, "limit": args.limit}
            found = evaluate_run(
                self.run,
                data=args.data,
                model=type(trainer.model).from_pretrained(self.run),
                device=trainer.accelerator.device,
                generations=0,
                precision="bf16" if trainer.config.train.precision == "bf16" else "fp32",
                **options,
            )
        self.figures = (found["ppl_iw"], found["mi"])
        self.reached = found["ppl_iw"] <= args.ppl and found["mi"] >= args.mi

    def save(self, original: Any, trainer: Trainer) -> None:
        """Save as the training does; stop if the target is met or the time is over."""
        with self.part("saving"):
            original(trainer)
        self.count_steps()
        write_json(self.run / SPENT, self.seconds)
        if self.reached or sum(self.seconds[part] for part in PARTS) > 60 * self.args.minutes:
            raise Reached


def process_start() -> float:
    """Return when this process started, in seconds since the epoch, before any import."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time()


def run_training(config: Config, watch: Watch) -> None:
    """Train until the target is reached, or as long as the config or ``--minutes`` says."""
    resume = (watch.run / run_folder.CONFIG).exists()
    places = {(training, "build_data"): watch.build_data}
    for name in ("fit", "evaluate", "save"):
        places[Trainer, name] = getattr(watch, name)
    with ExitStack() as patches:
        for (place, name), timed_one in places.items():
            original = getattr(place, name)
            patches.enter_context(patch.object(place, name, around(timed_one, original)))
        with suppress(Reached):
            training.train(config, watch.run, resume=resume)


def around(timed_one: Any, original: Any) -> Any:
    """Return a plain function, which can also replace a method, with the original as argument."""

    def call(*given: Any, **options: Any) -> Any:
        return timed_one(original, *given, **options)

    return call


def plain_seconds(config: Config, args: argparse.Namespace) -> float:
    """Return the time of one plain PyTorch step at the size of a text model."""
    model, record = config.model, read_record(args.out / "config.json")
    shape = (model.embedding_dim, model.decoder_hidden, model.decoder_layers)
    size = Size(record["vocab_size"], *shape, length=args.length)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = PlainVAE(size, model.latent_dim).to(device)
    optimizer = PLAIN["sgd"](plain.parameters(), lr=0.1)
    turns = cycle([x.to(device) for x in random_batches(size, config.data.batch_size)])
    step = step_of(plain, optimizer, lambda: plain(next(turns)), "fp32")
    return timed(measure({"plain": step}, args.repeats)["plain"]).median


def table(config: Config, watch: Watch, args: argparse.Namespace) -> list[Row]:
    """Return a row for every part, their sum, and what plain steps would take."""
    summary = read_record(args.out / "training.json")
    total = sum(watch.seconds[part] for part in PARTS)
    named = {part: watch.seconds[part] for part in PARTS} | {"total": total}
    named["checks of the target, not counted"] = watch.seconds["checks"]
    if args.repeats:
        steps = f"{summary['steps']} plain PyTorch steps"
        named[steps] = summary["steps"] * plain_seconds(config, args)
    outcome = {"reached": str(watch.reached), "ppl_iw": decimals(watch.figures[0])}
    outcome |= {"mi": decimals(watch.figures[1]), "steps": summary["steps"]}
    rows = []
    for name, seconds in named.items():
        rows.append(row(name, 0, timed([seconds])) | {"seconds": seconds})
        rows[-1] |= {"minutes": seconds / 60, "share": seconds / total} | outcome
    return rows


COLUMNS = {"name": "{}", "minutes": "{:.2f}", "share": "{:.0%}"}


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = made.add_argument
    add("--data", required=True, help="the corpus")
    add("--out", type=Path, required=True, help="the run folder; one that exists is continued")
    add("--base", type=Path, default=RECIPES / "ptb" / "base.yaml", help="the first recipe")
    add("--methods", default=METHODS, help="the methods on top of it, joined by hyphens")
    add("--config", type=Path, nargs="*", default=[], help="further YAML files, the last ones")
    add("--ppl", type=float, default=105.0, help="perplexity of the bound to reach (105: test 100)")
    add("--mi", type=float, default=5.0, help="mutual information to reach, nats")
    add("--near", type=float, default=1.15, help="check once the ELBO is within this factor")
    add("--samples", type=int, default=50, help="samples of the bound in a check")
    add("--limit", type=int, help="examples of a check; default: the whole validation split")
    add("--minutes", type=float, default=60.0, help="stop after this time")
    add("--length", type=int, default=22, help="mean tokens per sentence of the plain steps")
    add("--repeats", type=int, default=8, help="plain steps that are measured; 0: none")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--json", type=Path, help="save the rows to this file")
    return made


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Train, measure, print, and save; return the rows."""
    args = parser().parse_args(words)
    files = [args.base, *method_files(args.base, args.methods), *args.config]
    settings = {"data": {"dir": args.data}, "train": {"threads": args.threads}}
    config = Config.load(*files, **settings)
    watch = Watch(args.out, args, process_start() if words is None else time.time())
    run_training(config, watch)
    rows = table(config, watch, args)
    told = "reached" if watch.reached else "not reached"
    show(
        f"perplexity {args.ppl:g} and MI {args.mi:g}: {told} after {rows[0]['steps']} steps "
        f"(at the last check {rows[0]['ppl_iw']} and {rows[0]['mi']}), {args.threads} threads",
        rows,
        COLUMNS,
    )
    save(rows, args.json)
    return rows


if __name__ == "__main__":
    run_as_program(main)
