"""Run one command and return its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
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
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # escapes what a terminal cannot encode
    command, args = parse(argv)
    _check_out(args)
    try:
        return COMMANDS[command].run(args)
    except OptionError as error:
        raise UserError(as_typed(error, option_names(COMMANDS[command].parser()))) from error


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
