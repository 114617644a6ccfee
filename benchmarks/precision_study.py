"""Is bf16 harmless? The same small Skip-VAE trained in fp32, in bf16, and in fp32 from a nudge.

    python benchmarks/precision_study.py --data FOLDER --out runs/precision --seeds 5 --json FILE

FOLDER holds `train.txt`, `valid.txt`, `test.txt` of words separated by spaces, such as a prepared
Penn Treebank. A learning rate that differs by a millionth is the nudge: training is chaotic, so
two runs that differ by no more than that end apart as well, and only what exceeds that distance
could be bf16's doing. Every model is evaluated on the test split in fp32. For each figure the table
gives mean and standard deviation over seeds, and the mean difference to fp32 at the same seed with
its standard error. Finished runs are not repeated.
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

from textvae.config.experiment import (
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    TokenizerConfig,
    TrainConfig,
)
from textvae.evaluation.run_card import evaluate_run
from textvae.training.train import train

NUDGE = 1e-6  # of the learning rate
KINDS = {"fp32": ("fp32", 0.0), "bf16": ("bf16", 0.0), "fp32, nudged": ("fp32", NUDGE)}
FIGURES = ("iw", "elbo", "kl", "mi", "au")


def experiment(args: argparse.Namespace) -> Config:
    """PTB in small: free bits keep the KL alive, so that there is something to compare."""
    size = args.hidden
    return Config(
        data=DataConfig(dir=str(args.out / "corpus"), tokenized=True),
        tokenizer=TokenizerConfig(kind="word", vocab_size=args.vocab),
        model=ModelConfig(16, "skip", size, size, decoder_hidden=size),
        objective=ObjectiveConfig(kl_epochs=1.0, free_bits=4.0),
        optim=OptimConfig(name="adam", lr=2e-3, schedule="cosine"),
        train=TrainConfig(epochs=args.epochs, threads=args.threads, samples=0, log_every=100),
    )


def shorten(source: Path, target: Path, sentences: int) -> None:
    """The first sentences of each split; of validation and test a tenth as many."""
    target.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid", "test"):
        count = sentences if split == "train" else sentences // 10
        found = next(iter(sorted(source.glob(f"*{split}.txt"))))
        with found.open(encoding="utf-8") as lines:
            (target / f"{split}.txt").write_text("".join(islice(lines, count)), encoding="utf-8")


def card_of(config: Config, kind: str, seed: int, out: Path, samples: int) -> dict[str, Any]:
    """Trains and evaluates one run, unless that is done."""
    precision, nudge = KINDS[kind]
    run = out / f"{precision}-{nudge:g}-{seed}"
    card = run / "metrics" / "test.json"
    if not card.exists():
        config = replace(
            config,
            optim=replace(config.optim, lr=config.optim.lr * (1 + nudge)),
            train=replace(config.train, precision=precision, seed=seed),
        )
        train(config, run)
        return evaluate_run(run, samples=samples, generations=0)
    return json.loads(card.read_text(encoding="utf-8"))


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    values = list(values)
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def table(cards: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each kind: of each figure its mean, its spread, and its distance to fp32."""
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
    """As Markdown."""
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
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=10000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=20, help="of the importance-weighted bound")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="save the rows there")
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
    main()
