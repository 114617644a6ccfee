"""How a program ends: well, or with one line on standard error and a status for scripts."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from textvae.errors import UserError
from textvae.training.interrupt import Interrupted

# The system's refusals that no bug of ours causes: a full disk, a folder that is another's.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # torch on a GPU, on a CPU


def exit_status(name: str, run: Callable[[], object]) -> int:
    """Runs a program: 0, 2 for what the user can mend, 130 for Ctrl-C; bugs keep their traceback.

    Args:
        name: the program's, which begins the line.
    """
    try:
        run()
        sys.stdout.flush()
    except UserError as error:
        return _fail(name, str(error), 2)
    except (Interrupted, KeyboardInterrupt) as stopped:
        return _fail(name, str(stopped) or "interrupted", 130)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        return _fail(name, f"{error.filename or 'cannot write'}: {error.strerror}", 2)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(name, "not enough memory: take smaller batches or shorter sentences", 2)
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def _fail(name: str, message: str, status: int) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return status
