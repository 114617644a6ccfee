"""Something to try against a verdict, and the command that tries it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torch import nn

from textvae.config.experiment import Config, ModelConfig, OptimConfig
from textvae.config.recipes import methods_folder
from textvae.evaluation.diagnosis.training_state import Training
from textvae.runs.model_folder import is_built_in
from textvae.runs.run_folder import CONFIG, is_run

METHODS = "recipes/methods"
RUN = "RUN"  # stands for the run folder in the words of a command
# Methods in words, for a model that no recipe has made.
IN_WORDS = {
    "autoencode": "autoencoding first",
    "batch_norm": "batch-normalized means",
    "density_gap": "a penalty on the aggregate posterior of every dimension",
    "free_bits": "free bits",
    "iwae": "the importance-weighted bound",
    "mdr": "a minimum KL",
    "mixture_prior": "a learned mixture as the prior",
    "mmd": "a maximum mean discrepancy besides the KL",
    "pooled": "the mean of the encoder's states",
    "skip_sa_vae": "semi-amortized refinement",
    "skip_vae": "skip connections from z",
    "word_dropout": "word dropout",
}
# A model of which nothing is known is assumed to have no remedy yet.
UNKNOWN = Config(model=ModelConfig(injection="input"), optim=OptimConfig(name="adam", lr=0.001))


@dataclass(frozen=True)
class Remedy:
    """Something to try.

    Attributes:
        files: Method files to add to the configuration, such as ``recipes/methods/skip_vae.yaml``.
        options: Options to add on the command line.
        reason: Why it fits this model.
        command: The whole command; None for a model without a run folder.
        in_words: Whether no recipe has made the model, so that files and options say nothing.
    """

    files: tuple[str, ...]
    options: tuple[str, ...]
    reason: str
    command: str | None
    in_words: bool = False

    @property
    def title(self) -> str:
        """The files and options in one line; empty if it is another command."""
        files, options = self.files, " ".join(self.options)
        if self.in_words:
            files = tuple(IN_WORDS[Path(file).stem] for file in files)
            options = options.replace("--model.", "")
        return " + ".join([*files, *([options] if options else [])])


class Case(NamedTuple):
    """What remedies are chosen by.

    Attributes:
        config: The experiment.
        training: How far its training got, if that is known.
        alive: Number of dimensions that are not dead.
        best_steps: Number of refinement steps with the highest ELBO; None without refinement.
        larger_split: A split with more examples, if there is one.
        run: The run folder, if there is one.
        data: Where the data is, if it has moved.
        examined: The file of new examples that was examined, if it was one.
        baseline: The language model that it is compared with, if there is one.
        own: Whether the model has user-defined parts, which no command can train.
    """

    config: Config
    training: Training | None = None
    alive: int = 1
    best_steps: int | None = None
    larger_split: str | None = None
    run: Path | None = None
    data: str | None = None
    examined: str | None = None
    baseline: str | None = None
    own: bool = False


def as_read(config: Config, model: nn.Module) -> Config:
    """Return an experiment without the options that a user-defined class may not read."""
    if is_built_in(type(model)):
        return config
    own = UNKNOWN.model
    if is_built_in(type(getattr(model, "decoder", None))):
        own = replace(own, injection=config.model.injection)
    return replace(config, model=own)


def retrain(case: Case, names: Sequence[str], reason: str, *options: str) -> Remedy:
    """Train the same model from the start, with methods and options added.

    Args:
        case: The model.
        names: Methods: names of files in ``recipes/methods`` without their extension.
        reason: Why.
        options: Options and their values, in turn.
    """
    files = tuple(f"{METHODS}/{name}.yaml" for name in names)
    if case.run is None or case.own:
        in_words = case.own or case.config is UNKNOWN
        return Remedy(files, options, reason, None, in_words=in_words)
    words = ["textvae", "train", "--config", str(case.run / CONFIG)]
    for file in files:
        words += ["--config", _path(file)]
    changes = zip(options[::2], options[1::2], strict=True)
    label = names or [f"{option.rpartition('.')[2]}_{value}" for option, value in changes]
    # `.` and `..` have no name of their own to add to.
    run = case.run if case.run.name not in ("", "..") else case.run.resolve()
    out = Path(f"{run}-{'-'.join(label)}")
    if is_run(out):
        return Remedy(
            files, options, f"{reason} (already tried in {out})", _comparison(case.run, out)
        )
    words += ["--out", str(out)]
    words += ["--data.dir", case.data] if case.data else []
    return Remedy(files, options, reason, shlex.join([*words, *options]))


def _comparison(run: Path, tried: Path) -> str:
    return shlex.join(["textvae", "compare", str(run), str(tried)])


def _path(file: str) -> str:
    """Return where a method file is: below the current folder, or with textvae itself."""
    own = methods_folder() / Path(file).name
    return str(own) if own.exists() and not Path(file).exists() else file


def another_command(case: Case, reason: str, *words: str) -> Remedy:
    """Do something else with the run.

    Args:
        case: The model.
        reason: Why.
        words: The command and its options, with ``RUN`` for the run folder.
    """
    if case.run is None:
        return Remedy((), (), reason, None)
    named = (str(case.run) if word == RUN else word for word in words)
    return Remedy((), (), reason, shlex.join(["textvae", *named]))
