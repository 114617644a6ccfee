"""Exit codes, and a one-line message on standard error for anything that is not a bug."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from textvae.errors import UserError

LONGEST_NAME = 200  # characters of a file name in a message
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # in torch's messages on GPU and CPU


def exit_status(name: str, run: Callable[[], int | None]) -> int:
    """Run a program and turn exceptions into an exit code; bugs keep their traceback.

    Args:
        name: The program's name, at the start of error messages.
        run: The program; it may return an exit code of its own.

    Returns:
        0 for success, 1 if a check that the user asked for failed, 2 for an error that the user can
        fix, 130 for Ctrl-C or another signal to stop.
    """
    status = 0
    try:
        status = run() or 0
        sys.stdout.flush()
    except UserError as error:
        return _fail(name, str(error), 2)
    except KeyboardInterrupt as stopped:
        return _fail(name, str(stopped) or "interrupted", 130)
    except BrokenPipeError:  # the program that reads the output, such as head, has exited
        _drop_output()
    except OSError as error:  # a full disk, no permission, a name that is too long, ...
        _drop_output()
        return _fail(name, _of_the_system(error), 2)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(
            name, "not enough memory: use smaller batches, shorter sentences, or a smaller model", 2
        )
    return status


def _of_the_system(error: OSError) -> str:
    """Return the reason that the operating system gives, and the file it is about."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{_shortened(str(error.filename or 'cannot write'))}: {reason}"


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def show(output: object) -> None:
    """Print the output of a check, whose exit code counts even if nobody reads the output."""
    try:
        print(output, flush=True)
    except BrokenPipeError:
        _drop_output()


def _drop_output() -> None:
    """Drop output that cannot be written: Python would try once more, and fail, when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def _fail(name: str, message: str, status: int) -> int:
    shown = message.encode(errors="backslashreplace").decode()  # a name may be undecodable
    print(f"{name}: {shown}", file=sys.stderr)
    return status
