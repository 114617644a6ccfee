"""A lock on a run folder, so that two trainings cannot write into it."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from textvae.errors import UserError

logger = logging.getLogger(__name__)

LOCK = ".training"  # removed at the end


@contextmanager
def training_lock(run: Path) -> Iterator[None]:
    """Keep other trainings out of a run folder.

    The operating system releases the lock of a process that was killed.

    Raises:
        UserError: Another process is training in this folder.
    """
    if int(os.environ.get("RANK", "0")):  # of several processes, the main one holds the lock
        yield
        return
    lock = _acquire(run / LOCK)
    try:
        yield
    finally:
        if lock is not None:
            (run / LOCK).unlink(missing_ok=True)
            os.close(lock)


def _acquire(path: Path) -> int | None:
    """Return a locked file descriptor; None if the file system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
            os.close(lock)
            raise UserError(
                f"{path.parent} is in use by another training ({holder or 'just started'}): wait "
                "for it, stop it, or choose another --out"
            ) from None
        except OSError as error:  # such as ENOLCK
            logger.warning("%s cannot be locked (%s)", path.parent, error.strerror)
            os.close(lock)
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(lock), os.stat(path)):  # not removed in between
                os.pwrite(lock, f"process {os.getpid()} on {platform.node()}".encode(), 0)
                return lock
        os.close(lock)
