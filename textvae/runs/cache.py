"""The cache folder, shared by all runs of a user.

Entries are written completely or not at all, and their checksums are verified when they are opened:
a file that was damaged later is written again. A complete cache may be read-only.
"""

from __future__ import annotations

import atexit
import errno
import json
import logging
import os
import re
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from textvae.errors import UserError, first_line
from textvae.runs.files import expanded

logger = logging.getLogger(__name__)

PARTS = ("sources", "texts", "tokenizers", "encoded", "molecules")
KERNELS = "kernels"  # made by those who compile them, as a folder that nobody else can write to
_ENTRY = re.compile(r"\.?[0-9a-f]{32,}")  # what the names of entries begin with
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_BLOCK = 2**20
_DAY = 86_400  # seconds


def cache_folder(cache_dir: str | Path | None) -> Path:
    """Find the cache folder, and create it if necessary.

    Args:
        cache_dir: The folder; by default ``$TEXTVAE_CACHE``, or else ``~/.cache/textvae``.

    Returns:
        The folder.

    Raises:
        UserError: If it cannot be created.
    """
    folder = cache_place(cache_dir)
    try:
        for part in PARTS:
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache folder {folder}: {error.strerror}; set --data.cache_dir or TEXTVAE_CACHE"
        ) from None
    return folder


def cache_place(cache_dir: str | Path | None) -> Path:
    """Return where the cache folder is, or will be.

    Args:
        cache_dir: As for ``cache_folder``.

    Raises:
        UserError: The name is empty, or there is no home folder.
    """
    if cache_dir == "":
        raise UserError("the name of the cache folder is empty: leave it out for the default")
    folder = expanded(cache_dir or os.environ.get("TEXTVAE_CACHE") or "~/.cache/textvae")
    if folder.parts[:1] == ("~",):
        raise UserError(
            "there is no home folder for the cache: set --data.cache_dir or TEXTVAE_CACHE"
        )
    return folder


def private_cache() -> Path:
    """Return a cache folder that only this user can read, and that is removed at exit."""
    folder = Path(tempfile.mkdtemp(prefix="textvae-"))  # of mode 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def cache_lock(entry: Path) -> Iterator[None]:
    """Hold a lock while an entry is made, so that other processes wait instead of making it, too.

    On a file system without locks they make it, too, which is slower but has the same result.

    Args:
        entry: The file or folder that is made.

    Raises:
        UserError: The cache cannot be written.
    """
    from filelock import FileLock

    lock = FileLock(f"{entry}.lock")
    try:
        lock.acquire()
    except NotImplementedError:
        logger.warning("%s: this file system has no locks; continuing without them", entry.parent)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise unwritable(entry, error) from None
        logger.warning("%s: this file system has no locks; continuing without them", entry.parent)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()


def mark_used(entry: Path) -> None:
    """Note that an entry is used now, for ``prune``: many file systems do not note it."""
    with suppress(OSError):  # a cache of others
        os.utime(entry)


def unwritable(entry: Path, error: OSError) -> UserError:
    """Return the error for an entry of the cache that cannot be written, such as on a full disk."""
    why = error.strerror or first_line(error)  # numpy's has no errno
    return UserError(
        f"cache folder {entry.parent.parent}: cannot be written ({why}); free some space, or set "
        "--data.cache_dir or TEXTVAE_CACHE to another folder"
    )


def checksum(path: Path, flush: bool = False) -> int:
    """Return the CRC-32 of a file, if asked for after its content has reached the disk."""
    total = 0
    with open(path, "rb") as file:
        if flush:
            os.fsync(file.fileno())
        while block := file.read(_BLOCK):
            total = zlib.crc32(block, total)
    return total


class Entry(NamedTuple):
    """A text, a tokenizer, an encoded split, or compiled kernels in the cache."""

    part: str
    path: Path
    name: str  # for texts, the file that they were read from
    size: int  # bytes
    days: float  # since it was used


def entries(folder: Path) -> list[Entry]:
    """List the cache, the entries that were used last first.

    Args:
        folder: The cache folder.
    """
    found, names = [], _names(folder)
    for part in (*PARTS[1:], KERNELS):
        for path in (folder / part).glob("*"):
            if path.suffix == ".lock" or not _ENTRY.match(path.name):
                continue
            with suppress(FileNotFoundError):  # another process has removed it
                files = [path, *path.rglob("*")] if path.is_dir() else [path]
                states = [file.stat() for file in files]
                # Not the folders' times of access, which are those of the last listing.
                times = [state.st_mtime for state in states]
                times += [state.st_atime for state in states if stat.S_ISREG(state.st_mode)]
                used = max(times)
                size = sum(state.st_size for state in states)
                days = max(0.0, (time.time() - used) / _DAY)
                if path.suffix == ".tmp" and days < 1:
                    continue  # being written
                found.append(Entry(part, path, names.get(path.stem, path.name[:12]), size, days))
    return sorted(found, key=lambda entry: entry.days)


def _names(folder: Path) -> dict[str, str]:
    """Return where each text was read from, by its file name."""
    names = {}
    for path in (folder / "sources").glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            facts = json.loads(path.read_text(encoding="utf-8"))
            names[str(facts["content"])] = str(facts["where"])
    return names


def prune(folder: Path, days: float) -> list[Entry]:
    """Remove the entries that were not used lately; what is needed again is made again.

    A process that has an entry open can go on reading it.

    Args:
        folder: The cache folder.
        days: Remove what was not used for this many days.

    Returns:
        What was removed.

    Raises:
        UserError: An entry cannot be removed.
    """
    removed = [entry for entry in entries(folder) if entry.days >= days]
    for entry in removed:
        try:
            if entry.path.is_dir() and not entry.path.is_symlink():
                shutil.rmtree(entry.path)
            else:
                entry.path.unlink(missing_ok=True)
            entry.path.with_name(f"{entry.path.name}.lock").unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{entry.path}: cannot be removed ({error.strerror})") from None
    if removed:
        _forget_sources(folder)
    return removed


def _forget_sources(folder: Path) -> None:
    """Remove what is known about the files whose texts are no longer in the cache."""
    for path in (folder / "sources").glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            content = json.loads(path.read_text(encoding="utf-8"))["content"]
            if not (folder / "texts" / f"{content}.arrow").exists():
                path.unlink()
                path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
