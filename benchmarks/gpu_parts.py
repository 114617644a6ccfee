"""The parts of ``benchmarks/gpu.sh``: each checks or measures something on a GPU.

    python benchmarks/gpu_parts.py PART --out DIR [--dry] [--seconds N] [--data FOLDER]

A part consists of several measurements, the most important ones first. ``DIR/PART.json`` is saved
after each, so that nothing is lost if the time is over; a measurement that fails is reported, and
the next one runs. With ``--dry``, everything runs at tiny sizes on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from measuring import Row

from textvae.runs.files import replace_file
from textvae.runs.origin import commit

ROOT = Path(__file__).resolve().parent.parent
TESTS, RECIPES = ROOT / "tests", ROOT / "recipes"
RESERVE = 20  # seconds: a measurement does not start if less is left


class Part:
    """Runs the measurements of a part, one after another, and saves what they found.

    Args:
        args: The options of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.dry = args, args.dry
        self.device = "cpu" if args.dry else "cuda"
        self.started = time.monotonic()
        self.found: list[dict[str, Any]] = []

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.args.seconds - (time.monotonic() - self.started)

    def run(self, name: str, measure: Callable[[list[str]], list[Row]], *words: object) -> None:
        """Make one measurement: call the ``main`` of a script with these words.

        Args:
            name: Its name in the file.
            measure: Returns rows.
            words: Options of the script.
        """
        command = [str(word) for word in words]
        record: dict[str, Any] = {"name": name, "command": command}
        self.found.append(record)
        began = time.monotonic()
        print(f"\n== {self.args.part}: {name} ==", flush=True)
        if self.left() < RESERVE:
            record["skipped"] = "the time is over"
            print(record["skipped"])
        else:
            try:
                record["rows"] = measure(command)
            except (Exception, SystemExit) as error:  # the next measurement may work
                traceback.print_exc()
                record["error"] = f"{type(error).__name__}: {error}"
        record["seconds"] = round(time.monotonic() - began, 1)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.save()

    def save(self) -> None:
        """Write everything found so far."""
        on_gpu = not self.dry and torch.cuda.is_available()
        content = {
            "part": self.args.part,
            "dry": self.dry,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "torch": torch.__version__,
            "commit": commit(),
            "measurements": self.found,
        }
        path = self.args.out / f"{self.args.part}.json"
        text = json.dumps(content, indent=1) + "\n"
        replace_file(path, lambda file: file.write_text(text, encoding="utf-8"))

    def failed(self) -> list[str]:
        """Return the names of the measurements that failed or found a mistake."""
        wrong = [record["name"] for record in self.found if "error" in record]
        checks = (row for record in self.found for row in record.get("rows", ()))
        return wrong + [row["name"] for row in checks if row.get("outcome") == "failed"]


def check(part: Part) -> None:
    """Run every test under the mark ``gpu``; in a dry run, those that are quick on a CPU."""
    import pytest

    files = [path for path in sorted(TESTS.glob("test_*.py")) if "mark.gpu" in path.read_text()]
    words: list[object] = [*files, "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    if part.dry:
        os.environ["TEXTVAE_GPU_TESTS"] = "cpu"
        words += ["-k", "test_gpu and not _run_"]

    def tests(command: list[str]) -> list[Row]:
        outcomes = Outcomes()
        if (code := pytest.main(command, plugins=[outcomes])) not in (0, 1):
            outcomes.rows.append({"name": f"pytest: {code!r}", "outcome": "failed"})
        return outcomes.rows

    part.run("tests", tests, *words)


class Outcomes:
    """A pytest plugin that remembers the outcome of every test."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Remember a test that ran or was skipped, and a fixture that failed."""
        if report.when != "call" and report.outcome == "passed":
            return
        why = report.longreprtext[-2000:] if report.failed else None
        seconds = round(report.duration, 2)
        row = {"name": report.nodeid, "outcome": report.outcome, "seconds": seconds, "why": why}
        self.rows.append(row)


def train(part: Part) -> None:
    """Measure training steps of all models at all sizes, next to plain PyTorch steps."""
    import train_speed

    settings = [("yahoo", 32), ("ptb", 32), ("large", 32)]
    settings += [(size, n) for n in (128, 512, 64, 256) for size in ("yahoo", "ptb", "large")]
    for size, batch in [("tiny", 4)] if part.dry else settings:
        words = ["--size", size, "--batch", batch, "--device", part.device, "--precision", "fp32"]
        words += ["bf16", "--padded", "--repeats", 1 if part.dry else 7]
        part.run(f"{size}, batch {batch}", train_speed.main, *words)
    words = ["--size", "tiny" if part.dry else "yahoo", "--device", part.device]
    words += ["--optimizer", "adam", "--models", "skip_vae", "--repeats", 1 if part.dry else 7]
    part.run("Adam", train_speed.main, *words)


def refine(part: Part) -> None:
    """Measure semi-amortized steps, and the algorithm of the reference."""
    import refine_speed

    for size in ["tiny"] if part.dry else ["yahoo", "ptb"]:
        words = ["--size", size, "--device", part.device, "--steps", 2 if part.dry else 20]
        words += ["--precision", "bf16", "fp32", "--repeats", 1 if part.dry else 3]
        part.run(size, refine_speed.main, *words)


def generate(part: Part) -> None:
    """Measure generation: sampling at several batch sizes, greedy, top-k, top-p, and beams."""
    import generate_speed

    batches = ["1", "8"] if part.dry else ["1", "32", "256", "2048"]
    for size in ["tiny"] if part.dry else ["yahoo", "ptb"]:
        for precision in ("bf16", "fp32"):
            words = ["--size", size, "--device", part.device, "--precision", precision]
            words += ["--repeats", 1 if part.dry else 3, "--batches", *batches]
            part.run(f"{size}, {precision}", generate_speed.main, *words)


def evaluate(part: Part) -> None:
    """Measure the importance-weighted bound with 500 samples, and mutual information."""
    import evaluate_speed

    count = ["--sentences", 5, "--samples", 3, "--examples", 20]
    count = count if part.dry else ["--sentences", 1000, "--samples", 500]
    for size in ["tiny"] if part.dry else ["ptb", "yahoo"]:
        for precision in ("bf16", "fp32"):
            words = ["--size", size, "--device", part.device, "--precision", precision, *count]
            part.run(f"{size}, {precision}", evaluate_speed.main, *words)


def images(part: Part) -> None:
    """Measure the PixelCNN: training steps, and samplers."""
    import pixelcnn_speed

    tiny = ["--layers", 2, "--side", 8, "--count", 2, "--repeats", 1]
    for count in [2] if part.dry else [64, 512]:
        words = tiny if part.dry else ["--layers", 9, 3, "--count", count]
        words = [*words, "--precision", "fp32", "bf16", "--device", part.device]
        part.run(f"{count} images", pixelcnn_speed.main, *words)


def profile(part: Part) -> None:
    """Find out where the time of a training step goes."""
    import profile_step

    for size, batch in [("tiny", 4)] if part.dry else [("yahoo", 32), ("ptb", 32), ("yahoo", 256)]:
        words = ["--size", size, "--batch", batch, "--device", part.device]
        words += ["--models", "vae", "skip_vae", "--repeats", 2 if part.dry else 10]
        part.run(f"{size}, batch {batch}", profile_step.main, *words)


def ptb(part: Part) -> None:
    """Train on Penn Treebank until the target is reached, and evaluate the model."""
    import time_to_model

    from textvae.evaluation.evaluate_run import evaluate_run

    corpus, run, words = part.args.data / "ptb", part.args.out / "ptb", []
    if part.dry:
        corpus = small_corpus(part.args.out / "corpus")
        small = part.args.out / "small.yaml"
        small.write_text(
            "model: {latent_dim: 2, embedding_dim: 4, encoder_hidden: 4, decoder_hidden: 4}\n"
            "train: {epochs: 2, samples: 0, autoencode_epochs: 1, precision: fp32}\n"
        )
        words = ["--config", small, "--mi", 0, "--near", 99, "--samples", 2, "--repeats", 1]
    minutes = max(1.0, (part.left() - 90) / 60)  # the rest is for the evaluation
    words += ["--data", corpus, "--out", run, "--minutes", minutes]
    part.run("training", time_to_model.main, *words)

    def card(_: list[str]) -> list[Row]:
        options = {"samples": 2, "generations": 2} if part.dry else {"samples": 500}
        found = evaluate_run(run, data=corpus, device=part.device, **options)
        print(found)
        return [{"name": "test", **found}]

    part.run("card", card)


def mnist(part: Part) -> None:
    """Train rows of the paper's PixelCNN table, side by side on one card, and evaluate them."""
    from textvae.training.sweeps.sweep import sweep

    data, layers, options = part.args.data / "mnist", [9, 3], {"epochs": 15}
    shapes: dict[str, Any] = {}
    if part.dry:
        data, layers, options = small_images(part.args.out / "images"), [1], {"max_steps": 2}
        shapes = {"model": {"latent_dim": 2}, "images": {"encoder_hidden": 2, "decoder_hidden": 2}}

    def rows(_: list[str]) -> list[Row]:
        done = sweep(
            RECIPES / "mnist" / "base.yaml",
            out=part.args.out / "mnist",
            methods=["vae"] if part.dry else ["vae", "skip_vae"],
            vary={"images.decoder_layers": layers},
            jobs=len(layers) * 2,
            samples=2 if part.dry else 20,
            with_report=False,
            data={"dir": str(data)},
            optim={"schedule": "cosine"},
            train={"samples": 0, **options},
            **shapes,
        )
        print(done.table)
        if done.failed:
            raise RuntimeError(f"runs that failed: {done.failed}")
        cards = {run.name: json.loads((run / "metrics/test.json").read_text()) for run in done.runs}
        return [{"name": name, **card} for name, card in cards.items()]

    part.run("PixelCNN", rows)


def small_corpus(folder: Path) -> Path:
    """Write sentences of random letters."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    for split, count in (("train", 40), ("valid", 10), ("test", 10)):
        lines = [
            " ".join(rng.choices("abcdefgh", k=rng.randint(2, 7))) + "\n" for _ in range(count)
        ]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def small_images(folder: Path) -> Path:
    """Write random images in the layout of ``data/mnist/prepare.py``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("valid", 10), ("test", 10)):
        np.savez(folder / f"{split}.npz", images=rng.integers(0, 256, (count, 8, 8), np.uint8))
    return folder


PARTS = (check, train, refine, generate, evaluate, images, profile, ptb, mnist)


def main(words: Sequence[str] | None = None) -> int:
    """Run one part; return 1 if one of its measurements failed."""
    named = {part.__name__: part for part in PARTS}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=named)
    parser.add_argument("--out", type=Path, required=True, help="the folder for the results")
    parser.add_argument("--data", type=Path, default=Path("data"), help="has folders ptb and mnist")
    parser.add_argument("--seconds", type=float, default=450, help="start nothing after this time")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on the CPU")
    args = parser.parse_args(words)
    if args.dry:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # whatever asks for a GPU finds none
    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    part = Part(args)
    named[args.part](part)
    for name in (failed := part.failed()):
        print(f"FAILED: {args.part}: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
