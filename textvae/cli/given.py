"""What the shared options of commands stand for: the model, the examples, and the arguments.

Like ``textvae.cli.options``, this file may not import torch at its top, so that ``--help`` is fast.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textvae.cli.options import APPLIES_TO, OWN_PARTS
from textvae.config.experiment import LAYOUT
from textvae.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from textvae.text.data.kept import Kept
    from textvae.vae.batching import Split
    from textvae.vae.examples import Examples, Presenter
    from textvae.vae.model import Model

logger = logging.getLogger(__name__)


def load(args: Namespace) -> Model:
    """Load the model of a command on the chosen device.

    Raises:
        UserError: The model cannot be loaded, or there is no such device.
    """
    from textvae.builders.model import load_model, to_device
    from textvae.vae.conditioning import codes_of

    model = load_model(args.run, model_class=_own_class(args))
    for name in ("condition", "decode_condition"):  # a wrong one is refused before any work
        if (given := args.get(name)) is not None:
            option = f"--{name.replace('_', '-')} {given}"
            try:
                codes = codes_of(model.condition, given, 1)
            except UserError as error:
                raise UserError(f"{option}: {error}") from None
            assert model.condition is not None and codes is not None
            (value,) = model.condition.values(codes.tolist())
            if isinstance(value, str) and value != str(given):  # a label that was given by number
                logger.info("%s: the %s %s", option, model.condition.noun, value)
    return to_device(model, args.device)


def own_model(args: Namespace) -> Model | None:
    """Return the model of the class that ``--own-model`` names; None without that option.

    Raises:
        UserError: There is no such class, or the model cannot be loaded.
    """
    from textvae.builders.model import load_model
    from textvae.runs.files import expanded

    if (kind := _own_class(args)) is None:
        return None
    return load_model(str(expanded(args.run)), device=args.device, model_class=kind)


def own_models(args: Namespace, runs: Sequence[Path | str]) -> dict[Path | str, Model]:
    """Return the models of those runs that are of a class that ``--own-model`` names.

    Args:
        args: The options of a command that takes several classes.
        runs: What the command was given, run folders and files.

    Raises:
        UserError: There is no such class, no run is of it, or a model cannot be loaded.
    """
    from textvae.builders.model import load_model
    from textvae.runs.files import expanded

    found: dict[Path | str, Model] = {}
    for name in args.own_model or []:
        kind = _class_named(name)
        of_kind = [run for run in runs if Path(run).is_dir() and kind.is_class_of(expanded(run))]
        if not of_kind:
            raise UserError(f"--own-model {name}: none of the runs is of this class")
        for run in of_kind:
            found[run] = load_model(str(expanded(run)), device=args.device, model_class=kind)
    return found


def _own_class(args: Namespace) -> type[Model] | None:
    return None if args.get("own_model") is None else _class_named(args.own_model)


def _class_named(name: str) -> type[Model]:
    from textvae.training.own_parts import class_of, load_own_parts

    # The arguments of a partial are in the folder of the model.
    return class_of(load_own_parts({"model": name})["model_class"])


def own_parts(args: Namespace) -> dict[str, str]:
    """Return the names of the user's own parts, by part."""
    names = {part: args[f"own_{part}"] for part in OWN_PARTS}
    return {part: name for part, name in names.items() if name is not None}


def warn_of_collapse(run: str) -> None:
    """Warn, next to the results of a command that encodes, if z is known not to be used."""
    from textvae.evaluation.diagnosis.history import recorded_collapse
    from textvae.runs.files import expanded

    with suppress(UserError):  # a model without a run, or records that cannot be read
        if warning := recorded_collapse(expanded(run)):
            logger.warning("%s: %s", run, warning)


def presenter(model: Model, args: Namespace) -> Presenter:
    """Return the object that shows a command's output; check its options before the computation.

    Raises:
        UserError: An option does not apply to this kind of model, or one is missing.
    """
    for kind, options in APPLIES_TO.items():
        given = [name for name, default in options.items() if args.get(name, default) != default]
        if given and kind != model.KIND:
            raise UserError(f"{_listed(given)} only to {kind} models, and {args.run} is not one")
    out = None if args.out is None else Path(args.out)
    implied = "jsonl" if out is not None and out.suffix.lower() == ".jsonl" else "text"
    return model.presenter(
        out=out,
        format=args.format or implied,
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


def kept_of(model: Model, args: Namespace, size: int) -> Callable[[], Iterator[Kept]]:
    """Return a function that reads the columns of ``--keep`` in parts, as ``read_parts`` does.

    Raises:
        UserError: A column is missing, or the examples are images.
    """
    from textvae.builders.data import kept_columns

    return kept_columns(model, args.file, args.keep, size, **_reading(args))


def labels_of(model: Model, args: Namespace, found: Examples, first: int = 0) -> Any:
    """Return what the model is conditioned on: ``--condition``, or the labels of the examples.

    It is None if there is neither; the model then says what it needs.

    Args:
        model: The model.
        args: The options of the command.
        found: The examples, from a file.
        first: The number of the first one in the file, from 0.

    Raises:
        UserError: An example has no label.
    """
    if model.condition is None or args.condition is not None:
        return args.condition
    if not any(found.labels):
        return None
    if None in found.labels:
        row = found.labels.index(None)
        blank = "" if found.captions[row].strip() else " (it is blank)"
        raise UserError(
            f"example {first + row + 1} has no {model.condition.noun}{blank}, and this model "
            "depends on it: add it, leave the example out, or set --condition for all"
        )
    return found.labels


def _reading(args: Namespace) -> dict[str, Any]:
    from textvae.builders.data import usual_layout

    return {"usual": usual_layout(Path(args.run)), **layout(args)}


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
        from textvae.evaluation.open_run import are_new_examples, open_run

        data = args.get("data")
        data = None if are_new_examples(data) else data
        return open_run(args.run, data=data, model=model).split("test")

    return model.pick_examples(names, test_split)
