"""``textvae reconstruct``: examples encoded and decoded again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import (
    examples,
    generation,
    labels_of,
    layout,
    load,
    presenter,
    read_file,
    warn_of_collapse,
)
from textvae.cli.options import (
    add_do_sample,
    add_generation,
    add_layout,
    add_model,
    add_refinement,
    new_parser,
)
from textvae.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "encode sentences or images and decode them again",
        "textvae reconstruct RUN [EXAMPLE ...] [--file FILE] [...]",
    )
    add_model(parser)
    given = parser.add_argument(
        "examples",
        nargs="+",
        help="text models: sentences (default: standard input); image models: indices into the "
        "test split (default: the first 30 images)",
    )
    given.required = False  # unlike with "*", examples may also follow an option
    parser.add_argument(
        "--file",
        type=str,
        help="read the examples from a text file of any format that train reads (- for standard "
        "input), or images from an .npz file or a folder of image files",
    )
    parser.add_argument(
        "--use",
        choices=["mean", "sample"],
        default="mean",
        help="decode the mean of q(z|x), or a sample from it",
    )
    add_do_sample(parser)
    add_refinement(parser)
    add_layout(parser)
    add_generation(parser, show_source=True)
    parser.add_argument(
        "--decode-condition",
        type=str,
        metavar="CONDITION",
        help="the label or the number to decode with, if it is not the one to encode with",
    )
    return parser


def run(args: Namespace) -> None:
    """Show each reconstruction, with its source if the output format includes it."""
    model = load(args)
    model.check_latent()
    output = presenter(model, args)
    if args.file and args.examples:
        raise UserError("give either examples or --file, not both")
    file = args.file or (None if args.examples else model.DEFAULT_FILE)
    if file is None:
        if given := layout(args):
            raise UserError(f"--data.{next(iter(given))} has no effect without --file")
        found = examples(model, args, args.examples or [])
    else:
        found = read_file(model, args, file)
    options = {name: args[name] for name in ("use", "refine_steps", "do_sample")}
    options |= generation(model, args) | {"condition": labels_of(model, args, found)}
    if args.decode_condition is not None:
        options["decode_condition"] = args.decode_condition
    outputs = model.reconstruct(found.inputs, **options)
    warn_of_collapse(args.run)
    with output:
        output.show(outputs, sources=found.inputs)
