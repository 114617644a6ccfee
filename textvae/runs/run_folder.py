"""A run folder: everything about one training run, and nothing that executes code when loaded.

    config.yaml           the experiment
    config.json, model.safetensors, inference.json, tokenizer.*, README.md
                          the best model so far: what ``TextVAE.from_pretrained`` reads
    checkpoint/state.pt   the state of the training at the last checkpoint (tensors and numbers)
    .lock                 locked, and removed at the end, by the process that trains
    metrics.jsonl         every scalar logged
    metrics/              the metrics cards, ``<split>.json``, and the bounds of their examples
    training.json         how far the training got and what it cost
    versions.json         versions, machine, commit, command, hash of the data
    events.out.tfevents.*, projector/, projector_config.pbtxt
                          the logs for TensorBoard

Files are replaced atomically: after a crash or on a full disk, each is either the old or the new.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from textvae.errors import UserError, did_you_mean
from textvae.runs.files import (
    check_links,
    quoted,
    read_if_there,
    remove_leftovers,
    replace_file,
    write_json,
)
from textvae.runs.model_folder import VERSIONS, WEIGHTS, is_number
from textvae.runs.origin import versions

CONFIG = "config.yaml"
LOG = "metrics.jsonl"
STATE = Path("checkpoint") / "state.pt"
SUMMARY = "training.json"
SWEEP = "manifest.json"  # of a folder of runs
_DIGITS = 19  # of an integer that is a count


def make_folder(folder: Path) -> None:
    """Create a folder for results and check that it is writable, before starting the work.

    Raises:
        UserError: It cannot be created, is not writable, or has a name that is not UTF-8, which
            TensorBoard and others cannot handle.
    """
    try:
        str(folder).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            f"{folder}: the name of a folder for results must be UTF-8: choose another"
        ) from None
    check_links(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder: choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to the folder {folder}")


def describe(run: Path, precision: str, device: torch.device, hashes: Mapping[str, str]) -> None:
    """Write versions.json: the versions the run was made with, and its commands, one per line.

    Args:
        run: The run folder.
        precision: The precision of the training.
        device: Where it is trained.
        hashes: The hash of each split of the data.
    """
    hashed = {_hash_key(split): value for split, value in hashes.items()}
    record = hashed | versions(precision, device)
    path = run / VERSIONS
    before = read_if_there(path)
    if before.get("command"):
        record["command"] = f"{before['command']}\n{record['command']}"
    if is_run(run):  # a resumed run keeps the hashes of the data that it began with
        record |= {key: before[key] for key in hashed if before.get(key)}
    write_json(path, record)


def split_hash(run: Path, split: str = "train") -> str | None:
    """Return the hash of a split that the run was trained with; None if it was not recorded.

    Args:
        run: The run folder.
        split: Its name.

    Raises:
        UserError: The record is broken.
    """
    return read_if_there(run / VERSIONS).get(_hash_key(split))


def _hash_key(split: str) -> str:
    return "corpus_hash" if split == "train" else f"{split}_hash"


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return what a run logged over its training, oldest first; empty if there is no log.

    Each record has a ``step`` and an ``epoch``. Its ``group`` is ``train`` for means since the
    last one, ``valid`` for validation cards. Damaged lines are left out, and so are numbers that
    are not finite, and lists of another length than most.

    Raises:
        UserError: The log cannot be read.
    """
    path = run / LOG
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line, parse_int=_integer)
        except (ValueError, RecursionError):  # cut short when the process was killed, or damaged
            continue
        if isinstance(record, dict):
            records.append({k: value for k, value in record.items() if _is_finite(value)})
    logged = [r for r in records if all(is_number(r.get(key)) for key in ("step", "epoch"))]
    lengths = Counter((k, len(v)) for r in logged for k, v in r.items() if isinstance(v, list))
    usual = {key: length for (key, length), _ in reversed(lengths.most_common())}
    return [
        {k: v for k, v in r.items() if not isinstance(v, list) or len(v) == usual[k]}
        for r in logged
    ]


def _integer(digits: str) -> float:
    """Return an integer, or infinity for one that no float can hold."""
    return int(digits) if len(digits) < _DIGITS else float(digits)


def _is_finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(is_number(each) and _is_finite(each) for each in value)
    return not isinstance(value, float) or math.isfinite(value)


def save_state(run: Path, state: dict[str, Any]) -> None:
    """Save the whole state of a training: tensors, numbers, strings, lists, and dicts."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, torch does not report a full disk
            torch.save(state, file)

    replace_file(run / STATE, write)


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run, and not of a saved model or of anything else."""
    return (folder / CONFIG).exists()


def config_path(run: Path) -> Path:
    """Return the path of a run's configuration.

    Raises:
        UserError: It is not a run folder.
    """
    path = run / CONFIG
    if not path.exists():
        if not run.exists():
            near = [str(folder) for folder in run.parent.glob("*/") if is_run(folder)]
            raise UserError(f"{run}: there is no such run folder{did_you_mean(str(run), near)}")
        inside = sorted(run.glob(f"*/{CONFIG}"))
        advice = f"; give a folder inside it, such as {inside[0].parent}" if inside else ""
        if (run / WEIGHTS).exists():
            advice = (
                ", only a saved model: evaluate, diagnose, bounds, explain, map, and neighbors can "
                "examine it with --data FILE, and a sampler (--from aggregate) is fitted in the "
                "run folder"
            )
        raise UserError(f"{run} is not a run folder: it has no {CONFIG}{advice}")
    return path


def load_state(run: Path) -> dict[str, Any] | None:
    """Read the last state of a training; None if it stopped before the first checkpoint.

    Raises:
        UserError: There is no run, or its state is broken.
    """
    config_path(run)
    path = run / STATE
    remove_leftovers(run, path.parent)
    if not path.exists():
        if (run / SUMMARY).exists():
            raise UserError(
                f"{run} has been trained, but its checkpoint {path} is missing, so it cannot be "
                f"resumed: restore it, or start again with {again(run)}"
            )
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about pickles that textvae did not write
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many unrelated types
        raise _broken(run) from error
    if not isinstance(state, dict) or not state.keys() >= {"corpus_hash", "step"}:
        raise _broken(run)
    return state


def _broken(run: Path) -> UserError:
    return UserError(
        f"{run / STATE} is truncated or was not written by textvae, so the run cannot be resumed: "
        f"start again with {again(run)}; the best model so far is in {run}"
    )


def again(run: Path) -> str:
    """Return the command that repeats a run in another folder, for the end of a message."""
    return f"textvae train --config {quoted(run / CONFIG)} --out OTHER"


def last_good(run: Path) -> str:
    """Return how a failed run can be resumed, for the end of a message."""
    if not (run / STATE).exists():
        return f"there is no checkpoint in {run} yet"
    return f"the last good checkpoint is in {run}: continue with --resume {quoted(run)}"


def started_in(run: Path) -> Path | None:
    """Return the directory of the last training session, which relative paths refer to.

    Raises:
        UserError: The record is broken.
    """
    directory = read_if_there(run / VERSIONS).get("directory")
    return Path(directory) if isinstance(directory, str) else None
