"""Options shared by several commands: their declarations, and how they reach the model.

Nothing at the top of this file may import torch, so that ``--help`` is fast.
"""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from textvae.config.types import NonNegativeInt, PositiveInt, Seed, Steps, numbers
from textvae.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from textvae.vae.batching import Split
    from textvae.vae.examples import Examples, Presenter
    from textvae.vae.model import Model

LAYOUT = ("format", "text_column", "label_column", "delimiter", "header")  # of text files
# Options that apply to one kind of model (``Model.KIND``), with the value that means "not given".
APPLIES_TO: dict[str, dict[str, Any]] = {
    "text": {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "num_beams": 1,
        "max_new_tokens": None,
        "allow_unk": False,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "format": "text",
        "show_source": False,
    },
    "image": {"walk": None},
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
    parser.add_argument("run", help="a run folder, a saved model, or a model name on the hub")


def add_run(parser: ArgumentParser, split: str, *, new_files: bool = True) -> None:
    """Add the run whose data a command reads.

    Args:
        parser: The command's parser.
        split: Help text for ``--split``.
        new_files: Whether the command also reads a file of new examples.
    """
    instead = "; or a file of new examples to use instead of the split" if new_files else ""
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--split", default="test", help=split)
    parser.add_argument(
        "--data",
        type=str,
        help=f"where the dataset is now, if it has moved since training{instead}",
    )
    add_layout(parser)


def add_layout(parser: ArgumentParser) -> None:
    """Add the options of ``train`` that say how text files are laid out, under their names."""
    add = parser.add_argument_group("options for text files").add_argument
    column = "the {} column; default: that of the training data, or {}"
    kinds = {
        "format": (str | None, "file format; default: detect it from the name and first lines"),
        "text_column": (str | None, column.format("text", '"text"')),
        "label_column": (str | None, column.format("label", '"label", if there is one')),
        "delimiter": (str | None, "what separates the columns of a table"),
        "header": (bool | None, "the first row of a table names its columns"),
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
    parser: ArgumentParser, *, show_source: bool = False, walk: bool = False
) -> None:
    """Add the options for generation: common ones, then those for text and image models.

    Args:
        parser: The command's parser.
        show_source: Include ``--show-source``.
        walk: Include ``--walk``.
    """
    add_common(parser)
    add_condition(parser)
    group = parser.add_argument_group("options for text models")
    add = group.add_argument
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
    add("--num-beams", type=int, default=1, help="beam width; above 1, beam search")
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
        default="text",
        help="one sentence per line, or one JSON object per line",
    )
    if show_source:
        add("--show-source", action="store_true", help="print each source above its output")
    parser.add_argument(
        "--out",
        type=str,
        help="the file to write: the .png file of an image model (required), or the sentences of a "
        "text model, which go to standard output by default",
    )
    if walk:
        parser.add_argument_group("options for image models").add_argument(
            "--walk",
            type=PositiveInt | None,
            help="instead of samples, a WALK x WALK grid over the prior's quantiles (only for 2 "
            "latent dimensions)",
        )


def add_condition(parser: ArgumentParser) -> None:
    """Add what the model is conditioned on."""
    parser.add_argument(
        "--condition",
        type=str,
        help="for a model trained with --model.condition: the label (by name or index) or the "
        "number given to every example; default: those in the file, or, for samples, labels drawn "
        "with their frequencies in training",
    )


def load(args: Namespace) -> Model:
    """Load the model of a command on the chosen device.

    Raises:
        UserError: The model cannot be loaded, or there is no such device.
    """
    from textvae.build import load_model, to_device
    from textvae.vae.conditioning import codes_of

    model = load_model(args.run)
    if args.get("condition") is not None:
        codes_of(model.condition, args.condition, 1)  # a wrong one is refused before any work
    return to_device(model, args.device)


def presenter(model: Model, args: Namespace) -> Presenter:
    """Return the object that shows a command's output; check its options before the computation.

    Raises:
        UserError: An option does not apply to this kind of model, or one is missing.
    """
    for kind, options in APPLIES_TO.items():
        given = [name for name, default in options.items() if args.get(name, default) != default]
        if given and kind != model.KIND:
            raise UserError(f"{_listed(given)} only to {kind} models, and {args.run} is not one")
    return model.presenter(
        out=None if args.out is None else Path(args.out),
        format=args.format,
        show_sources=args.get("show_source", False),
    )


def read_file(model: Model, args: Namespace, file: str) -> Examples:
    """Read the examples in a file with the layout that the options describe.

    Raises:
        UserError: It cannot be read, or an option does not apply to this kind of model.
    """
    return model.read_examples(file, **_reading(args))


def read_parts(
    model: Model, args: Namespace, file: str, size: int
) -> Callable[[], Iterator[Examples]]:
    """Return a function that reads the examples in a file as ``read_file`` does, some at a time.

    Raises:
        UserError: As ``read_file`` does.
    """
    return model.example_parts(file, size, **_reading(args))


def _reading(args: Namespace) -> dict[str, Any]:
    from textvae.config.experiment import Config
    from textvae.runs.run_folder import CONFIG

    config = Path(args.run) / CONFIG
    data = Config.load(config).data if config.exists() else Config().data
    return {"usual": (data.text_column, data.label_column), **layout(args)}


def layout(args: Namespace) -> dict[str, Any]:
    """Return the options of ``add_layout`` that were given, with their names in the config."""
    options = {name: args[f"data_{name}"] for name in LAYOUT}
    return {name: value for name, value in options.items() if value is not None}


def _listed(names: Sequence[str]) -> str:
    options = [f"--{name.replace('_', '-')}" for name in names]
    return f"{' and '.join(options)} {'applies' if len(options) == 1 else 'apply'}"


def generation(model: Model, args: Namespace) -> dict[str, Any]:
    """Return the options of ``model.decode`` and of the methods that call it."""
    return {name: args[name] for name in ("seed", "batch_size", *model.DECODE_OPTIONS)}


def examples(model: Model, args: Namespace, names: Sequence[str]) -> Examples:
    """Return the examples named on the command line."""

    def test_split() -> Split:
        from textvae.evaluation.open_run import open_run

        return open_run(args.run, model=model).split("test")

    return model.pick_examples(names, test_split)
