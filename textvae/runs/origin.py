"""Where a run comes from: the command, the commit, the versions, and the machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch


def versions(precision: str, device: torch.device) -> dict[str, str | None]:
    """Return what is needed, besides its config and its data, to reproduce a run.

    Args:
        precision: The precision of the training.
        device: Where it was trained.
    """
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    packages = ("textvae", "torch", "numpy", "accelerate", "datasets", "sentencepiece", "nltk")
    on_gpu = device.type == "cuda"
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if on_gpu else processor(),
        "threads": str(torch.get_num_threads()),
        "precision": precision,
        "system": platform.platform(),
        "command": own_command(),
        "directory": _working_directory(),
        **{name: installed(name) for name in packages},
    }


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


_recorded: ContextVar[str | None] = ContextVar("recorded", default=None)


@contextmanager
def recorded_as(command: str) -> Iterator[None]:
    """While active, record this command, which does the same, instead of that of the process."""
    token = _recorded.set(command)
    try:
        yield
    finally:
        _recorded.reset(token)


def own_command() -> str:
    """Return the command of this process, quoted for a shell."""
    if command := _recorded.get():
        return command
    name = Path(sys.argv[0]).name
    return shlex.join(["textvae" if name == "__main__.py" else name, *sys.argv[1:]])


def processor() -> str:
    """Return the name of the processor, or its architecture if the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def commit() -> str | None:
    """Return the commit of the source tree, marked if there are changes; None without git."""
    try:
        # This file may lie in the repository of another project, such as in its .venv.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--exclude", "*").strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*command: str) -> str:
    """Run git on the source tree, without what the surroundings could make it read or execute."""
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    return subprocess.run(
        ["git", "-c", "core.fsmonitor=false", *command],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout
