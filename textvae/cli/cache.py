"""``textvae cache``: what the cache folder holds, and how to free space in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.options import new_parser
from textvae.config.types import NonNegativeFloat

if TYPE_CHECKING:
    from jsonargparse import Namespace

UNITS = (("GB", 10**9), ("MB", 10**6), ("KB", 10**3))


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "list the texts, token ids, tokenizers, and other entries in the cache, or remove those "
        "that are no longer used",
        "textvae cache [--prune DAYS]",
    )
    parser.add_argument(
        "--cache-dir",
        type=str,
        help="the cache folder (default: $TEXTVAE_CACHE, or else ~/.cache/textvae)",
    )
    parser.add_argument(
        "--prune",
        type=NonNegativeFloat | None,
        metavar="DAYS",
        help="remove what has not been used for DAYS days; 0 removes all entries. Entries "
        "that are needed again are re-created",
    )
    return parser


def run(args: Namespace) -> None:
    """Print a line for every entry, or for every entry that was removed."""
    from textvae.errors import UserError
    from textvae.runs.cache import cache_place, entries, prune

    folder = cache_place(args.cache_dir)
    if args.cache_dir is not None and not folder.is_dir():
        raise UserError(f"--cache-dir {args.cache_dir}: there is no such folder")
    found = entries(folder) if args.prune is None else prune(folder, args.prune)
    for entry in found:
        used = f"{entry.days:.1f} days" if entry.days >= 1 else f"{24 * entry.days:.1f} hours"
        print(f"{entry.part:<10}  {_size(entry.size):>10}  {used:>10} ago  {entry.name}")
    noun = "entry" if len(found) == 1 else "entries"
    total = f"{len(found)} {noun}, {_size(sum(entry.size for entry in found))}"
    print(f"{folder}: {total}" if args.prune is None else f"{folder}: removed {total}")


def _size(count: int) -> str:
    """Return a number of bytes in a suitable unit."""
    unit, bytes_in_it = next((u for u in UNITS if count >= u[1]), UNITS[-1])
    return f"{count / bytes_in_it:,.1f} {unit}"
