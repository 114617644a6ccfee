"""``textvae decode``: sentences or images from the latent vectors in a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import generation, load, presenter
from textvae.cli.options import add_do_sample, add_generation, add_model, new_parser

if TYPE_CHECKING:
    from jsonargparse import Namespace


logger = logging.getLogger(__name__)


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser("decode the latent vectors in a file", "textvae decode RUN LATENTS [...]")
    add_model(parser)
    parser.add_argument(
        "file", help="an .npz or .parquet file with an (N, Z) array named mean, as encode writes it"
    )
    add_do_sample(parser)
    add_generation(parser)
    return parser


def run(args: Namespace) -> None:
    """Show one example per latent vector."""
    import torch

    from textvae.runs.latents import read_labels, read_latents, read_weights
    from textvae.runs.model_folder import fetch, weights_hash

    z = torch.from_numpy(read_latents(Path(args.file)))
    model = load(args)
    made_by, weights = read_weights(Path(args.file)), weights_hash(fetch(args.run))
    if None not in (made_by, weights) and made_by != weights:
        logger.warning(
            "%s was encoded with weights other than those in %s: its vectors belong to another "
            "latent space",
            *(args.file, args.run),
        )
    output, options = presenter(model, args), generation(model, args)
    if model.condition is not None and args.condition is None:
        options["condition"] = read_labels(Path(args.file), len(z))
    with output:
        output.show(model.decode(z, do_sample=args.do_sample, **options))
