"""Files as streams of numbered UTF-8 lines: compressed or not, named pipes, standard input.

Compression (gzip, bzip2, xz, Zstandard) is recognized by the first bytes of a file, none of which
begin a text. A pipe can be read only once, so it is copied to a temporary file first.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from textvae.errors import UserError
from textvae.runs.files import expanded

STANDARD_INPUT = "-"
SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}  # of compressed files
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BUFFER = 2**16
LONGEST_LINE = 2**26  # bytes; a longer line is not a document but a damaged or malicious file
_ALWAYS_UNPACKED = 2**26  # bytes that any file may unpack to
_MAX_RATIO = 200  # beyond them; text of any kind is compressed 3 to 20 times


@dataclass(frozen=True)
class InputFile:
    """A file that can be read more than once.

    Attributes:
        path: What is opened.
        where: Its name in messages.
        copy: The temporary file that ``path`` names, if there is one; it lives as long as this.
    """

    path: Path
    where: str
    copy: Any = None

    def stamp(self) -> list[Any]:
        """Return what identifies the content, as JSON."""
        if self.copy is not None:
            with open(self.path, "rb") as file:
                digest = hashlib.sha256()
                while block := file.read(_BUFFER):
                    digest.update(block)
            return [digest.hexdigest()]
        # Size and time, so that a second run does not have to read gigabytes.
        status = self.path.stat()
        return [str(self.path.resolve()), status.st_size, status.st_mtime_ns]


def input_file(place: str | Path) -> InputFile:
    """Find a file, a named pipe, or standard input (``-``).

    Raises:
        UserError: There is no such file, or a pipe cannot be read.
    """
    if str(place) == STANDARD_INPUT:
        if sys.stdin is None:
            raise UserError("standard input is closed")
        return _copied(sys.stdin.buffer, "standard input")
    path = expanded(place)
    if path.is_dir():
        raise UserError(f"{path}: a folder, not a file")
    if not path.exists():
        sentence = "; to pass a sentence, pipe it: echo ... | textvae COMMAND RUN -"
        raise UserError(f"{path}: no such file{sentence if ' ' in path.name else ''}")
    if path.is_file():
        return InputFile(path, str(path))
    try:
        with open(path, "rb") as pipe:
            return _copied(pipe, str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _copied(stream: BinaryIO, where: str) -> InputFile:
    try:
        copy = tempfile.NamedTemporaryFile(prefix="textvae-")  # noqa: SIM115 (kept open)
        shutil.copyfileobj(stream, copy)
        copy.flush()
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{where}: cannot be copied to {tempfile.gettempdir()} ({why})") from None
    return InputFile(Path(copy.name), where, copy)


def compression_of(file: InputFile) -> str | None:
    """Return how a file is compressed, from its first bytes; None if it is not.

    Raises:
        UserError: It cannot be read, or its suffix promises another compression.
    """
    try:
        with open(file.path, "rb") as stream:
            head = stream.read(10)
    except OSError as error:
        raise UserError(f"{file.where}: cannot be read ({error.strerror or error})") from None
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if found == "bzip2" and head[4:10] != b"1AY&SY":  # a text may begin with BZh
        found = None
    promised = SUFFIXES.get(file.path.suffix.lower())
    if promised and promised != found:
        raise UserError(f"{file.where}: damaged {promised} file (it does not begin like one)")
    return found


@contextmanager
def opened(file: InputFile) -> Iterator[io.BufferedReader]:
    """Open a file for reading, and unpack it on the way if it is compressed.

    Raises:
        UserError: It cannot be read, is damaged, or unpacks to far more than any text would.
    """
    kind = compression_of(file)
    try:
        with open(file.path, "rb") as raw:
            packed = os.fstat(raw.fileno()).st_size
            stream = raw if kind is None else _Bounded(_unpacked(raw, kind), packed, file.where)
            yield io.BufferedReader(stream, _BUFFER)  # type: ignore[arg-type]
    except OSError as error:
        if kind is None or error.errno is not None:
            raise UserError(f"{file.where}: cannot be read ({error.strerror or error})") from None
        raise UserError(f"{file.where}: damaged {kind} file ({error})") from None
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{file.where}: damaged {kind} file ({error})") from None


def _unpacked(raw: BinaryIO, kind: str) -> Any:
    match kind:
        case "gzip":
            return gzip.GzipFile(fileobj=raw)
        case "bzip2":
            return _Streams(raw, bz2.BZ2Decompressor)
        case "xz":
            return _Streams(raw, partial(lzma.LZMADecompressor, lzma.FORMAT_XZ))
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")


class _Streams:
    """One compressed stream after another; ``bz2`` and ``lzma`` would ignore a damaged second one.

    Args:
        raw: The file.
        new: Returns a decompressor for the next stream.
    """

    def __init__(self, raw: BinaryIO, new: Callable[[], Any]) -> None:
        self.raw, self.new, self.decompressor = raw, new, new()

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, and none only at the end."""
        while True:
            packed = b""
            if self.decompressor.eof:
                packed = self._next_stream()
                if not packed:
                    return b""
                self.decompressor = self.new()
            elif self.decompressor.needs_input and not (packed := self.raw.read(_BUFFER)):
                raise EOFError("it ends in the middle")
            if data := self.decompressor.decompress(packed, size):
                return data

    def _next_stream(self) -> bytes:
        """The first bytes after a stream that are not padding."""
        packed = self.decompressor.unused_data
        while not (packed := packed.lstrip(b"\0")):
            if not (packed := self.raw.read(_BUFFER)):
                break
        return packed


class _Bounded(io.RawIOBase):
    """Counts what a compressed stream unpacks to, and stops when it cannot be text any more."""

    def __init__(self, stream: Any, packed: int, where: str) -> None:
        self.stream, self.where, self.unpacked = stream, where, 0
        self.limit = max(_ALWAYS_UNPACKED, _MAX_RATIO * packed)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with as much as there is."""
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        self.unpacked += len(data)
        if self.unpacked > self.limit:
            raise UserError(
                f"{self.where}: unpacks to more than {_MAX_RATIO} times its size, which no text "
                "does; if this is intended, unpack the file first"
            )
        return len(data)


def read_lines(file: InputFile, longest: int = LONGEST_LINE) -> Iterator[tuple[int, str]]:
    """Stream the numbered lines of a UTF-8 file; only LF and CRLF end a line, not U+2028 etc.

    Args:
        file: The file, possibly compressed.
        longest: Maximum length of a line in bytes.

    Yields:
        Line number, from 1, and text.

    Raises:
        UserError: The file cannot be read, is binary, is not UTF-8, has a line that is too long,
            or ends its lines with CR alone.
    """
    with opened(file) as stream:
        _check_line_ends(stream.peek(_BUFFER), file.where)
        yield from _decoded_lines(stream.readline, file.where, longest)


def _check_line_ends(head: bytes, where: str) -> None:
    if head.count(b"\r") - head.count(b"\r\n") > head.count(b"\n") and b"\0" not in head:
        raise UserError(
            f"{where}: its lines end with CR alone, as on early Macs: convert it, for example with "
            "tr '\\r' '\\n'"
        )


def _decoded_lines(
    read: Callable[[int], bytes], where: str, longest: int
) -> Iterator[tuple[int, str]]:
    lines: Iterable[bytes] = iter(lambda: read(longest + 1), b"")
    for number, line in enumerate(lines, start=1):
        if len(line) > longest:
            raise UserError(f"{where}, line {number}: longer than {longest:,} bytes: not a text")
        if b"\0" in line:
            raise UserError(
                f"{where}, line {number}: contains a NUL byte: this is a binary or UTF-16 file, "
                "but textvae reads UTF-8 text"
            )
        text = _decoded(line, where, number)
        yield number, text.removeprefix("\ufeff") if number == 1 else text


def _decoded(line: bytes, where: str, number: int) -> str:
    try:
        return line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at "
            f"{error.start}); convert the file, for example with iconv -t UTF-8"
        ) from None
