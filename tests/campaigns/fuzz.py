"""Generated inputs for every command: an exit status of 0 or 2, and one line for what is wrong.

    python -m tests.campaigns.fuzz --cases 10000 --seed 0

Every case changes bytes in a corpus, in a file of a run folder, in a configuration, in a file of
latent vectors, or in files of images, or draws odd options, and runs a command on it in a child
process with limits on time and memory. A case fails if the command ends in another way, shows a
traceback, or changes a file that it should only read. The number of a case and the seed reproduce
it: ``--only N``.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import hashlib
import json
import os
import random
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.campaigns.commands import TINY, Outcome, forked, import_everything, write_corpus

ODD = [
    *("", " ", "-1", "0", "1e-320", "1e400", "nan", "-inf", "null", "~", "true", "[]", "{}", "'"),
    *("9" * 30, "x" * 300, "\x00", "\udc80", "é", "../..", "-", "--", "a,b", "0x10", "1_0", "1.5"),
]
OPTIONS = {
    "train": [
        *("--data.dir", "--data.format", "--data.max_length", "--tokenizer.vocab_size"),
        *("--model.latent_dim", "--model.injection", "--model.kappa", "--objective.beta"),
        *("--objective.free_bits", "--optim.lr", "--optim.clip", "--train.seed", "--train.init"),
        *("--train.max_steps", "--out", "--config", "--train.init_embeddings"),
    ],
    "sample": ["-n", "--temperature", "--top-k", "--top-p", "--num-beams", "--seed", "--device"],
    "evaluate": ["--split", "--samples", "--limit", "--data", "--precision", "--refine-steps"],
    "reconstruct": ["--file", "--use", "--max-new-tokens", "--no-repeat-ngram-size"],
    "interpolate": ["--steps", "--kind", "--repetition-penalty"],
    "encode": ["--out", "--batch-size"],
    "probe": ["--labels", "--split"],
    "score": ["--samples", "--regret-steps", "--format", "--positive", "--out"],
    "diagnose": ["--samples", "--limit", "--baseline", "--fail-on"],
    "traverse": ["--dim", "--steps", "--span", "-n"],
    "neighbors": ["-n", "--distance", "--split"],
}
FORMATS = ("txt", "tsv", "csv", "jsonl", "parquet", "txt.gz")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Change, insert, repeat, or delete bytes."""
    data = bytearray(content or b"\n")
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        place = rng.randrange(len(data))
        match rng.randrange(6):
            case 0 | 1:
                data[place] = rng.randrange(256)
            case 2:
                data[place:place] = rng.choice(
                    [b"\x00", b"\r", b"\xff\xfe", b'"', b"\t", b"[" * 5000, b"1e999", b"null"]
                )
            case 3:
                del data[place : place + rng.randrange(1, 50)]
            case 4:
                data[place:place] = data[place : place + rng.randrange(1, 200)]
            case 5:
                del data[place:]
        data = data or bytearray(b"\n")
    return bytes(data)


class Fuzzer:
    """Makes cases from a seed.

    Args:
        folder: Where to work.
        seed: The seed of the campaign.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.corpus = write_corpus(folder / "corpus")
        self.run = folder / "run"
        ended = forked(self._train(self.corpus, self.run), folder)
        assert ended.status == 0, ended.errors
        latents = forked(["encode", str(self.run), str(self.corpus / "test.txt")], folder)
        assert latents.status == 2  # no --out
        for ending in ("npz", "parquet"):
            made = ["encode", str(self.run), str(self.corpus / "test.txt"), "--out", f"l.{ending}"]
            assert forked(made, folder).status == 0
        assert forked(["evaluate", str(self.run), "--samples", "2"], folder).status == 0

    def _train(self, corpus: Path, out: Path) -> list[str]:
        where = ["--data.dir", str(corpus), "--out", str(out)]
        return ["train", *TINY, *where, "--train.epochs", "1", "--train.save_every", "3"]

    def case(self, number: int) -> str | None:
        """Run a case; return what went wrong."""
        rng = random.Random(f"{self.seed}/{number}")
        place = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            kinds: list[Callable] = [self._corpus, self._run_file, self._options, self._latents]
            kinds += [self._run_file, self._config, self._images]
            argv, watched = rng.choice(kinds)(place, rng)
            before = fingerprint(watched)
            outcome = forked(argv, place)
            why = fault(outcome)
            if why is None and fingerprint(watched) != before:
                why = "changed a file that it should only read"
            return None if why is None else f"{' '.join(argv)!r}: {why}"
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _corpus(self, place: Path, rng: random.Random):
        ending = rng.choice(FORMATS)
        path = place / f"c.{ending}"
        path.write_bytes(damaged(self._as(ending), rng))
        if rng.random() < 0.3:
            return ["encode", str(self.run), str(path), "--out", "x.npz"], [path, self.run]
        return [*self._train(path, place / "new"), "--train.max_steps", "2"], [path]

    def _as(self, ending: str) -> bytes:
        rows = [line.split("\t") for line in (self.corpus / "train.txt").read_text().splitlines()]
        match ending:
            case "csv":
                return ("label,text\n" + "".join(f'{a},"{b}"\n' for a, b in rows)).encode()
            case "jsonl":
                return "".join(json.dumps({"label": a, "text": b}) + "\n" for a, b in rows).encode()
            case "parquet":
                import io

                import pyarrow
                import pyarrow.parquet

                columns = {"label": [a for a, _ in rows], "text": [b for _, b in rows]}
                sink = io.BytesIO()
                pyarrow.parquet.write_table(pyarrow.table(columns), sink)
                return sink.getvalue()
        plain = (self.corpus / "train.txt").read_bytes()
        return gzip.compress(plain, mtime=0) if ending.endswith(".gz") else plain

    def _run_file(self, place: Path, rng: random.Random):
        run = place / "run"
        shutil.copytree(self.run, run)
        files = sorted(path for path in run.rglob("*") if path.is_file())
        path = rng.choice([path for path in files if "tfevents" not in path.name])
        path.write_bytes(damaged(path.read_bytes(), rng))
        resume = ["train", "--resume", str(run), "--train.epochs", "2"]
        sample, encode = ["sample", str(run), "-n", "2"], ["encode", str(run), str(self.corpus)]
        evaluate = ["evaluate", str(run), "--samples", "2", "--limit", "4"]
        compare = ["compare", str(run), str(self.run)]
        encode = ["encode", str(run), str(self.corpus / "test.txt"), "--out", "x.npz"]
        return rng.choice([resume, resume, sample, encode, evaluate, compare]), [self.corpus]

    def _config(self, place: Path, rng: random.Random):
        path = place / "c.yaml"
        path.write_bytes(damaged((self.run / "config.yaml").read_bytes(), rng))
        train = self._train(self.corpus, place / "new")
        return [*train, "--config", str(path), "--train.max_steps", "1"], [path]

    def _latents(self, place: Path, rng: random.Random):
        ending = rng.choice(["npz", "parquet"])
        path = place / f"l.{ending}"
        path.write_bytes(damaged((self.folder / f"l.{ending}").read_bytes(), rng))
        return ["decode", str(self.run), str(path)], [path, self.run]

    def _images(self, place: Path, rng: random.Random):
        folder = place / "images"
        pixels = np.random.default_rng(0).integers(0, 256, (24, 7, 7), dtype=np.uint8)
        labels = np.arange(24, dtype=np.uint8) % 3
        if rng.random() < 0.5:
            _write_idx(folder, pixels, labels)
        else:
            folder.mkdir()
            names = ("x_train", "y_train", "x_test", "y_test")
            parts = (pixels, labels, pixels[:6], labels[:6])
            np.savez_compressed(folder / "x.npz", **dict(zip(names, parts, strict=True)))
        path = rng.choice(sorted(folder.iterdir()))
        path.write_bytes(damaged(path.read_bytes(), rng))
        where = path if path.suffix == ".npz" else folder
        options = ["--data.kind", "images", "--data.dir", str(where), "--model.latent_dim", "2"]
        options += ["--images.encoder", "mlp", "--images.decoder", "mlp", "--train.max_steps", "1"]
        options += ["--images.encoder_hidden", "8", "--images.decoder_hidden", "8"]
        return ["train", *options, "--out", str(place / "new"), "--train.samples", "1"], [folder]

    def _options(self, place: Path, rng: random.Random):
        command = rng.choice(list(OPTIONS))
        values = [value for value in ODD if "\x00" not in value]  # no system accepts it
        given = [
            word
            for option in rng.sample(OPTIONS[command], rng.choice([1, 1, 2]))
            for word in (option, rng.choice(values))
        ]
        if command == "train":
            start = [*self._train(self.corpus, place / "new"), "--train.max_steps", "1"]
            return [*start, *given], []
        run = place / "run"
        shutil.copytree(self.run, run)
        more = {"interpolate": ["a", "b"], "encode": [str(self.corpus / "test.txt")]}
        more["reconstruct"] = more["neighbors"] = ["the cat"]
        more["score"] = [str(self.corpus / "test.txt")]
        return [command, str(run), *more.get(command, []), *given], [self.corpus]


def _write_idx(folder: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Write images as MNIST is published."""
    folder.mkdir()
    for name, count in (("train", len(pixels)), ("t10k", 6)):
        for kind, part in (("images-idx3", pixels[:count]), ("labels-idx1", labels[:count])):
            head = struct.pack(f">HBB{part.ndim}I", 0, 8, part.ndim, *part.shape)
            content = head + part.tobytes()
            packed = gzip.compress(content, mtime=0) if kind == "labels-idx1" else content
            ending = ".gz" if kind == "labels-idx1" else ""
            (folder / f"{name}-{kind}-ubyte{ending}").write_bytes(packed)


def fault(outcome: Outcome) -> str | None:
    """Return what is wrong with the way a command ended."""
    lines = outcome.errors.splitlines()
    if "Traceback (most recent call last)" in outcome.errors:
        return f"traceback: {lines[-1][:200]}"
    if outcome.status not in (0, 2):
        return f"status {outcome.status}: {lines[-1][:200] if lines else ''}"
    if outcome.status == 2 and not (lines and lines[-1].startswith("textvae: ")):
        return f"no message: {lines[-1][:200] if lines else ''}"
    return None


def fingerprint(paths: list[Path]) -> str:
    """Hash the content of files and folders."""
    digest = hashlib.sha256()
    for path in paths:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            digest.update(str(file).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def main() -> int:
    """Run the campaign; return 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one case")
    args = parser.parse_args()
    findings: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TEXTVAE_CACHE"] = f"{folder}/cache"
        import_everything()
        fuzzer = Fuzzer(Path(folder), args.seed)
        numbers = range(args.cases) if args.only is None else [args.only]
        for number in numbers:
            if why := fuzzer.case(number):
                findings[why.rpartition(": ")[2][:60]] += 1
                print(f"case {number}: {why}", flush=True)
            elif (number + 1) % 100 == 0:
                print(f"{number + 1} cases, {sum(findings.values())} failed", flush=True)
    for kind, count in findings.most_common():
        print(f"{count:5} {kind}")
    print(f"seed {args.seed}, {len(numbers)} cases, {sum(findings.values())} failed")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
