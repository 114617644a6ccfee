"""``textvae encode``: the posteriors of the examples in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.options import (
    add_common,
    add_condition,
    add_layout,
    add_model,
    add_refinement,
    load,
    new_parser,
    read_file,
)

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "save the posterior means and log variances of sentences or images",
        "textvae encode RUN FILE --out LATENTS [...]",
    )
    add_model(parser)
    parser.add_argument(
        "file",
        help="a text file of any format that train reads (- for standard input), or an .npz file "
        "of images",
    )
    parser.add_argument("--out", required=True, help="the .npz or .parquet file to write")
    add_refinement(parser)
    add_layout(parser)
    add_common(parser)
    add_condition(parser)
    return parser


def run(args: Namespace) -> None:
    """Encode a file and write the latent vectors, with the caption and the label of each."""
    from textvae.runs.latents import check_format, check_texts, write_latents

    check_format(Path(args.out))
    model = load(args)
    examples = read_file(model, args, args.file)
    check_texts(Path(args.out), examples.captions)
    condition = args.condition
    if model.condition is not None and condition is None:
        condition = examples.labels
    options = {name: args[name] for name in ("refine_steps", "seed", "batch_size")}
    q = model.encode(examples.inputs, condition=condition, **options)
    tensors = {"mean": q.center(), **q._asdict()}  # decode reads ``mean``, which not every q has
    columns = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    write_latents(Path(args.out), columns, examples.captions, examples.labels)
