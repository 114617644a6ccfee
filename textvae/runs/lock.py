"""A lock on a folder, so that two processes cannot write into it."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from textvae.errors import UserError

logger = logging.getLogger(__name__)

LOCK = ".lock"  # removed at the end


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from writing to a folder; the system unlocks it if this one is killed.

    Args:
        folder: An existing folder.
        wait: Whether to wait for another process that has the lock.

    Raises:
        UserError: Another process has the lock.
    """
    lock = _acquire(folder / LOCK, wait)
    try:
        yield
    finally:
        if lock is not None:
            (folder / LOCK).unlink(missing_ok=True)
            os.close(lock)


def _acquire(path: Path, wait: bool) -> int | None:
    """Return a locked file descriptor; None if the file system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
            os.close(lock)
            raise UserError(
                f"{path.parent} is in use by another {holder or 'process'}: wait for it, stop it, "
                "or choose another folder"
            ) from None
        except OSError as error:  # such as ENOLCK
            logger.warning("%s cannot be locked (%s)", path.parent, error.strerror)
            os.close(lock)
            path.unlink(missing_ok=True)
            return None
        if _is_at(path, lock):
            with suppress(OSError):  # such as a full disk: nobody learns who has the lock
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process ({os.getpid()} on {platform.node()})".encode(), 0)
            return lock
        os.close(lock)


def _is_at(path: Path, lock: int) -> bool:
    """Return whether a lock is still the file at its path: its last owner may have removed it."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except OSError:
        return False
