"""Is bf16 harmless? Train a small Skip-VAE in fp32, in bf16, and in fp32 with a tiny change.

    python benchmarks/precision_study.py --data FOLDER --out runs/precision --seeds 5 --json FILE

FOLDER contains `train.txt`, `valid.txt`, and `test.txt` with words separated by spaces, such as a
prepared Penn Treebank. The tiny change is a learning rate that differs by a millionth. Because
training is chaotic, even these runs end at different points, and only a larger difference could be
due to bf16. Every model is evaluated on the test split in fp32. For each metric, the table shows
the mean and standard deviation over seeds, and the mean difference from fp32 with the same seed and
its standard error. Runs that are already finished are not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does

from measuring import run_as_program

from textvae import Config, evaluate_run, train
from textvae.config.sections import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    TokenizerConfig,
    TrainConfig,
)
from textvae.errors import UserError
from textvae.runs.run_folder import is_run
from textvae.training.sweeps.manifest import check_run

NUDGE = 1e-6  # relative change of the learning rate
SAMPLES = "samples of the importance-weighted bound"
KINDS = {"fp32": ("fp32", 0.0), "bf16": ("bf16", 0.0), "fp32, nudged": ("fp32", NUDGE)}
FIGURES = ("iw", "elbo", "kl", "mi", "au")


def experiment(args: argparse.Namespace) -> Config:
    """Return a small version of PTB; free bits keep the KL above 0, so that it can be compared."""
    size = args.hidden
    return Config(
        data=DataConfig(dir=str(args.out / "corpus"), tokenized=True),
        tokenizer=TokenizerConfig(kind="word", vocab_size=args.vocab),
        model=ModelConfig(16, "skip", size, size, decoder_hidden=size),
        objective=ObjectiveConfig(kl_epochs=1.0, free_bits=4.0, free_bits_per="dim"),
        optim=OptimConfig(name="adam", lr=2e-3, schedule="cosine"),
        train=TrainConfig(epochs=args.epochs, threads=args.threads, samples=0, log_every=100),
    )


def shorten(source: Path, target: Path, sentences: int) -> None:
    """Copy the first sentences of each split, and a tenth as many for validation and test."""
    target.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid", "test"):
        count = sentences if split == "train" else sentences // 10
        found = next(iter(sorted(source.glob(f"*{split}.txt"))), None)
        if found is None:
            raise UserError(f"{source}: no file {split}.txt")
        with found.open(encoding="utf-8") as lines:
            (target / f"{split}.txt").write_text("".join(islice(lines, count)), encoding="utf-8")


def card_of(config: Config, kind: str, seed: int, out: Path, samples: int) -> dict[str, Any]:
    """Train and evaluate one run, unless this was done before."""
    precision, nudge = KINDS[kind]
    run = out / f"{precision}-{nudge:g}-{seed}"
    card = run / "metrics" / "test.json"
    config = replace(
        config,
        optim=replace(config.optim, lr=config.optim.lr * (1 + nudge)),
        train=replace(config.train, precision=precision, seed=seed),
    )
    check_run(run, config)
    if not card.exists():
        train(config, run, resume=is_run(run))
        return evaluate_run(run, samples=samples, generations=0)
    found: dict[str, Any] = json.loads(card.read_text(encoding="utf-8"))
    if found["samples"] != samples:
        return evaluate_run(run, samples=samples, generations=0)
    return found


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Return the mean and standard deviation."""
    values = list(values)
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def table(cards: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each kind: mean, standard deviation, and difference from fp32."""
    rows = []
    for kind, own in cards.items():
        row: dict[str, Any] = {"name": kind, "seeds": len(own)}
        for figure in FIGURES:
            row[figure], row[f"{figure}_sd"] = spread(card[figure] for card in own)
            pairs = zip(own, cards["fp32"], strict=True)
            mean, deviation = spread(card[figure] - plain[figure] for card, plain in pairs)
            row[f"{figure}_difference"] = mean
            row[f"{figure}_difference_se"] = deviation / math.sqrt(len(own))
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a Markdown table."""
    print("| | " + " | ".join(FIGURES) + " |\n|---|" + "--:|" * len(FIGURES))
    for row in rows:
        cells = [f"{row[f]:.3f} ± {row[f'{f}_sd']:.3f}" for f in FIGURES]
        print(f"| {row['name']} | " + " | ".join(cells) + " |")
    for row in rows[1:]:
        cells = [
            f"{row[f'{f}_difference']:+.3f} ± {row[f'{f}_difference_se']:.3f}" for f in FIGURES
        ]
        print(f"| {row['name']} − fp32 | " + " | ".join(cells) + " |")


def main() -> None:
    """Train, evaluate, print, and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the corpus")
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=10000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=20, help=SAMPLES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="save the rows to this file")
    args = parser.parse_args()
    shorten(args.data, args.out / "corpus", args.sentences)
    config, cards = experiment(args), {kind: [] for kind in KINDS}
    for seed in range(args.seeds):
        for kind, done in cards.items():
            done.append(card_of(config, kind, seed, args.out, args.samples))
    rows = table(cards)
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_as_program(main)
