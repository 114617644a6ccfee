"""One run of a sweep, in a process of its own: train or resume it, evaluate it, probe it.

Every step is skipped if it is done already, so a job that was killed is simply started again.
"""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from textvae.builders.model import load_model
from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.evaluation.evaluate_run import GENERATIONS, evaluate_run
from textvae.evaluation.latent.probe import probe
from textvae.evaluation.metrics.own import CODE
from textvae.evaluation.own_metrics import OPTION, code_of_metrics, load_own_metrics
from textvae.runs.files import read_if_there, read_record
from textvae.runs.model_folder import metrics_path, weights_hash
from textvae.runs.origin import recorded_as
from textvae.runs.run_folder import CONFIG, SUMMARY, is_run
from textvae.runs.run_start import wait_for
from textvae.training.own_parts import (
    check_same_parts,
    class_of,
    load_own_parts,
    names_of,
    options_of,
)
from textvae.training.sweeps.manifest import Manifest, check_run, read_manifest
from textvae.training.train import train
from textvae.vae.model import Model

PARENT = "TEXTVAE_SWEEP"  # environment variable with the process id of the sweep
LOOK_EVERY = 0.5  # seconds


def run_job(
    folder: Path | str,
    name: str,
    *,
    own_parts: Mapping[str, str] | None = None,
    own_metrics: Sequence[str] = (),
) -> None:
    """Do what is left to do of one run.

    Args:
        folder: The folder of the sweep.
        name: The name of the run.
        own_parts: Its parts that are the user's own, as for ``load_own_parts``. No manifest has
            them: what it names is never executed.
        own_metrics: Metrics of the user's own, by name; neither are these.

    Raises:
        UserError: There is no such run in the manifest, or it cannot be trained or evaluated.
        Interrupted: Ctrl-C or SIGTERM; the state was saved.
    """
    manifest = read_manifest(folder)
    if name not in manifest.runs:
        raise UserError(f"{folder} has no run {name}: choose one of {', '.join(manifest.runs)}")
    if parent := os.environ.get(PARENT):
        _stop_without(int(parent))
    run, config = manifest.run(name), manifest.config(name)
    parts, metrics = load_own_parts(own_parts or {}), load_own_metrics(own_metrics)
    check_same_parts(run, manifest.runs[name].get("own_parts", {}), names_of(**parts))
    if code_of_metrics(metrics) != manifest.own_metrics:
        raise UserError(f"give the metrics of your own that the sweep has: {OPTION} FILE.py:NAME")
    if config.train.threads:  # of the evaluation as well
        torch.set_num_threads(config.train.threads)
    wait_for(run)  # a job of an earlier sweep that was killed may still be saving
    if not is_trained(run):
        resumed = ["textvae", "train", "--resume", str(run), *options_of(own_parts or {})]
        command = shlex.join(resumed) if is_run(run) else manifest.runs[name]["command"]
        with recorded_as(command):
            _train(run, config, parts)
    model = own_model(run, parts)
    if manifest.evaluate and not is_evaluated(manifest, name):
        options = {
            name: getattr(manifest, name) for name in ("samples", "generations", "precision")
        }
        print(evaluate_run(run, data=config.data.dir, model=model, own_metrics=metrics, **options))
    if _is_left_to_probe(manifest, name):
        print(probe(run, data=config.data.dir, model=model))


def is_done(manifest: Manifest, name: str) -> bool:
    """Return whether there is nothing left to do for a run."""
    if not is_trained(manifest.run(name)):
        return False
    evaluated = not manifest.evaluate or is_evaluated(manifest, name)
    return evaluated and not _is_left_to_probe(manifest, name)


def effort(config: Config) -> float:
    """Return roughly how long a run takes, compared with others: decoder passes per example."""
    options, inference = config.train, config.inference
    passes = 1.5 if config.model.latent_dim else 1.0  # with and without an encoder
    if inference.method != "amortized":
        passes += inference.steps
    return passes * config.objective.samples * (options.autoencode_epochs + options.epochs)


def own_model(run: Path, parts: Mapping[str, Any]) -> Model | None:
    """Return the model of a run if it is of a class of the user's own.

    Args:
        run: The run.
        parts: The user's own parts, as arguments of ``train``.
    """
    if "model_class" not in parts:
        return None
    return load_model(str(run), device=None, model_class=class_of(parts["model_class"]))


def is_trained(run: Path) -> bool:
    """Return whether the training of a run is finished."""
    path = run / SUMMARY
    return path.exists() and read_record(path).get("finished") is not None


def is_evaluated(manifest: Manifest, name: str) -> bool:
    """Return whether a run has a card of its last weights, computed as wanted."""
    run = manifest.run(name)
    if (record := _current_record(run, "test")) is None:
        return False
    exact = not manifest.config(name).model.latent_dim  # one sample then is as good as many
    samples = 1 if exact else manifest.samples
    found = (record.get("samples"), record.get("generations", GENERATIONS), record.get("precision"))
    if found != (samples, manifest.generations, manifest.precision):
        return False
    return manifest.own_metrics.items() <= record.get(CODE, {}).items()


def _is_left_to_probe(manifest: Manifest, name: str) -> bool:
    if not manifest.probe or not manifest.config(name).model.latent_dim:
        return False
    return _current_record(manifest.run(name), "test-probe") is None


def _current_record(run: Path, name: str) -> dict[str, Any] | None:
    """Return what was saved as ``RUN/metrics/NAME.json``, if it is of the last weights."""
    record = read_if_there(metrics_path(run, name))
    return record if record.get("weights", "") == weights_hash(run) else None


def _train(run: Path, config: Config, parts: dict[str, Any]) -> None:
    """Start or resume training."""
    resume = is_run(run)
    if resume:
        check_run(run, config)
        precision = Config.load(run / CONFIG).train.precision  # not the one of this machine
        config = replace(config, train=replace(config.train, precision=precision))
    train(config, run, resume=resume, **parts)


def _stop_without(parent: int) -> None:
    """Save and stop if the process of the sweep ends, even if it was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
