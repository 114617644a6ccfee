"""A lock on a folder or a file, so that two processes cannot write to it."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from textvae.errors import UserError

logger = logging.getLogger(__name__)

LOCK = ".lock"  # removed at the end


@contextmanager
def locked(place: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from writing to a place; the system unlocks it if this one is killed.

    Args:
        place: An existing folder, or a file in one.
        wait: Whether to wait for another process that has the lock.

    Raises:
        UserError: Another process has the lock.
    """
    path = place / LOCK if place.is_dir() else place.with_name(f".{place.name}{LOCK}")
    lock = _acquire(path, place, wait)
    try:
        yield
    finally:
        if lock is not None:
            path.unlink(missing_ok=True)
            os.close(lock)


def _acquire(path: Path, place: Path, wait: bool) -> int | None:
    """Return a locked file descriptor; None if the file system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:  # such as a read-only file system
            raise UserError(
                f"cannot write to {place.parent if place.is_file() else place}: {error.strerror}"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = _holder(lock)
            os.close(lock)
            raise UserError(
                f"{place} is in use by another {holder or 'process'}: wait for it, stop it, "
                f"or choose another {'folder' if place.is_dir() else 'file'}"
            ) from None
        except OSError as error:  # such as ENOLCK
            logger.warning("%s cannot be locked (%s)", place, error.strerror)
            os.close(lock)
            path.unlink(missing_ok=True)
            return None
        if _is_at(path, lock):
            with suppress(OSError):  # such as a full disk: nobody learns who has the lock
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process ({os.getpid()} on {platform.node()})".encode(), 0)
            return lock
        os.close(lock)


def _holder(lock: int) -> str:
    """Return who has a lock: the name may be written only a moment after it was taken."""
    for pause in (0.0, 0.01, 0.1):
        time.sleep(pause)
        if holder := os.pread(lock, 200, 0).decode(errors="replace").strip():
            return holder
    return ""


def _is_at(path: Path, lock: int) -> bool:
    """Return whether a lock is still the file at its path: its last owner may have removed it."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except OSError:
        return False
