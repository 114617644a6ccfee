"""Commands in child processes with limits on time and memory, for the campaigns."""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

SECONDS = 60
MEMORY = 6 * 2**30  # bytes of address space, above what is in use already

TINY = [
    *("--data.tokenized", "true", "--data.batch_size", "16", "--train.threads", "1"),
    *("--train.precision", "fp32", "--model.latent_dim", "4", "--model.embedding_dim", "8"),
    *("--model.encoder_hidden", "12", "--model.decoder_hidden", "12"),
    *("--train.log_every", "3", "--train.samples", "1"),
]


class Outcome(NamedTuple):
    """How a command ended."""

    status: int  # the exit status, or minus the signal
    errors: str  # what it wrote to standard error


def write_corpus(folder: Path, seed: int = 0) -> Path:
    """Write a labeled corpus of three splits."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 96), ("valid", 20), ("test", 20)):
        lines = []
        for i in range(count):
            animal, verb = rng.choice(["cat", "dog", "bird"]), rng.choice(["sees", "likes", "eats"])
            lines.append(f"{i % 3}\tthe {animal} {verb} the {rng.choice(['tree', 'house'])}\n")
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def forked(argv: list[str], folder: Path) -> Outcome:
    """Run a command in a fork of this process, which has imported everything."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.dup2(errors.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(1, 0)
            # pytest puts streams of its own in their place.
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            logging.getLogger().handlers.clear()
            os.chdir(folder)
            _limit()
            from textvae.cli.main import main

            status = main(argv)
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return Outcome(_wait(child), _content(errors))


def _limit() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)


def _wait(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _content(file) -> str:
    with file:
        file.seek(0)
        return file.read().decode(errors="replace")


def killed(argv: list[str], after: float) -> int | None:
    """Run a command and kill it; return its exit status if it ended before."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "textvae", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    ends = time.monotonic() + after
    while time.monotonic() < ends and process.poll() is None:
        time.sleep(0.005)
    status = process.poll()
    process.kill()
    process.wait()
    return status
