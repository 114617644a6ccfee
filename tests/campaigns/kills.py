"""``kill -9`` at random moments, after which everything goes on as if nothing had happened.

    python -m tests.campaigns.kills --kills 1000 --seed 0

A training is killed and resumed until it ends; in between, evaluations and encodings of the run are
killed as well. Half of the trainings begin with an empty cache, and a third of them next to another
process that fills the same cache and is killed, too. Then weights, metrics.jsonl, and cards must
equal those of an undisturbed training, and no lock or temporary file may be left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.campaigns.commands import TINY, fork, import_everything, killed, start, write_corpus

STARTED = 0.1  # share of the commands with an interpreter of their own, instead of a fork
START_SECONDS = 4.0  # what it needs to start
LONGEST = 600.0  # seconds of a command that is not killed
COLD, SHARED = 0.5, 1 / 3  # shares of the trainings
KINDS: dict[str, list[str]] = {
    "VAE": [],
    "language model": ["--model.latent_dim", "0"],
    "autoencode first": ["--train.autoencode_epochs", "2", "--objective.free_bits", "2"],
    "aggressive": ["--train.procedure", "aggressive"],
    "refined": ["--inference.method", "semi_amortized", "--inference.steps", "2"],
    "subwords": ["--data.tokenized", "false", "--tokenizer.vocab_size", "300"],
}
UNEQUAL = ("seconds", "logged_at", "tokens_per_second")  # differ between two runs


class Training:
    """One kind of training, undisturbed and killed.

    Args:
        folder: Where to work.
        kind: One of ``KINDS``.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.corpus = write_corpus(folder / "corpus")
        self.whole, self.run = folder / "whole", folder / "killed"
        self.seconds = [self._undisturbed(command) for command in self._commands(self.whole)]

    def _undisturbed(self, command: list[str]) -> float:
        began = time.monotonic()
        assert killed(self._fork(command), LONGEST) == 0, command
        return time.monotonic() - began

    def _fork(self, command: list[str]) -> int:
        return fork(command, self.folder, seconds=LONGEST)

    def _commands(self, run: Path) -> list[list[str]]:
        return [self._train(run), *self._after(run)]

    def _train(self, out: Path) -> list[str]:
        options = [*TINY, *KINDS[self.kind], "--data.dir", str(self.corpus)]
        often = ["--train.epochs", "6", "--train.save_every", "2", "--train.log_every", "2"]
        return ["train", *options, *often, "--out", str(out), "--resume-or-start"]

    def _after(self, run: Path) -> list[list[str]]:
        """What is done with a finished run."""
        texts, latents = str(self.corpus / "test.txt"), str(run.with_suffix(".npz"))
        commands = [["evaluate", str(run), "--samples", "2"]]
        if self.kind != "language model":  # which has no latent vectors
            commands.append(["encode", str(run), texts, "--out", latents])
        return commands

    def disturbed(self, rng: random.Random, most: int) -> int:
        """Kill each command up to ``most`` times at random moments; return the number of kills."""
        shutil.rmtree(self.run, ignore_errors=True)
        if rng.random() < COLD:
            empty_cache()
        kills = self._killed_beside(rng) if rng.random() < SHARED else 0
        for command, seconds in zip(self._commands(self.run), self.seconds, strict=True):
            for _ in range(most):
                if (ended := self._killed(command, seconds, rng)) is not None:
                    break
                kills += 1
            else:
                ended = killed(self._fork(command), LONGEST)
            assert ended == 0, (self.kind, command, ended)
        return kills

    def _killed(self, command: list[str], seconds: float, rng: random.Random) -> int | None:
        if rng.random() < STARTED:
            return killed(start(command), rng.uniform(0, START_SECONDS + seconds))
        return killed(self._fork(command), rng.uniform(0, 1.2 * seconds))

    def _killed_beside(self, rng: random.Random) -> int:
        """Kill two trainings on the same corpus that fill the same cache; return the kills."""
        shutil.rmtree(other := self.folder / "other", ignore_errors=True)
        beside = self._fork(self._train(other))
        time.sleep(rng.uniform(0, 0.3))
        first = self._killed(self._train(self.run), self.seconds[0], rng)
        second = killed(beside, rng.uniform(0, 0.3))
        assert {first, second} <= {None, 0}, (self.kind, first, second)
        return (first is None) + (second is None)

    def differences(self) -> list[str]:
        """Return what is not as in the undisturbed training."""
        found = []
        if self._bytes("model.safetensors", self.run) != self._bytes("model.safetensors"):
            found.append("weights")
        if self._log(self.run) != self._log(self.whole):
            found.append("metrics.jsonl")
        if self._card(self.run) != self._card(self.whole):
            found.append("metrics/test.json")
        for path in [*self.run.rglob("*"), *self.folder.glob(".*")]:
            if path.name.endswith((".tmp", ".lock")):
                found.append(f"left over: {path.name}")
        return found

    def _bytes(self, name: str, run: Path | None = None) -> bytes:
        return ((run or self.whole) / name).read_bytes()

    def _log(self, run: Path) -> list[dict]:
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [{k: v for k, v in line.items() if k not in UNEQUAL} for line in lines]

    def _card(self, run: Path) -> dict:
        card = json.loads((run / "metrics" / "test.json").read_text())
        return {k: v for k, v in card.items() if k not in (*UNEQUAL, "model")}


def empty_cache() -> None:
    """Empty the cache, except for the compiled kernels, which take a minute."""
    for folder in Path(os.environ["TEXTVAE_CACHE"]).iterdir():
        if folder.name != "kernels":
            shutil.rmtree(folder)


def main() -> int:
    """Run the campaign; return 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, kills, failures = random.Random(args.seed), 0, 0
    import_everything()
    with tempfile.TemporaryDirectory() as name:
        os.environ["TEXTVAE_CACHE"] = f"{name}/cache"
        trainings = [Training(Path(name) / kind.replace(" ", "-"), kind) for kind in KINDS]
        while kills < args.kills:
            training = rng.choice(trainings)
            kills += training.disturbed(rng, most=6)
            differences = training.differences()
            failures += bool(differences)
            print(f"{kills} kills: {training.kind}: {differences or 'equal'}", flush=True)
    print(f"seed {args.seed}: {kills} kills, {failures} trainings that differ")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
