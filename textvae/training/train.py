"""Start or resume a training run: build the data, the model, and everything the loop needs."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textvae.builders.data import Splits, build_data, check_data
from textvae.builders.model import (
    CHECKED,
    build_model,
    build_objective,
    check_model,
    check_own_parts,
    load_parts,
)
from textvae.builders.run_data import with_found_data
from textvae.config.combinations import (
    changed_options,
    check_resumed,
    options_without_effect,
)
from textvae.config.experiment import OPTIONS, Config, ObjectiveConfig, option_names, read_options
from textvae.config.types import as_word
from textvae.errors import UserError, only_errors, quantity
from textvae.runs import model_folder, run_folder, run_start
from textvae.runs.files import expanded, remove_leftovers
from textvae.runs.lock import locked
from textvae.training import devices
from textvae.training.devices import keep_freed_memory
from textvae.training.interrupt import stop_signals
from textvae.training.loop import Trainer
from textvae.training.own_checks import (
    check_model_class,
    check_objective_on,
)
from textvae.training.own_parts import ARGUMENTS, CHECKS, code_of, own_parts
from textvae.training.procedures import Procedure, build_procedure
from textvae.vae.conditioning import add_conditions
from textvae.vae.contracts import KLSchedule, Objective
from textvae.vae.model import Model
from textvae.vae.modes import fresh_settings

logger = logging.getLogger(__name__)
OF_LOSS = ("bound", "free_bits", "mmd", "density_gap", "bag_of_words", "min_kl")
OF_KL_WEIGHT = ("kl_schedule", "kl_epochs", "kl_start", "kl_ramp")


@fresh_settings()
def train(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    model_class: type[Model] | None = None,
    objective: Objective | None = None,
    procedure: Procedure | None = None,
    kl_schedule: KLSchedule | None = None,
) -> Model:
    """Train a model until the stopping rule applies, or the last epoch or ``max_steps`` is done.

    Args:
        config: The experiment.
        out: The run folder to create, or to resume if ``resume`` is set.
        resume: Whether to resume a run; on a CPU the result is bit-for-bit the same.
        model_class: A subclass of ``TextVAE`` or ``ImageVAE`` with parts of your own.
        objective: A loss to use instead of the one in the config.
        procedure: A training procedure to use instead of the one in the config.
        kl_schedule: A function of the step and the number of steps, without those of autoencoding,
            that returns the share of ``objective.beta``; it replaces ``objective.kl_schedule``.

    Returns:
        The best model so far, in evaluation mode.

    Raises:
        UserError: There is a problem with the input, another process is training in this folder,
            or the loss is not finite.
        Interrupted: Ctrl-C or SIGTERM; the state was saved.
    """
    if not isinstance(config, Config):
        raise TypeError(f"config must be a Config, as Config.load returns, not {config!r:.60}")
    if model_class is not None:
        check_model_class(model_class)
    if not str(out):
        raise UserError("the name of the run folder is empty: choose one with --out")
    run = expanded(out)
    config.check()
    check_model(config)
    if resume:
        config = _with_data(run, config)
        before = Config.load(run_folder.config_path(run))
        check_resumed(before, config, run)
        _report_changes(before, config)
    else:
        run_start.check_new(run)
        if others := run_start.other_files(run):
            logger.warning("%s is not empty: the run is saved next to %s", run, ", ".join(others))
        for line in options_without_effect(config):
            logger.warning(line)
        if objective is not None:
            _warn_of_replaced(config, OF_LOSS, "the loss")
        if kl_schedule is not None and config.model.latent_dim:
            _warn_of_replaced(config, OF_KL_WEIGHT, "the KL weight")
    if kl_schedule is not None and not config.model.latent_dim:
        logger.warning("a language model has no KL: the KL schedule has no effect")
        kl_schedule = None
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    keep_freed_memory()
    config = devices.with_precision(config)
    accelerator = devices.accelerator(config.train.precision)
    main = accelerator.is_main_process
    use = locked if resume else run_start.started
    try:
        with use(run) if main else only_errors():  # the main process writes and logs
            if main and not resume:
                run_start.check_new(run)  # another training may have ended just now
                run_start.remove_start(run)  # one that was killed
                remove_leftovers(run)
            own = {"objective": objective, "procedure": procedure, "kl_schedule": kl_schedule}
            trainer = _trainer(config, run, accelerator, resume, model_class, own)
            if main:
                _record_start(config, run, trainer, resume)
            with stop_signals() as stop:
                trainer.fit(stop)
    finally:
        accelerator.end_training()  # a process group left open may abort the interpreter's exit
    return type(trainer.model).from_pretrained(run)


def _record_start(config: Config, run: Path, trainer: Trainer, resume: bool) -> None:
    """Write what is trained, after all checks: a failed start leaves the run unchanged."""
    if trainer.why_done() is None:
        hashes = {name: split.content_hash for name, split in trainer.splits.items()}
        _warn_of_equal_splits(hashes)
        run_folder.describe(run, config.train.precision, trainer.accelerator.device, hashes)
        if resume and (run / run_folder.STATE).exists():
            trainer.save_summary()  # it may have been finished before
        config.save(run / run_folder.CONFIG)
    elif resume:
        _check_has_model(run, trainer)
        _warn_of_changes(config, run, trainer)


def _with_data(run: Path, config: Config) -> Config:
    """Return the config of a resumed run with the place where its data is.

    Raises:
        UserError: It is not there.
    """
    config = with_found_data(run, config)
    try:
        check_data(config.data)
    except UserError as error:
        raise UserError(f"{error}; if the data has moved, pass --data.dir") from error
    return config


def _warn_of_replaced(config: Config, names: Sequence[str], what: str) -> None:
    """Warn of options of the section ``objective`` if what they decide is user-defined."""
    default = ObjectiveConfig()
    changed = [
        f"--objective.{name}"
        for name in names
        if getattr(config.objective, name) != getattr(default, name)
    ]
    if changed:
        logger.warning("%s: no effect on %s, which is your own", ", ".join(changed), what)


def _warn_of_equal_splits(hashes: Mapping[str, str]) -> None:
    for name, content in hashes.items():
        if name != "train" and content == hashes["train"]:
            logger.warning("the %s split is the training split: it cannot show overfitting", name)


def _check_has_model(run: Path, trainer: Trainer) -> None:
    """Check that a run with nothing left to do has a model.

    Raises:
        UserError: It was stopped before its first evaluation, and is not to go on from there; or
            its model is gone.
    """
    weights = run / model_folder.WEIGHTS
    if not weights.exists():
        if math.isfinite(trainer.lr.best):
            raise UserError(
                f"{weights} is missing, and the checkpoint has only the last weights: restore "
                f"it, or start again with {run_folder.again(run)}"
            )
        raise UserError(
            f"{run} was stopped at step {trainer.step}, before its first evaluation, and has no "
            f"model yet: resume it for more than {trainer.total_steps} steps"
        )


def _started_from(config: Config, folder: Path | None) -> Config:
    """Return the config with the folder of the model that a run starts from.

    The tokenizer then comes from the same download as the weights, even if the Hub has changed.
    """
    if folder is None:
        return config
    return replace(config, train=replace(config.train, init=str(folder)))


def _report_changes(before: Config, now: Config) -> None:
    """Log the options of a resumed run that have changed, with their values."""
    old, new = asdict(before), asdict(now)
    for option in changed_options(before, now):
        section, name = option.removeprefix("--").split(".")
        logger.info("%s: %s, before %s", option, *(as_word(o[section][name]) for o in (new, old)))


def _warn_of_changes(config: Config, run: Path, trainer: Trainer) -> None:
    """Warn if a finished run was resumed with other options."""
    limited = config.train.max_steps == trainer.total_steps
    limit = "--train.max_steps" if limited else "--train.epochs"
    if changed := changed_options(Config.load(run_folder.config_path(run)), config):
        raised = limit in changed or trainer.step < trainer.total_steps
        logger.warning(
            "%s no effect on a finished run (%s)%s",
            f"{changed[0]} has" if len(changed) == 1 else f"{' and '.join(changed)} have",
            trainer.why_done(),
            "" if raised else f": to continue it, raise {limit} as well",
        )


def _trainer(
    config: Config,
    run: Path,
    accelerator: Any,
    resume: bool,
    model_class: type[Model] | None,
    given: Mapping[str, Any],
) -> Trainer:
    """Build the data, the model, and the loop, in the state in which the run was saved.

    ``given`` has the other parts of the user's own, as arguments of ``train``; None: not given.
    """
    state = run_folder.load_state(run) if resume else None
    start = config.train.init if state is None else None
    start_folder = model_folder.fetch(start) if start else None  # before the data takes its time
    with accelerator.main_process_first():
        fresh = accelerator.is_main_process and not resume
        splits = build_data(_started_from(config, start_folder), run, fresh=fresh)
    if state is not None:
        _check_complete(state, run)
        _check_corpus(state, splits, config.data.dir, run)
    model = build_model(config, run, splits, model_class)
    add_conditions(splits, model.condition)
    if state is not None:
        model.check_class(run)
    if start_folder is not None:
        load_parts(model, start_folder, config.train.init_parts)
    if state is None and config.train.init_embeddings:
        model.load_embeddings(expanded(config.train.init_embeddings))
    check_own_parts(model, splits["train"], config.inference)
    own = own_parts(model, **given)
    code = code_of(model_class=type(model), **given)
    for part, argument in ARGUMENTS.items():
        if given.get(argument) is not None:
            CHECKS[part](given[argument])
    chosen = given["objective"] or build_objective(config)
    if own:  # an objective may need what a part of the user's own does not have
        first = splits["train"].batch(np.arange(min(CHECKED, len(splits["train"]))))
        name = own.get("objective", "the objective")
        check_objective_on(
            model,
            first,
            chosen,
            name,
            config.objective,
            config.inference,
            autoencodes=config.train.autoencode_epochs > 0,
        )
    procedure = given["procedure"] or build_procedure(config)
    code = {part: code[part] for part in own.keys() & code.keys()}
    schedule = given["kl_schedule"]
    trainer = Trainer(
        config, run, splits, model, accelerator, chosen, procedure, schedule, own, code
    )
    trainer.phases.try_kl_schedule()
    if state is not None:
        trainer.load_state_dict(state)
    return trainer


def _check_complete(state: Mapping[str, Any], run: Path) -> None:
    """Check that no option is missing in the config of a run, which would now mean its default.

    Raises:
        UserError: One that the run had at its last checkpoint is missing.
    """
    path = run_folder.config_path(run)
    given, known = set(option_names(read_options([path]))), set(option_names(OPTIONS))
    if lost := [name for name in state.get("options", ()) if name in known - given]:
        more = f" and {quantity(len(lost) - 1, 'other option')}" if lost[1:] else ""
        raise UserError(f"{path} is damaged: it had {lost[0]}{more} as well; restore the file")


def _check_corpus(state: Mapping[str, Any], splits: Splits, place: str, run: Path) -> None:
    """Check that a resumed run goes on with its own corpus.

    Raises:
        UserError: The training or the validation split is a different one.
    """
    for split, key in (("train", "corpus_hash"), ("valid", "valid_hash")):
        if state.get(key) not in (None, splits[split].content_hash):
            raise UserError(
                f"{place}: the {split} split is not the one that {run} was trained with: resume "
                "with the same --data.dir, or start a new run"
            )
