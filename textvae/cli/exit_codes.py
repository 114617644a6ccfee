"""Exit statuses, and one line on standard error for anything that is not a bug."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from textvae.errors import UserError
from textvae.training.interrupt import Interrupted

# Errors that the operating system reports and no bug causes: a full disk, missing permissions.
SYSTEM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # torch's words on GPU and CPU


def exit_status(name: str, run: Callable[[], object]) -> int:
    """Runs a program and turns exceptions into an exit status; bugs keep their traceback.

    Args:
        name: The program's name, which starts the error line.
        run: The program.

    Returns:
        0 if all went well, 2 for an error that the user can fix, 130 for Ctrl-C.
    """
    try:
        run()
        sys.stdout.flush()
    except UserError as error:
        return _fail(name, str(error), 2)
    except (Interrupted, KeyboardInterrupt) as stopped:
        return _fail(name, str(stopped) or "interrupted", 130)
    except BrokenPipeError:  # whatever reads the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in SYSTEM_ERRORS:
            raise
        return _fail(name, f"{error.filename or 'cannot write'}: {error.strerror}", 2)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(name, "not enough memory: use smaller batches or shorter sentences", 2)
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def _fail(name: str, message: str, status: int) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return status
