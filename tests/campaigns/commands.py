"""Commands in child processes with limits on time and memory, for the campaigns."""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
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


def import_everything() -> None:
    """Import what the commands need, so that their forks start at once."""
    import datasets  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.manifold  # noqa: F401
    import torch
    import torch.utils.tensorboard

    import textvae.training.train  # noqa: F401

    torch.set_num_threads(1)
    logging.getLogger().handlers.clear()


def forked(argv: list[str], folder: Path) -> Outcome:
    """Run a command in a fork of this process, which has imported everything."""
    with tempfile.TemporaryFile() as errors:
        status = _wait(fork(argv, folder, errors.fileno()))
        errors.seek(0)
        return Outcome(status, errors.read().decode(errors="replace"))


def fork(argv: list[str], folder: Path, errors: int | None = None, seconds: float = SECONDS) -> int:
    """Start a command in a fork of this process.

    Args:
        argv: The arguments.
        folder: Where it runs.
        errors: A file descriptor for its standard error; None discards it.
        seconds: When an alarm ends it.

    Returns:
        The process id.
    """
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream, file in enumerate((nothing, nothing, nothing if errors is None else errors)):
            os.dup2(file, stream)
        # pytest puts streams of its own in their place.
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        logging.getLogger().handlers.clear()
        os.chdir(folder)
        _limit(seconds)
        from textvae.cli.main import main

        status = main(argv)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _limit(seconds: float) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def start(argv: list[str]) -> int:
    """Start a command in an interpreter of its own, whose start can be killed; return its id."""
    nothing = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    command = [sys.executable, "-m", "textvae", *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return os.posix_spawn(sys.executable, command, environment, file_actions=nothing)


def killed(child: int, after: float) -> int | None:
    """Kill a process after some seconds; return its exit status if it ended before."""
    ends = time.monotonic() + after
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _wait(child)
    return None


def _wait(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
