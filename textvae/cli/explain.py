"""``textvae explain``: which words z predicts, in sentences, by position, and by word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from textvae.cli.exit_codes import show
from textvae.cli.given import layout, own_model, warn_of_collapse
from textvae.cli.options import add_common, add_condition, add_refinement, add_run, new_parser
from textvae.config.types import NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from textvae.evaluation.explanation.result import Explanation

OPTIONS = (
    *("data", "condition", "device", "split", "limit", "baseline", "draws", "unit"),
    *("refine_steps", "batch_size", "seed"),
)


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = new_parser(
        "say which words z predicts, by position and by word, or in your own sentences",
        "textvae explain RUN [SENTENCE ...] [...]",
    )
    add_run(parser, "the split to take sentences from, or those whose z is used instead")
    given = parser.add_argument(
        "sentences", nargs="+", help="sentences to explain; default: those of the split"
    )
    given.required = False  # unlike with "*", sentences may also follow an option
    add = parser.add_argument
    add(
        "--limit",
        type=PositiveInt,
        default=500,
        help="take at most LIMIT sentences of the split, evenly spaced",
    )
    add(
        "--baseline",
        type=str,
        metavar="RUN",
        help="the run of a language model with the same tokens to compare with; default: the same "
        "model with the z of other sentences",
    )
    add(
        "--dim",
        type=NonNegativeInt,
        nargs="+",
        help="dimensions, counted from 0, to take from the other sentence, keeping the rest of z; "
        "default: all of them",
    )
    add(
        "--draws",
        type=PositiveInt | None,
        help="number of draws of z for every sentence, and of other sentences whose z is used "
        "instead; default: 4, or up to 32 for few sentences",
    )
    add(
        "--unit",
        type=Literal["word", "token"] | None,
        metavar="{word,token}",
        help="report whole words, or the tokens of the tokenizer; default: tokens if they are "
        "characters or symbols, otherwise words",
    )
    add("--json", action="store_true", help="print everything as JSON, word by word")
    add_refinement(parser)
    add_common(parser)
    add_condition(parser)
    return parser


def run(args: Namespace) -> None:
    """Print which words z predicts."""
    from textvae.evaluation.explanation.explain_run import explain_run
    from textvae.runs.files import as_json

    found = explain_run(
        args.run,
        args.sentences,
        model=own_model(args),
        reading=layout(args),
        dimension=args.dim,
        **{name: args[name] for name in OPTIONS},
    )
    warn_of_collapse(args.run)
    if args.json:
        show(as_json(found.to_dict()))
    else:
        show(_sentences(found) if args.sentences else found)


def _sentences(found: Explanation) -> str:
    """Return the given sentences in columns, with what z gains for each word."""
    return "\n\n".join([*map(str, found.texts), found.legend()])
