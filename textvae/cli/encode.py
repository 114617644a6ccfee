"""``textvae encode``: the posteriors of the examples in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import kept_of, labels_of, load, read_parts, warn_of_collapse
from textvae.cli.options import (
    add_common,
    add_condition,
    add_keep,
    add_layout,
    add_model,
    add_refinement,
    new_parser,
)
from textvae.errors import quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonargparse import Namespace

    from textvae.runs.latents import Texts
    from textvae.vae.examples import Examples

AT_ONCE = 16384  # examples in memory: enough of any length for batches with little padding


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "save the latent vectors of sentences or images",
        "textvae encode RUN FILE --out LATENTS [...]",
    )
    add_model(parser)
    parser.add_argument(
        "file",
        help="a text file or folder of any format that train reads (- for standard input), or "
        "images: an .npz file or a folder of image files",
    )
    parser.add_argument("--out", required=True, help="the .npz or .parquet file to write")
    add_refinement(parser)
    add_keep(parser)
    add_layout(parser)
    add_common(parser)
    add_condition(parser)
    return parser


def run(args: Namespace) -> None:
    """Encode a file and write the latent vectors, with the caption and the label of each.

    The file is read twice, so that its examples need not be kept in memory.
    """
    from textvae.runs.latents import (
        LABEL,
        TEXT,
        WEIGHTS,
        Extent,
        check_format,
        check_size,
        latents_file,
    )
    from textvae.runs.model_folder import fetch, weights_hash
    from textvae.text.data.kept import check_not_taken

    path = Path(args.out)
    check_format(path)
    model = load(args)
    model.check_latent()
    kept = kept_of(model, args, AT_ONCE)  # first, because a pipe is refused
    parts = read_parts(model, args, args.file, AT_ONCE)

    def rows() -> Iterator[tuple[Examples, Texts]]:
        for part, others in zip(parts(), kept(), strict=False):
            yield part, {TEXT: part.captions, LABEL: part.labels, **others}

    extent, first = Extent(), 0
    for _, texts in rows():
        extent = extent.with_part(texts)
    check_size(path, extent)
    options = {name: args[name] for name in ("refine_steps", "seed", "batch_size")}
    with latents_file(path, extent, weights_hash(fetch(args.run))) as file:
        for part, texts in rows():
            given = labels_of(model, args, part, first)
            q = model.encode(part.inputs, condition=given, first_row=first, **options)
            tensors = {"mean": q.center(), **q._asdict()}  # decode reads ``mean``: not every q has
            vectors = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
            check_not_taken(args.keep, (TEXT, LABEL, WEIGHTS, *vectors))
            file.add(vectors, texts)
            first += len(part.captions)
    warn_of_collapse(args.run)
    print(f"wrote {quantity(first, 'posterior')} to {path}", file=sys.stderr)
