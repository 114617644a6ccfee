"""Where the jobs of a sweep run: as processes on this machine, or on a cluster.

A job is a command. Its exit status says how it ended, and its output goes to a file.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from textvae.errors import UserError
from textvae.training.sweeps.job import PARENT

LauncherName = Literal["local", "submitit"]


class Job(Protocol):
    """A command that was started."""

    def poll(self) -> int | None:
        """Return its exit status; None while it runs."""

    def stop(self) -> None:
        """Ask it to save and to stop."""


Launch = Callable[[Sequence[str], Path], Job]  # from a command and the file for its output


class LocalJob:
    """A process on this machine, with one thread unless ``OMP_NUM_THREADS`` says otherwise.

    Args:
        command: The command.
        log: The file that its output is added to.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        environment = {"OMP_NUM_THREADS": "1", **os.environ, PARENT: str(os.getpid())}
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal reaches only the sweep
            )

    def poll(self) -> int | None:
        """Return its exit status; None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """Ask it to save and to stop."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)


class SubmittedJob:
    """A job that was submitted to a cluster.

    Args:
        job: submitit's job, whose result is an exit status.
    """

    def __init__(self, job: Any) -> None:
        self.job = job

    def poll(self) -> int | None:
        """Return its exit status; None while it waits or runs."""
        if not self.job.done():
            return None
        return 1 if self.job.exception() is not None else int(self.job.result())

    def stop(self) -> None:
        """Ask it to save and to stop."""
        self.job.cancel(check=False)


def run_command(command: Sequence[str], log: str) -> int:
    """Run a command inside a job of a cluster; return its exit status.

    A signal that ends the job reaches the command first, so that it can save.
    """
    with open(log, "ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def find_launcher(name: LauncherName, folder: Path, options: Mapping[str, Any]) -> Launch:
    """Return the function that starts jobs.

    Args:
        name: ``local``, or ``submitit`` for SLURM and other clusters.
        folder: Where submitit keeps its files.
        options: Parameters of submitit's executor, such as ``timeout_min``.

    Raises:
        UserError: submitit is not installed, or does not know a parameter.
    """
    match name:
        case "local":
            if options:
                raise UserError(f"{next(iter(options))} applies only to the launcher submitit")
            return LocalJob
        case "submitit":
            return _submitit(folder, options)
    raise UserError(f"launcher {name!r}: choose local or submitit")


def _submitit(folder: Path, options: Mapping[str, Any]) -> Launch:
    try:
        import submitit
    except ImportError:
        raise UserError(
            "the submitit launcher needs the submitit package: pip install submitit"
        ) from None
    parameters = dict(options)
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=parameters.pop("cluster", None))
        executor.update_parameters(**parameters)
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise UserError(f"the options of the launcher: {' '.join(str(error).split())}") from None
    return lambda command, log: SubmittedJob(executor.submit(run_command, command, str(log)))
