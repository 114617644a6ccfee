"""The commands: each is a module with a ``parser()`` and a ``run(args)``.

``run`` may return an exit code: 1 if the command did its work, and the answer is that something
failed.
"""

from __future__ import annotations

from types import ModuleType

from jsonargparse import ArgumentParser

import textvae
from textvae.cli import (
    arithmetic,
    bounds,
    cache,
    compare,
    decode,
    diagnose,
    encode,
    evaluate,
    explain,
    interpolate,
    map,
    molecules,
    neighbors,
    optimize,
    probe,
    reconstruct,
    report,
    reproduce,
    sample,
    score,
    sweep,
    train,
    traverse,
)
from textvae.cli.options import HelpFormatter

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "sweep": sweep,
    "evaluate": evaluate,
    "score": score,
    "compare": compare,
    "diagnose": diagnose,
    "bounds": bounds,
    "explain": explain,
    "reproduce": reproduce,
    "sample": sample,
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "traverse": traverse,
    "arithmetic": arithmetic,
    "neighbors": neighbors,
    "encode": encode,
    "decode": decode,
    "probe": probe,
    "optimize": optimize,
    "map": map,
    "molecules": molecules,
    "cache": cache,
    "report": report,
}
EXAMPLES = """examples:
  textvae train --config recipes/toy/base.yaml \\
    --config recipes/methods/skip_vae.yaml \\
    --config recipes/methods/autoencode.yaml \\
    --config recipes/methods/free_bits.yaml --train.epochs 3 \\
    --out runs/mine --data.dir my_texts.txt --data.tokenized false
  textvae evaluate runs/mine    textvae sample runs/mine --from aggregate
  textvae diagnose runs/mine    textvae train --resume runs/mine
"""


def build_parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Build the parser for the whole command line, and one for each command."""
    parser = ArgumentParser(
        prog="textvae",
        usage="textvae COMMAND [...]",
        description="Train and evaluate text variational autoencoders that use their latent "
        "variable.",
        epilog=EXAMPLES,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        version=textvae.__version__,
    )
    subcommands = parser.add_subcommands(required=True, dest="subcommand")
    parsers = {name: command.parser() for name, command in COMMANDS.items()}
    for name, command in parsers.items():
        subcommands.add_subcommand(name, command, help=command.description)
    return parser, parsers
