"""The command line of ``python data/<set>/prepare.py --source PLACE --out DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from textvae.cli.exit_codes import exit_status


def parser_of(about: str | None, source: str) -> argparse.ArgumentParser:
    """Create the parser of a preparation script.

    Args:
        about: What the script prepares.
        source: Help text for ``--source``.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--source", help=source)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    return parser


def run(options: argparse.Namespace, where: str, prepare: Callable[..., None]) -> int:
    """Call ``prepare`` with the options.

    Args:
        options: The parsed options.
        where: How to get the corpus; printed if no --source is given.
        prepare: Writes the corpus.

    Returns:
        The exit code: 0, or 2 with a message that says what to do.
    """
    if options.source is None:
        print(where, file=sys.stderr)
        return 2
    return exit_status("prepare", lambda: prepare(**vars(options)))
