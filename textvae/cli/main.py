"""Run one command and return its exit code."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from jsonargparse import Namespace

from textvae.cli.arguments import option_names, parse
from textvae.cli.commands import COMMANDS
from textvae.cli.exit_codes import exit_status
from textvae.cli.messages import as_typed
from textvae.errors import OptionError, UserError
from textvae.training.interrupt import interrupted_by_signals
from textvae.training.progress import start_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after ``textvae``; by default those of the process.

    Returns:
        The exit code: 0 for success, 1 if a check failed that the user asked for, 2 for an error
        that the user can fix, 130 for Ctrl-C or another signal to stop.
    """
    # Must be set before torch loads: limits how long idle OpenMP threads spin. With the default, a
    # busy machine becomes many times slower; without any spinning, an idle one loses up to half of
    # its speed.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    return exit_status("textvae", lambda: _run(sys.argv[1:] if argv is None else list(argv)))


@interrupted_by_signals()
def _run(argv: Sequence[str]) -> int | None:
    start_logging()
    _check_locale(argv)
    with _utf8_output():
        command, args = parse(argv)
        _check_out(args)
        try:
            return COMMANDS[command].run(args)
        except OptionError as error:
            raise UserError(as_typed(error, option_names(COMMANDS[command].parser()))) from error


def _check_locale(argv: Sequence[str]) -> None:
    """Check that the arguments have arrived as they were typed.

    Raises:
        UserError: One is UTF-8, but was decoded as something else.
    """
    for word in argv:
        with suppress(UnicodeError):
            word.encode("utf-8")  # fails if there are bytes that were not decoded
            continue
        with suppress(UnicodeError):
            typed = os.fsencode(word).decode("utf-8")
            raise UserError(
                f"{typed!r} cannot be read, because the locale is not UTF-8: set LC_ALL=C.UTF-8 or "
                "PYTHONUTF8=1"
            )


@contextmanager
def _utf8_output() -> Iterator[None]:
    """Write UTF-8 to files and pipes; escape what a terminal cannot show, as JSON does."""
    stream = sys.stdout
    if not isinstance(stream, TextIOWrapper):
        yield
        return
    codecs.register_error("as_json", _escaped)
    encoding, errors = stream.encoding, stream.errors
    as_it_is = stream.isatty() or os.environ.get("PYTHONIOENCODING")
    stream.reconfigure(encoding=encoding if as_it_is else "utf-8", errors="as_json")
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.reconfigure(encoding=encoding, errors=errors)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    codes = [units[i : i + 2].hex() for i in range(0, len(units), 2)]
    return "".join(f"\\u{code}" for code in codes), error.end


def _check_out(args: Namespace) -> None:
    """Refuse to replace the file that a command reads.

    Raises:
        UserError: The output is one of the inputs.
    """
    out = args.get("out")
    if out is None or not os.path.isfile(out):
        return
    for given in (args.get("file"), args.get("data")):  # data of train is a section
        if isinstance(given, str) and os.path.isfile(given) and os.path.samefile(given, out):
            raise UserError(f"--out {out} would replace the file that is read: choose another")
