"""Shared fixtures: a small corpus, trained runs, and commands in a child process."""

import functools
import logging
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

TINY = [
    *("--data.tokenized", "true", "--data.batch_size", "16", "--train.threads", "1"),
    *("--train.precision", "fp32"),
    *("--model.latent_dim", "4", "--model.embedding_dim", "8"),
    *("--model.encoder_hidden", "12", "--model.decoder_hidden", "12"),
    *("--train.epochs", "2", "--train.log_every", "3", "--train.samples", "2"),
]


def pytest_configure() -> None:
    # In the background of a script, it is ignored, and child processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Not the user's cache; shared by all tests, so that a corpus is read and encoded only once.
    os.environ["TEXTVAE_CACHE"] = tempfile.mkdtemp(prefix="textvae-tests-")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["TEXTVAE_CACHE"], ignore_errors=True)


def sentence(rng: random.Random) -> str:
    animal, verb = rng.choice(["cat", "dog", "bird", "fish"]), rng.choice(["sees", "likes", "eats"])
    words = f"{rng.choice(['a', 'the', 'my'])} {animal} {verb} the {rng.choice(['tree', 'house'])}"
    return words + (f" and {verb} a {animal}" if rng.random() < 0.4 else "")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A folder with 96 training, 20 validation and 20 test sentences, labeled."""
    folder, rng = tmp_path_factory.mktemp("corpus"), random.Random(0)
    for split, count in (("train", 96), ("valid", 20), ("test", 20)):
        lines = [f"{i % 3}\t{sentence(rng)}\n" for i in range(count)]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny(corpus) -> list[str]:
    """Options for a run of 12 steps that takes a second; tests may append more."""
    return [*TINY, "--data.dir", str(corpus)]


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory) -> Path:
    """A finished VAE run with metrics/test.json; tests must not change it."""
    run = tmp_path_factory.mktemp("runs") / "vae"
    assert in_child(["train", "--out", str(run), *tiny]) == 0
    assert in_child(["evaluate", str(run), "--samples", "4", "--generations", "5"]) == 0
    return run


@pytest.fixture(scope="session")
def language_model(tiny, tmp_path_factory) -> Path:
    """A finished run without a latent variable; tests must not change it."""
    run = tmp_path_factory.mktemp("runs") / "lm"
    options = ["--model.latent_dim", "0", "--train.epochs", "1"]
    assert in_child(["train", "--out", str(run), *tiny, *options]) == 0
    return run


@functools.cache
def _import_all() -> None:
    """Train once in this process, so that child processes need not import everything again."""
    from textvae.cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        lines = "".join(f"a{i} b c\n" for i in range(9))
        (Path(folder) / "train.txt").write_text(lines, encoding="utf-8")
        run, options = f"{folder}/run", [*TINY, "--data.dir", folder, "--train.epochs", "1"]
        assert main(["train", "--out", run, *options]) == 0
        assert main(["evaluate", run, "--samples", "1", "--generations", "2"]) == 0
    _forget_accelerator()


def _forget_accelerator() -> None:
    """Reset accelerate, which keeps its device and precision for the whole process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


def in_child(
    argv: list[str],
    before: Callable[[], object] = lambda: None,
    meanwhile: Callable[[int], object] = lambda _: None,
    limit: float = 60,
) -> int:
    """Run a command in a forked process; return its exit code, or minus the signal that ended it.

    Args:
        before: Called first in the child, to break something there.
        meanwhile: Called in the parent with the child's process id.
    """
    _import_all()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            logging.getLogger().handlers.clear()  # pytest's: the command sets up its own
            before()
            from textvae.cli.main import main

            status = main(argv)
        except SystemExit as stop:
            status = stop.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    meanwhile(child)
    ends = time.monotonic() + limit
    while time.monotonic() < ends:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"{' '.join(argv[:3])} … took more than {limit} s")


class LargestTensor(TorchDispatchMode):
    """Records the size in bytes of the largest tensor that an operation returned."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


class FixedNoise(NamedTuple):
    """Noise with given draws (K, B, W)."""

    draws: torch.Tensor

    def normal(self, samples: int, width: int) -> torch.Tensor:
        assert width == self.draws.size(-1)
        return self.draws[:samples]

    uniform = normal


def step_noise(draws: torch.Tensor) -> list[FixedNoise]:
    """Noise for each of K refinement steps, from draws (K, B, Z)."""
    return [FixedNoise(draw[None]) for draw in draws]
