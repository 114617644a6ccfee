"""What every evaluation of a run starts from: its config, its model, and its data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
import torch

from textvae.builders.data import Splits, read_new
from textvae.builders.model import load_model, to_device
from textvae.builders.run_data import run_config, run_splits
from textvae.config.arguments import check_integers
from textvae.config.experiment import OPTIONS, Config, DataConfig, ModelConfig
from textvae.errors import UserError, only_errors
from textvae.evaluation.diagnosis.remedy import UNKNOWN
from textvae.runs import model_folder
from textvae.runs.files import expanded
from textvae.runs.model_folder import WEIGHTS, weights_hash
from textvae.runs.run_folder import config_path, is_run
from textvae.runs.weights import holds_weights
from textvae.text.data.sources import is_one_split
from textvae.text.data.streams import STANDARD_INPUT
from textvae.vae.batch import Split
from textvae.vae.batching import LengthBuckets
from textvae.vae.conditioning import add_conditions, codes_of
from textvae.vae.model import Model

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)

STDIN_NAME = "standard-input"  # of new examples that are piped


class Opening(TypedDict, total=False):
    """How a run is opened: options of everything that evaluates one.

    Attributes:
        data: Where the data is, if it has moved since training; or a file of new examples.
        reading: Options of the section ``data`` that differ for these files, such as text_column.
        device: Where to put the model; None: a GPU if there is one.
        model: A model to use instead of the one in the folder; it stays on its device unless
            ``device`` is given.
    """

    data: Path | str | None
    reading: Mapping[str, Any] | None
    device: str | torch.device | None
    model: Model | None


class OpenRun(NamedTuple):
    """A run, finished or not, that is ready to be evaluated.

    If it was opened with a file of new examples, ``splits`` has only these, as ``test``, and
    ``new`` is the name of the file. ``given`` is what all are conditioned on, if it was chosen.
    """

    folder: Path
    config: Config
    model: Model
    splits: Splits
    weights: str | None  # the hash of the weights in the folder; None if the model has others
    new: str | None = None
    given: str | float | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether the model is not the one in the folder, so its metrics do not belong there."""
        return self.weights is None

    @property
    def name(self) -> str:
        """The name of the run in tables."""
        return self.folder.resolve().name

    def split(self, name: str) -> Split:
        """Return a split of the run's data.

        Raises:
            UserError: There is no such split.
        """
        if name not in self.splits:
            if self.new is not None:
                raise UserError(
                    f"{self.config.data.dir} has no splits, but this needs the {name} split of "
                    f"the data that {self.folder} was trained on: a file of new examples takes the "
                    "place of the test split only"
                )
            raise UserError(
                f"{self.config.data.dir} has no split {name!r}: choose {', '.join(self.splits)}"
            )
        return self.splits[name]

    def title(self, split: str) -> str:
        """Return what the results for a split are saved and shown as."""
        if self.new is None:
            return split
        name = self.new if "." in self.new else f"{self.new}-file"  # never that of a split
        return name if self.given is None else f"{name}-given-{self.given}".replace("/", "_")


def open_run(
    run: Path | str,
    *,
    condition: str | float | None = None,
    **opening: Unpack[Opening],
) -> OpenRun:
    """Read the config, the best model, and the data of a run.

    Args:
        run: A run folder; for a file of new examples, a saved model is enough.
        condition: For a model that is conditioned on labels or numbers: that of all new examples;
            None: those in their file.
        opening: data, reading, device, model, as in ``Opening``.

    Raises:
        UserError: It is not a run folder, its data is missing or has changed, the device does not
            exist, or a condition is given for the run's own data.
        TypeError: An option does not exist.
    """
    if unknown := opening.keys() - Opening.__annotations__.keys():
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    folder, data, reading = expanded(path_of_run(run)), opening.get("data"), opening.get("reading")
    is_shared = not is_run(folder) and (folder / WEIGHTS).exists() and data is not None
    config = _of_saved_model(folder, str(data)) if is_shared else run_config(folder, data, reading)
    model, weights = model_of(folder, opening.get("model"), opening.get("device"))
    if condition is not None:
        codes_of(model.condition, condition, 1)  # a wrong one is refused before any work
    opened = OpenRun(folder, config, model, {}, weights)
    if not (is_shared or are_new_examples(data)):
        if condition is not None:
            raise UserError(
                "--condition is for a file of new examples (--data FILE): the data of the run "
                "has labels"
            )
        return opened._replace(splits=_splits_for(model, folder, config))
    may_be_own = not is_shared and condition is None and str(data) != STANDARD_INPUT
    if may_be_own and _may_be_of_run(folder, str(data)):
        splits = None
        with suppress(UserError), only_errors():  # nothing is wrong if it is another file
            splits = _splits_for(model, folder, config)
        if splits is not None:
            if str(data) != Config.load(config_path(folder)).data.dir:
                logger.info(
                    "%s is the data that %s was trained on: its splits are used", data, folder
                )
            return opened._replace(splits=splits)
    new = read_new(model, folder, str(data), condition, **(reading or {}))
    name = STDIN_NAME if str(data) == STANDARD_INPUT else Path(str(data)).name
    return opened._replace(splits={"test": new}, new=name, given=condition)


def _of_saved_model(folder: Path, place: str) -> Config:
    """Return what a folder with only a model says of its experiment."""
    options = model_folder.read_config(folder)
    known = {name: value for name, value in options.items() if name in OPTIONS["model"]}
    tokenized = bool(options.get("tokenized"))
    data = DataConfig(tokenized=tokenized) if "max_length" in options else DataConfig(kind="images")
    return replace(UNKNOWN, model=ModelConfig(**known), data=replace(data, dir=place))


def path_of_run(run: Path | str) -> str:
    """Return the path of a run.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(run, (str, Path)):
        raise TypeError(
            f"run must be the path of a run folder, not a {type(run).__name__}: pass a model as "
            "model=..., next to its run"
        )
    return str(run)


def model_of(
    folder: Path, model: Model | None, device: str | torch.device | None
) -> tuple[Model, str | None]:
    """Return a model and, if it is that of the folder, the hash of its weights.

    Args:
        folder: The run folder.
        model: The model to use, ready to be evaluated; None: the one in the folder.
        device: Where to put it, as in ``Opening``.
    """
    weights = weights_hash(folder)  # before they are read: a training may replace them
    if model is None:
        model = to_device(load_model(str(folder)), device)
    else:
        weights = weights if holds_weights(model, folder) else None
        model = model if device is None else to_device(model, device)
    model.eval()
    return model, weights


def _may_be_of_run(folder: Path, data: str) -> bool:
    """Return whether a file may be the one that a run was trained on; a pipe is read only once."""
    if expanded(data).is_dir():
        return True
    return _is_one_file(run_config(folder).data.dir) and expanded(data).is_file()


def _is_one_file(place: str) -> bool:
    """Return whether the data of a run is a file; one that has moved is known by its suffix."""
    path = expanded(place)
    return path.is_file() if path.exists() else bool(path.suffix)


def are_new_examples(data: Path | str | None) -> bool:
    """Return whether ``data`` is new examples, to open instead of the run's own data.

    New examples may be a file, a pipe, or a folder that holds a single split of text.
    """
    if data is None or str(data) == STANDARD_INPUT:
        return data is not None
    path = expanded(data)
    return is_one_split(path) if path.is_dir() else path.exists()


def rows_of(split: Split, batch_size: int, limit: int | None = None) -> list[np.ndarray]:
    """Return the rows of every batch of an evaluation.

    Args:
        split: The examples.
        batch_size: Examples per batch.
        limit: At most this many examples, evenly spaced; None: all of them.
    """
    rows = LengthBuckets(split.lengths, batch_size).sequential()
    chosen = np.isin(np.arange(len(split)), spaced(len(split), limit))
    return [kept for batch in rows if len(kept := batch[chosen[batch]])]


def spaced(count: int, most: int | None) -> np.ndarray:
    """Return at most ``most`` evenly spaced numbers below ``count``, in ascending order; None: all.

    Unlike the first ones, they represent a split that is sorted, by label for example.
    """
    if most is not None:
        check_integers(1, limit=most)
    most = count if most is None else min(count, most)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def _splits_for(model: Model, folder: Path, config: Config) -> Splits:
    """Read the data of a run, with the conditions as the model has learned them."""
    splits = run_splits(folder, config)
    add_conditions(splits, model.condition)
    return splits
