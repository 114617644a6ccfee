"""From a text file to a batch: reading, tokenizing, batching, and start-up.

    python benchmarks/data_speed.py --documents 1000000 --json FILE

The corpus is sampled from the grammar of data/toy. It is read and tokenized into an empty cache;
then one epoch of batches is taken from the memory-mapped cache. Start-up is the whole command
`textvae train`, from its call to the end of a run of one update, with a warm cache and a tiny
model. The last row is the time of its imports alone.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "data" / "toy"))

from grammar import Grammar
from measuring import CLOCKS, PACKAGE, Row, row, run_as_program, save, show, timed

from textvae.text.data.corpus import read_corpus, texts
from textvae.text.data.encoded import encode_corpus
from textvae.text.tokenizers.words import WordTokenizer
from textvae.training.devices import keep_freed_memory
from textvae.vae.batching import BatchLoader, LengthBuckets

HELD_OUT = 64  # documents in the validation split and in the test split
TINY = ["--model.latent_dim", "4", "--model.embedding_dim", "8", "--model.encoder_hidden", "8"]
TINY += ["--model.decoder_hidden", "8", "--train.samples", "0", "--train.max_steps", "1"]


def write_corpus(folder: Path, documents: int) -> None:
    """Write documents sampled from the grammar, one per line."""
    grammar, rng = Grammar.load(), random.Random(0)
    for split, count in (("train", documents), ("valid", HELD_OUT), ("test", HELD_OUT)):
        with (folder / f"{split}.txt").open("w", encoding="utf-8") as file:
            file.writelines(f"{grammar.sample(rng)[0]}\n" for _ in range(count))


def seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Time a single call: a second one would find everything in the cache."""
    started = clock()
    run()
    return clock() - started


def children_cpu() -> float:
    """Return the processor time of all commands that have ended, in seconds."""
    spent = os.times()
    return spent.children_user + spent.children_system


def data_rows(folder: Path, documents: int, clock: Callable[[], float]) -> list[Row]:
    """Measure reading, tokenizing, and one epoch of batches."""
    place, made = {"dir": folder, "cache_dir": folder / "cache"}, {}

    def read() -> None:
        made["corpus"] = read_corpus(**place)

    def tokenize() -> None:
        made["splits"] = encode_corpus(made["corpus"], tokenizer, cache_dir=place["cache_dir"])

    def batch() -> None:
        split = made["splits"]["train"]
        made["tokens"] = sum(
            int(b.lengths.sum()) for b in BatchLoader(split, LengthBuckets(split.lengths))
        )

    spent = {"read": seconds(read, clock)}
    tokenizer = WordTokenizer.train(texts(made["corpus"]["train"]))
    spent["tokenize"] = seconds(tokenize, clock)
    spent["batch"] = seconds(batch, clock)
    return [
        row(f"{name}, {documents:,} documents", made["tokens"], timed([s]), docs_s=documents / s)
        for name, s in spent.items()
    ]


def start_rows(folder: Path, repeats: int, clock: Callable[[], float]) -> list[Row]:
    """Measure commands in separate processes; the first run fills the cache and is not counted."""
    if not repeats:
        return []
    options = ["--data.dir", str(folder), "--data.tokenized", "true"]
    options += ["--data.cache_dir", str(folder / "cache"), *TINY]
    commands = {
        "start-up, one update and its evaluation": ["-m", "textvae", "train", *options],
        "start-up, imports alone": ["-c", "import textvae.training.train"],
    }
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}  # not another checkout
    rows = []
    for name, words in commands.items():
        spent = []
        for repeat in range(repeats + 1):
            out = ["--out", str(folder / f"run{repeat}")] if "train" in words else []
            command = [sys.executable, *words, *out]
            run = partial(
                subprocess.run,
                command,
                check=True,
                capture_output=True,
                cwd=folder,
                env=environment,
            )
            spent.append(seconds(run, clock))
        rows.append(row(name, 0, timed(spent[1:]), docs_s=None, tok_s=None))
    return rows


def main() -> None:
    """Measure, print, and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=1_000_000, help="training documents")
    parser.add_argument("--repeats", type=int, default=5, help="start-ups to measure, or 0")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, help="save the rows to this file")
    args = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as place:
        write_corpus(Path(place), args.documents)
        rows = data_rows(Path(place), args.documents, CLOCKS[args.clock])
        clock = children_cpu if args.clock == "cpu" else CLOCKS["wall"]
        rows += start_rows(Path(place), args.repeats, clock)
    columns = {"name": "{}", "docs_s": "{:,.0f}", "tok_s": "{:,.0f}", "ms": "{:,.0f}"}
    columns |= {"ms_min": "{:,.0f}", "ms_max": "{:,.0f}", "peak_rss_mb": "{:,.0f}"}
    show(f"{args.documents:,} documents, {args.clock} time", rows, columns)
    save(rows, args.json)


if __name__ == "__main__":
    run_as_program(main)
