"""A run folder: everything about one training, and nothing that needs unpickling to be used.

    config.yaml           the experiment, as given
    config.json, model.safetensors, tokenizer.*, README.md
                          the best model so far: what ``TextVAE.from_pretrained`` reads
    checkpoint/state.pt   the training as it stood at the last checkpoint (tensors and numbers only)
    metrics.jsonl         every scalar logged; ``metrics/<split>.json`` the metrics cards
    versions.json         versions, machine, commit, hash of the corpus
    tensorboard/          the same for TensorBoard

Every file is written beside its place and moved there: a kill at any moment leaves the old or the
new one, never half of one.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from textvae.config.experiment import Config, dump_config
from textvae.errors import UserError
from textvae.runs.files import read_record, remove_leftovers, replace_file, write_json, write_text

CONFIG = "config.yaml"
STATE = Path("checkpoint") / "state.pt"
STATE_KEYS = {
    *("corpus_hash", "step", "epoch_steps", "loader", "lr", "seconds"),
    *("model", "optimizer", "scaler", "tally"),
}


def create(run: Path) -> None:
    """Makes an empty run folder.

    Raises:
        UserError: the folder holds a run or a model already, or cannot be made.
    """
    if (run / CONFIG).exists():
        raise UserError(
            f"{run} already holds a run: continue it with --resume {run}, or give another --out"
        )
    if (run / "model.safetensors").exists():
        raise UserError(f"{run} already holds a model: give another --out")
    make_folder(run)


def make_folder(folder: Path) -> None:
    """Makes a folder to write into: called before the work whose results go there.

    Raises:
        UserError: it cannot be made, or written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write into the folder {folder}")


def describe(run: Path, config: Config, corpus_hash: str) -> None:
    """Writes what was asked for, and with which versions and corpus; of a resumed run, the commands
    so far, a line each."""
    record, path = versions(config, corpus_hash), run / "versions.json"
    if path.exists() and (before := read_record(path).get("command")):
        record["command"] = f"{before}\n{record['command']}"
    write_text(run / CONFIG, dump_config(config))
    write_json(path, record)


def corpus_hash(run: Path) -> str | None:
    """Which corpus the run was trained on; None where that was not recorded.

    Raises:
        UserError: the record is broken.
    """
    path = run / "versions.json"
    return read_record(path).get("corpus_hash") if path.exists() else None


def save_state(run: Path, state: dict[str, Any]) -> None:
    """Saves the whole state of a training: tensors, numbers, strings, lists and dicts."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, torch keeps a full disk to itself
            torch.save(state, file)

    replace_file(run / STATE, write)


def load_state(run: Path) -> dict[str, Any] | None:
    """The last state of a training, or None where it was stopped before the first checkpoint.

    Raises:
        UserError: there is no run, or its state is broken.
    """
    if not (run / CONFIG).exists():
        raise UserError(f"{run} is no run folder: it has no config.yaml")
    path = run / STATE
    remove_leftovers(run, path.parent)
    if not path.exists():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that textvae did not write
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many unrelated types
        raise _broken(run) from error
    if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
        raise _broken(run)
    return state


def _broken(run: Path) -> UserError:
    return UserError(
        f"{run / STATE} is truncated or was not written by textvae: remove it to start the run "
        f"again; the best model so far is in {run}"
    )


def last_good(run: Path) -> str:
    """Where a training that broke can be taken up again, for a message."""
    if not (run / STATE).exists():
        return f"there is no checkpoint in {run} yet"
    return f"the last good checkpoint is in {run}: continue with --resume"


def versions(config: Config, corpus_hash: str) -> dict[str, str | None]:
    """What a stranger needs to know to repeat the run, beside its config."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    packages = ("textvae", "torch", "numpy", "accelerate", "datasets", "sentencepiece", "nltk")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    return {
        "corpus_hash": corpus_hash,
        "commit": commit(),
        "python": platform.python_version(),
        "device": device,
        "threads": str(torch.get_num_threads()),
        "precision": config.train.precision,
        "system": platform.platform(),
        "command": " ".join(Path(word).name if i == 0 else word for i, word in enumerate(sys.argv)),
        **{name: installed(name) for name in packages},
    }


def processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def commit() -> str | None:
    """The commit of the source tree that runs, marked where it has changes; None without git."""
    tree = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"],
            cwd=tree,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
