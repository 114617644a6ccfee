"""The entry point of ``textvae`` and ``python -m textvae``."""

from __future__ import annotations

import os
import sys

from textvae.training.interrupt import interrupted_by_signals


def run() -> None:
    """Run one command and exit with its status."""
    _open_missing_streams()
    try:
        with interrupted_by_signals():
            from textvae.cli.main import main
    except KeyboardInterrupt as stopped:
        print(f"textvae: {str(stopped) or 'interrupted'}", file=sys.stderr)
        sys.exit(130)
    status = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # With several processes, threads of the process group can abort the interpreter's normal
        # exit after all work is done ("terminate called without an active exception", with gloo).
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _open_missing_streams() -> None:
    """Open the standard streams that the caller closed.

    Otherwise, the next file opened would take the number of the stream, and with it its output.
    Standard input is empty, standard error is dropped, and standard output cannot be written.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest free number, which is this one
    # Python has made None of a stream that was closed.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    run()
