"""``textvae score``: how likely a model finds the texts or images in a file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from textvae.cli.given import layout, load
from textvae.cli.options import (
    add_common,
    add_condition,
    add_keep,
    add_layout,
    add_model,
    add_refinement,
    new_parser,
)
from textvae.config.types import PositiveInt, Steps
from textvae.text.presentation import on_one_line

if TYPE_CHECKING:
    from jsonargparse import Namespace

logger = logging.getLogger(__name__)

OPTIONS = ("samples", "regret_steps", "refine_steps", "condition", "keep", "batch_size", "seed")
WIDTH = 9  # of a column of numbers, at least
MANY = 1000  # texts whose regret takes minutes
COUNTS = ("row", "units", "bytes", "tokens")  # in files and JSON, not in the table


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "print bounds on the log-likelihood of each text or image, and its likelihood regret",
        "textvae score RUN FILE [--labels] [--out SCORES] [...]",
    )
    add_model(parser)
    add = parser.add_argument
    add(
        "file",
        help="a text file or folder of any format that train reads (- for lines on standard "
        "input), or images: an .npz file or a folder of image files",
    )
    add(
        "--samples",
        type=PositiveInt,
        default=200,
        help="number of samples K for the importance-weighted bound and the reconstruction term",
    )
    add(
        "--regret-steps",
        type=Steps,
        default=100,
        help="gradient steps on the ELBO for the likelihood regret; 0 skips the regret",
    )
    add(
        "--labels",
        action="store_true",
        help="instead of the scores, print how well each of them tells one label from the rest",
    )
    add(
        "--positive",
        type=str,
        help="with --labels: the label to detect, by name or number; default: if there are two "
        "labels, the second",
    )
    add("--out", type=str, help="write the scores to this .jsonl or .parquet file")
    add(
        "--format",
        choices=["text", "jsonl"],
        default="text",
        help="what is printed: a table, or one JSON object per line",
    )
    add_keep(parser)
    add_layout(parser)
    add_refinement(parser)
    add_common(parser)
    add_condition(parser)
    return parser


def run(args: Namespace) -> None:
    """Score a file; print the scores or write them, and print what they tell about the labels."""
    from textvae.errors import UserError, quantity
    from textvae.evaluation.scoring.detection import detect, positive_label
    from textvae.evaluation.scoring.score import score_file
    from textvae.runs.files import json_line
    from textvae.runs.tables import check_table_file, write_table

    if args.out is not None:
        check_table_file(Path(args.out))
    if args.positive is not None and not args.labels:
        raise UserError("--positive chooses a label for --labels: add --labels")
    scored = score_file(
        args.run,
        args.file,
        model=load(args),
        **{name: args[name] for name in OPTIONS},
        **layout(args),
    )
    positive = positive_label(scored.split, args.positive) if args.labels else None
    if positive is not None and scored.model.condition is not None and args.condition is None:
        logger.warning(
            "the model is conditioned on the %s that is to be detected: use --condition to score "
            "all examples under the same one",
            scored.model.condition.noun,
        )
    if args.regret_steps and scored.model.latent_dim and len(scored) > MANY:
        logger.info("most of the time goes into the likelihood regret: --regret-steps 0 skips it")
    numbers: list[Mapping[str, Any]] = []
    texts = ("text", *args.keep)
    rows = _remembered(scored, numbers, texts) if args.labels else iter(scored)
    if args.out is not None:
        count = write_table(Path(args.out), rows)
        if args.format == "text":
            print(f"wrote {quantity(count, 'row')} to {args.out}")
    elif args.labels:
        for _ in rows:
            pass
    else:
        labels = scored.split.label_names or ()
        as_json = args.format == "jsonl"
        for line in map(json_line, rows) if as_json else _table(rows, labels, list(scored.kept)):
            print(line)
    if positive is not None:
        found = detect(numbers, positive)
        print(json_line(found) if args.format == "jsonl" else found)


def _remembered(
    rows: Iterable[Mapping[str, Any]], numbers: list[Mapping[str, Any]], left_out: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """Pass rows on and remember their numbers, but not their texts, which may not fit in memory."""
    for row in rows:
        numbers.append({name: value for name, value in row.items() if name not in left_out})
        yield row


def _table(
    rows: Iterable[Mapping[str, Any]], labels: Iterable[str], kept: Sequence[str]
) -> Iterator[str]:
    """Return the lines of a table."""
    from textvae.evaluation.metrics.table import BY_KEY

    width = max(map(len, ("label", *map(_on_one_line, labels))))
    for place, row in enumerate(rows):
        keys = [key for key in row if key in BY_KEY and key not in (*COUNTS, *kept)]
        shown = [BY_KEY[key] for key in keys]
        widths = [max(WIDTH, len(metric.header)) for metric in shown]
        others = [f"{_on_one_line(row['label']):{width}}"] if "label" in row else []
        others += [f"{_on_one_line(row[name]):{max(WIDTH, len(name))}}" for name in kept]
        others += [_on_one_line(row["text"])] if "text" in row else []
        if place == 0:
            headers = [f"{metric.header:>{w}}" for metric, w in zip(shown, widths, strict=True)]
            names = [f"{'label':{width}}"] if "label" in row else []
            names += [f"{name:{WIDTH}}" for name in kept]
            yield " ".join([*headers, "", *names, *(["text"] if "text" in row else [])])
        cells = [f"{metric.show(row):>{w}}" for metric, w in zip(shown, widths, strict=True)]
        yield " ".join([*cells, "", *others])


def _on_one_line(value: str | None) -> str:
    return "–" if value is None else on_one_line(value)
