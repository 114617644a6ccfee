"""The command that lays out a corpus, `python data/<set>/prepare.py --source PLACE --out DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from textvae.cli.exit_codes import exit_status


def parser_of(about: str | None, source: str) -> argparse.ArgumentParser:
    """Its options; ``source`` says what --source may be."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--source", help=source)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    return parser


def run(options: argparse.Namespace, where: str, prepare: Callable[..., None]) -> int:
    """Calls ``prepare`` with the options. Exit status: 0, or 2 with a line that says what to do.

    Args:
        where: how to come by the corpus, told where no --source is given.
    """
    if options.source is None:
        print(where, file=sys.stderr)
        return 2
    return exit_status("prepare", lambda: prepare(**vars(options)))
