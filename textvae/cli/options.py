"""Options shared by several commands; ``textvae.cli.given`` turns them into models and examples.

Nothing at the top of this file may import torch, so that ``--help`` is fast.
"""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action, RawDescriptionHelpFormatter, _ActionsContainer
from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from textvae.config.choices import own_option
from textvae.config.types import NonNegativeInt, PositiveInt, Seed, Steps, numbers

DRAWN = "drawn from those of the training split"  # the conditions of samples
OF_NEW_FILE = "those in the file; only with --data FILE"  # of examples that are not the run's own

# Options that apply to one kind of model (``Model.KIND``), with the value that means "not given".
APPLIES_TO: dict[str, dict[str, Any]] = {
    "text": {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "num_beams": 1,
        "length_penalty": 1.0,
        "max_new_tokens": None,
        "allow_unk": False,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "format": None,
        "show_source": False,
    },
    "image": {"walk": None},
}

# Parts of a training that may be the user's own, with what each is.
OWN_PARTS = {
    "model": "class of models: a subclass of one of textvae's, or a partial of one",
    "objective": "objective: a function, or an object, that is called with (terms, beta)",
    "kl_schedule": "schedule of the KL weight: a function that is called with (step, steps) and "
    "returns a share of --objective.beta",
    "procedure": "procedure: an object that decides the order of the updates",
}


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Shows the range and the default of an option; keeps the line breaks of the examples."""

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        notes = [numbers(getattr(action, "_typehint", action.type))]
        if action.required and action.option_strings:
            notes.append("required")
        flag = action.nargs == 0
        if not flag and action.default not in (None, "", SUPPRESS) and action.default != []:
            notes.append("default: %(default)s")
        said = ", ".join(filter(None, notes))
        return f"{text} ({said})" if said else text

    def _expand_help(self, action: Action) -> str:
        text = super()._expand_help(action)  # booleans as in YAML
        return re.sub("default: (True|False)\\)$", lambda found: found[0].lower(), text)


def new_parser(description: str, usage: str) -> ArgumentParser:
    """Create an empty parser for one command."""
    return ArgumentParser(
        description=description,
        usage=usage,
        exit_on_error=False,
        allow_abbrev=False,  # --res would resume without reading the run's config
        formatter_class=HelpFormatter,
    )


def add_model(parser: ArgumentParser) -> None:
    """Add the model that a command uses."""
    parser.add_argument(
        "run", help="a run folder, a saved model, or a model on the Hugging Face Hub"
    )
    add_own_model(parser)


def add_own_model(parser: _ActionsContainer, *, several: bool = False) -> None:
    """Add the class of a model that is not one of textvae's; ``several``: one for each such run."""
    many: dict[str, Any] = {"nargs": "+"} if several else {}
    parser.add_argument(
        "--own-model",
        type=str,
        metavar="FILE.py:CLASS",
        help="your own class of the model; its file is executed"
        + ("; give all classes if the runs have several" if several else ""),
        **many,
    )


def add_own_parts(parser: ArgumentParser) -> None:
    """Add the parts of a training that may be the user's own."""
    for part, what in OWN_PARTS.items():
        parser.add_argument(
            own_option(part),
            type=str,
            metavar="FILE.py:NAME",
            help=f"your own {what}; its file is executed, and resuming needs it again",
        )


def add_own_metrics(parser: ArgumentParser) -> None:
    """Add metrics of the user's own."""
    parser.add_argument(
        "--own-metric",
        nargs="+",
        default=[],
        metavar="FILE.py:NAME",
        help="add your own metrics to the card: functions of (model, batches) that return a "
        "number, or several numbers by name; their files are executed",
    )


def add_run(parser: ArgumentParser, split: str, *, new_files: bool = True) -> None:
    """Add the run whose data a command reads.

    Args:
        parser: The command's parser.
        split: Help text for ``--split``.
        new_files: Whether the command also reads a file of new examples.
    """
    add_run_folder(parser, "; with --data FILE, a saved model is enough" if new_files else "")
    parser.add_argument("--split", default="test", help=split)
    instead = "or a file or folder of new examples to use instead of the split"
    add_data(parser, f"; {instead}" if new_files else "")
    add_layout(parser)


def add_run_folder(parser: ArgumentParser, more: str = "") -> None:
    """Add the run of a command that needs more of it than the model; ``more`` ends the help."""
    parser.add_argument("run", help=f"a run folder{more}")
    add_own_model(parser)


def add_data(parser: ArgumentParser, more: str = "") -> None:
    """Add the place of the dataset; ``more`` is the rest of the help text."""
    moved = "where the dataset is now, if it has moved since training"
    parser.add_argument("--data", type=str, help=moved + more)


def add_measures(parser: ArgumentParser) -> None:
    """Add the options for the expensive parts of a metrics card, and their precision."""
    add = parser.add_argument
    add(
        "--samples",
        type=NonNegativeInt,
        default=200,
        help="number of samples K for the importance-weighted bound; 0 skips it",
    )
    add(
        "--generations",
        type=NonNegativeInt,
        default=500,
        help="sentences generated for BLEU, distinct-n, and self-BLEU; 0 skips them",
    )
    add(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="precision of matrix products in the evaluation",
    )


def add_keep(parser: ArgumentParser) -> None:
    """Add the columns that are copied from a file to the output."""
    parser.add_argument(
        "--keep",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="other columns of the file to copy to the output, such as an id",
    )


def add_layout(parser: ArgumentParser) -> None:
    """Add the options of ``train`` that say how text files are laid out, under their names."""
    add = parser.add_argument_group("options for text files").add_argument
    column = "the {} column; default: that of the training data, or {}"
    kinds = {
        "format": (str | None, "file format; default: detect it from the name and first lines"),
        "text_column": (str | None, column.format("text", '"text"')),
        "label_column": (str | None, column.format("label", '"label", if there is one')),
        "labels": (bool | None, "false: ignore labels"),
        "delimiter": (str | None, "what separates the columns of a table"),
        "header": (bool | None, "whether the first row of a table names its columns"),
    }
    for name, (kind, meaning) in kinds.items():  # not data.NAME: commands have an option --data
        add(f"--data.{name}", dest=f"data_{name}", type=kind, help=meaning)


def add_common(parser: ArgumentParser) -> None:
    """Add the seed, the batch size, and the device."""
    parser.add_argument("--seed", type=Seed, default=0, help="random seed")
    parser.add_argument(
        "--batch-size",
        type=PositiveInt,
        default=64,
        help="examples per batch; does not change the results",
    )
    parser.add_argument("--device", type=str, help="cpu, cuda, ...; default: a GPU if there is one")


def add_refinement(parser: ArgumentParser) -> None:
    """Add the number of refinement steps."""
    parser.add_argument(
        "--refine-steps",
        type=Steps | None,
        help="gradient steps on the ELBO that refine q(z|x); 0 uses only the encoder; default: as "
        "in training",
    )


def add_do_sample(parser: ArgumentParser) -> None:
    """Add sampling from p(x|z), for commands that are greedy by default."""
    parser.add_argument(
        "--do-sample",
        action="store_true",
        help="sample words or pixels instead of taking the most likely ones (recommended for "
        "PixelCNN decoders, whose most likely image is often all black)",
    )


def add_generation(
    parser: ArgumentParser, *, samples: bool = False, show_source: bool = False
) -> None:
    """Add the options for generation: common ones, then those for text and image models.

    Args:
        parser: The command's parser.
        samples: Whether the command draws z; includes ``--walk``.
        show_source: Include ``--show-source``.
    """
    add_common(parser)
    add_condition(parser, *([DRAWN] if samples else []))
    text = parser.add_argument_group("options for text models").add_argument
    _add_decoding(text)
    if show_source:
        text("--show-source", action="store_true", help="print each source above its output")
    parser.add_argument(
        "--out",
        type=str,
        help="the file to write: the .png file of an image model (required), or the sentences of a "
        "text model, which go to standard output by default",
    )
    if samples:
        parser.add_argument_group("options for image models").add_argument(
            "--walk",
            type=PositiveInt | None,
            help="instead of samples, a WALK x WALK grid over the prior's quantiles (only for 2 "
            "latent dimensions)",
        )


def _add_decoding(add: Callable[..., Any]) -> None:
    add(
        "--temperature",
        type=float,
        default=1.0,
        help="divide the logits by this: below 1 for more likely words, above 1 for more variety",
    )
    add("--top-k", type=int, default=0, help="sample from the k most likely words; 0: all words")
    add(
        "--top-p",
        type=float,
        default=1.0,
        help="sample from the most likely words whose probabilities add up to p",
    )
    add("--num-beams", type=int, default=1, help="beam width; 1: no beam search")
    add(
        "--length-penalty",
        type=float,
        default=1.0,
        help="beam search compares log p / length ** LENGTH_PENALTY: above 0 for longer sentences",
    )
    add(
        "--max-new-tokens",
        type=int | None,
        help="maximum length in tokens; default: as in training",
    )
    add(
        "--repetition-penalty",
        type=float,
        default=1.0,
        help="above 1, makes words that the sentence has already used less likely",
    )
    add(
        "--no-repeat-ngram-size",
        type=NonNegativeInt,
        default=0,
        help="no sequence of this many tokens may occur twice in a sentence; 0: no limit",
    )
    add("--allow-unk", action="store_true", help="allow <unk> in the output")
    add(
        "--format",
        choices=["text", "jsonl"],
        help="one sentence per line, or one JSON object per line; default: jsonl if --out ends in "
        ".jsonl, else text",
    )


def add_condition(parser: Any, default: str = "those of the examples") -> None:
    """Add what the model is conditioned on; ``default`` is what it is without the option."""
    parser.add_argument(
        "--condition",
        type=str,
        help="for a model trained with --model.condition: the label (by name or index) or the "
        f"number given to every example; default: {default}",
    )
