"""``textvae neighbors``: the nearest neighbors of an example in the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from textvae.cli.given import examples, layout, load, warn_of_collapse
from textvae.cli.options import add_common, add_condition, add_refinement, add_run, new_parser
from textvae.config.types import PositiveInt
from textvae.text.presentation import on_one_line

if TYPE_CHECKING:
    from jsonargparse import Namespace

OPTIONS = ("n", "distance", "data", "split", "condition", "refine_steps", "batch_size", "seed")


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "find the sentences or images whose posterior means are nearest to that of an example",
        "textvae neighbors RUN EXAMPLE [-n N] [--data FILE] [...]",
    )
    add_run(parser, "the split to search")
    add = parser.add_argument
    add("example", help="a sentence, or the index of an image in the test split")
    add("-n", type=PositiveInt, default=10, help="number of neighbors")
    add(
        "--distance",
        choices=["euclidean", "cosine"],
        default="euclidean",
        help="how the distance between two means is measured",
    )
    add(
        "--format",
        choices=["text", "jsonl"],
        default="text",
        help="one neighbor per line as text, or one JSON object per line",
    )
    add_refinement(parser)
    add_common(parser)
    add_condition(parser)
    return parser


def run(args: Namespace) -> None:
    """Print the neighbors, the nearest first."""
    from textvae.evaluation.latent.neighbors import neighbors
    from textvae.evaluation.metrics.metric import MISSING
    from textvae.runs.files import json_line

    model = load(args)
    model.check_latent()
    (example,) = examples(model, args, [args.example]).inputs
    options = {name: args[name] for name in OPTIONS}
    found = neighbors(args.run, example, model=model, reading=layout(args), **options)
    warn_of_collapse(args.run)
    if args.format == "jsonl":
        print(*map(json_line, found), sep="\n")
        return
    labels = [row.get("label") or MISSING for row in found]
    width = max(map(len, [*labels, "label"])) + 1 if "label" in found[0] else 0
    print(f"distance    row {'label' if width else '':{width}}text")
    for row, label in zip(found, labels, strict=True):
        text = on_one_line(row["text"])
        print(f"{row['distance']:8.3f} {row['row']:6d} {label if width else '':{width}}{text}")
