"""The start of a run: what must not be there yet, and what is undone if there is no run after all.

A start creates and locks the folder before anything is written to it. It ends with config.yaml:
from then on, there is a run, which can be resumed. If it fails before that, it removes what it has
written; if it is killed, the lock file that it leaves lets the next start do so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from textvae.errors import UserError
from textvae.runs.files import quoted
from textvae.runs.lock import LOCK, locked
from textvae.runs.model_folder import CARD, CONDITION, INFERENCE, SAMPLER, VERSIONS, WEIGHTS
from textvae.runs.model_folder import CONFIG as MODEL_CONFIG
from textvae.runs.run_folder import LOG, SUMMARY, SWEEP, is_run, make_folder

# What a run writes without asking; a model card that a person has written stays.
REPLACED = [MODEL_CONFIG, "tokenizer.json", "tokenizer.model", INFERENCE, CONDITION, SAMPLER]
REPLACED += [LOG, SUMMARY, VERSIONS]
SHOWN = 3  # names of other files, in a message


def check_new(run: Path) -> None:
    """Check that a folder can become the folder of a new run.

    Raises:
        UserError: It already holds a run, a model, or another file that a run replaces.
    """
    if is_run(run):
        raise UserError(
            f"{run} already holds a run: continue it with --resume {quoted(run)} (in Python, "
            "resume=True), or choose another folder"
        )
    if (run / WEIGHTS).exists():
        raise UserError(f"{run} already holds a model: choose another --out")
    if (run / SWEEP).exists():
        raise UserError(f"{run} holds a sweep: choose another --out, such as a folder in it")
    there = [name for name in REPLACED if (run / name).exists()]
    if there and not (run / LOCK).exists():  # which a killed start leaves behind
        raise UserError(
            f"{run / there[0]} exists, and training would replace it: choose another --out"
        )


def other_files(run: Path) -> list[str]:
    """Return the names of some of what is in the folder of a new run already."""
    own = {*REPLACED, CARD}
    found = sorted(path.name for path in run.glob("[!.]*") if path.name not in own)
    return found if len(found) <= SHOWN else [*found[:SHOWN], "..."]


@contextmanager
def started(run: Path) -> Iterator[None]:
    """Create and lock the folder of a new run; undo it if the start fails before there is a run.

    What is removed is what ``check_new`` had not found. A tokenizer, which may have been learned by
    then, is in the cache as well.

    Raises:
        UserError: The folder cannot be created, or another process trains in it.
    """
    there = run.exists()
    make_folder(run)
    try:
        with locked(run), _undone(run):
            yield
    except BaseException:
        if not there:
            with suppress(OSError):  # it is not empty
                run.rmdir()
        raise


@contextmanager
def _undone(run: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        remove_start(run)
        raise


def wait_for(run: Path) -> None:
    """Wait until no process uses a folder, and undo a start in it that was killed."""
    if not run.exists():
        return
    was_locked = (run / LOCK).exists()  # by a process that may be gone
    with locked(run, wait=True):
        if was_locked:
            remove_start(run)


def remove_start(run: Path) -> None:
    """Remove what a start has written, unless there is a run by now."""
    if not is_run(run):
        for name in REPLACED:
            with suppress(OSError):
                (run / name).unlink(missing_ok=True)
