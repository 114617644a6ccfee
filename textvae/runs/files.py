"""Atomic file replacement: after a crash or on a full disk, a file is either the old or the new."""

from __future__ import annotations

import errno
import glob
import json
import math
import os
import re
import shlex
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from textvae.errors import UserError, first_line

LONGEST_NAME = 200  # bytes; file systems allow 255, and temporary files have longer names


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder in place of ``~``; unchanged if there is none."""
    if os.environ.get("HOME") == "" and str(path).partition("/")[0] == "~":
        return Path(path)  # and not the root folder
    return Path(os.path.expanduser(path))


def is_file(name: str) -> bool:
    """Return whether there is a file of this name; any text may be asked for."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null character
        return False


def quoted(path: str | Path) -> str:
    """Return a path as it can be pasted into a shell."""
    name = str(path)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file, completely or not at all, with what the block writes to a temporary file.

    Args:
        path: The file.

    Yields:
        The path of the temporary file next to it.

    Raises:
        UserError: It cannot be written (a full disk, no permission); the old file is intact. Or it
            is a device or a pipe, which a new file would replace.
    """
    path = Path(path)
    check_replaceable(path)
    path = _at_the_end_of_links(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _in_use(temporary):
            _remove_abandoned(path.parent, glob.escape(path.name))
            yield temporary
            with temporary.open("rb+") as file:  # or the rename reaches the disk before the content
                os.fsync(file.fileno())
            _keep_permissions(path, temporary)  # last: it may become read-only
            os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or first_line(error)
        kept = "; the previous file is intact" if os.path.exists(path) else ""
        raise UserError(f"cannot write {path}: {reason}{kept}") from error
    finally:
        with suppress(OSError):  # if there is no such folder, the error above says so
            temporary.unlink(missing_ok=True)


def _at_the_end_of_links(path: Path) -> Path:
    """Return the file that a link leads to: it is replaced or created, and the link stays.

    Except in the cache of the Hugging Face Hub, whose links share files that must not change.
    """
    end = Path(os.path.realpath(path))
    return end if path.is_symlink() and end.parent.name != "blobs" else path


def _keep_permissions(old: Path, new: Path) -> None:
    with suppress(OSError):  # there is no old file, or the file system has no permissions
        new.chmod(old.stat().st_mode & 0o777)


def check_replaceable(path: Path) -> None:
    """Check that there is nothing at a path that a new file must not replace.

    As root, a rename onto /dev/null removes the device for everybody. /dev/stdout is a link that
    may lead to a file, but it is not one either.

    Raises:
        UserError: It is a device or a pipe, a link among them, or a link to a missing folder.
    """
    end = Path(os.path.realpath(path))
    if path.is_symlink() and not end.parent.is_dir():  # of a disk that is not mounted, perhaps
        raise UserError(f"cannot write {path}: it is a link to {end}, whose folder does not exist")
    there = Path(os.path.realpath(path.parent))
    if there == Path("/dev") or there.is_relative_to("/proc") or _is_special(path):
        raise UserError(f"cannot write {path}: it is not a regular file; choose another name")


def check_links(folder: Path) -> None:
    """Check that a folder, or one above it, is not a link to nowhere.

    Raises:
        UserError: One is.
    """
    for part in (folder, *folder.parents):
        if part.is_symlink() and not part.exists():
            raise UserError(f"{part} is a link to {os.readlink(part)}, which does not exist")


def check_writable(path: Path) -> None:
    """Check, before the work, that a file can be written.

    Raises:
        UserError: It cannot, as far as can be seen without trying.
    """
    check_replaceable(path)
    check_links(path.parent)
    folder = path.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"cannot write {path}: {folder} is a file, not a folder")
    reason = None
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        reason = errno.ENAMETOOLONG
    elif path.is_dir():
        reason = errno.EISDIR
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = errno.EACCES
    if reason is not None:
        raise UserError(f"cannot write {path}: {os.strerror(reason)}")


def _is_special(path: Path) -> bool:
    """Whether there is something other than a file or a folder, possibly at the end of links."""
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing is there, or the attempt to write says what is wrong
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def _in_use(temporary: Path) -> Iterator[None]:
    """Create a temporary file and lock it; the system unlocks it if the process is killed."""
    while True:
        with temporary.open("wb") as file:
            locked = _lock(file.fileno())
            if locked is None:
                break
            # Another writer may have taken it for abandoned before it was locked.
            if locked and temporary.exists():
                yield
                return
    yield  # Windows does not rename an open file


def _lock(file: int) -> bool | None:
    """Lock an open file; return False if another process holds it, None if there are no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        return None
    return True


def _remove_abandoned(folder: Path, name: str) -> None:
    """Remove what processes that were killed while replacing a file have left.

    Args:
        folder: The folder of the file.
        name: Its name, or a pattern for several.
    """
    for temporary in folder.glob(f".{name}.*.tmp"):
        with suppress(OSError), temporary.open("rb+") as file:  # a folder of this name is not ours
            # safetensors puts another file in the place of the locked one.
            if _lock(file.fileno()) and not _is_running(temporary.name.split(".")[-3]):
                shutil.rmtree(parts_of(temporary), ignore_errors=True)
                temporary.unlink()


def parts_of(temporary: Path) -> Path:
    """Return the folder for the parts of a temporary file, which is removed with it."""
    return temporary.with_name(f"{temporary.name}.parts")


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # of another user
        pass
    return True


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file, completely or not at all.

    Args:
        path: The file.
        write: Called with the path of a temporary file next to it, to write the content there.

    Raises:
        UserError: It cannot be written (a full disk, no permission); the old file is intact.
    """
    with replacing(path) as temporary:
        try:
            write(temporary)
        except RuntimeError as error:  # torch.save reports a full disk as a RuntimeError
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else OSError(str(error)) from error
        except SafetensorError as error:
            found = re.search(r"\(os error (\d+)\)", str(error))
            raise OSError(os.strerror(int(found[1])) if found else str(error)) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text without converting line endings.

    Bytes of a file name that are not UTF-8 become escapes, which JSON reads back.
    """
    content = text.encode("utf-8", errors="backslashreplace")
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def finite(value: Any) -> Any:
    """Replace every number that is not finite with None, because JSON has no such numbers.

    Scalars of NumPy, such as a seed from a range, become numbers of Python.
    """
    match value:
        case np.generic():
            return finite(value.item())
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: finite(entry) for key, entry in value.items()}
        case list() | tuple():
            return [finite(entry) for entry in value]
    return value


def as_json(content: Any) -> str:
    """Return readable JSON; numbers that are not finite become null."""
    return json.dumps(finite(content), indent=2, ensure_ascii=False)


def json_line(content: Any) -> str:
    """Return JSON in one line; numbers that are not finite become null."""
    return json.dumps(finite(content), ensure_ascii=False)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON."""
    write_text(path, as_json(content) + "\n")


def read_record(path: Path, *, missing: str | None = None, advice: str = "") -> dict[str, Any]:
    """Read the JSON object in a file that textvae wrote.

    Args:
        path: The file.
        missing: The message if there is no such file.
        advice: What to do if the file is broken, for the end of the message.

    Raises:
        UserError: The file is missing or broken.
    """
    end = f"; {advice}" if advice else ""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        if missing is not None and isinstance(error, FileNotFoundError):
            raise UserError(missing) from None
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}){end}") from error
    if not isinstance(record, dict):
        raise UserError(f"{path}: not a JSON object{end}")
    return record


def read_if_there(path: Path) -> dict[str, Any]:
    """Read a record as ``read_record`` does; an empty one if there is no such file.

    Raises:
        UserError: The file is broken.
    """
    return read_record(path) if path.exists() else {}


def remove_leftovers(*folders: Path) -> None:
    """Remove the temporary files of processes that were killed while writing."""
    for folder in folders:
        _remove_abandoned(folder, "*")
