"""The config and the data of a run, wherever they are now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from textvae.builders.data import Splits, build_data
from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.runs import run_folder
from textvae.runs.files import expanded

logger = logging.getLogger(__name__)


def run_config(
    folder: Path, data: Path | str | None = None, reading: Mapping[str, Any] | None = None
) -> Config:
    """Read the experiment of a run.

    Args:
        folder: The run folder.
        data: Where its data is, if it has moved since training.
        reading: Options of the section ``data`` that differ for these files.

    Raises:
        UserError: It is not a run folder, its config is broken, or an option is out of range or
            does not apply to this kind of data.
    """
    config = Config.load(run_folder.config_path(folder))
    moved: dict[str, Any] = {} if data is None else {"dir": str(data)}
    given = dict(reading or {})
    if given.get("labels") is False:
        given.setdefault("label_column", None)
    config = replace(config, data=replace(config.data, **moved, **given))
    config.check("--")
    return config if moved else with_found_data(folder, config)


def with_found_data(folder: Path, config: Config) -> Config:
    """Return a run's config with paths of its data that are valid in the current directory.

    A relative path refers to the directory that the training was started in, unless there is such a
    file or folder in the current directory.

    Args:
        folder: The run folder.
        config: The experiment of the run.
    """
    start = run_folder.started_in(folder)
    if start is None or not config.data.dir:
        return config
    found: dict[str, Any] = {"dir": _from(start, config.data.dir)}
    corpus = expanded(found["dir"])
    if corpus.exists():  # on the Hub, the others are the names of splits
        for name in ("train", "valid", "test"):
            place = getattr(config.data, name)
            if place and not (corpus / expanded(place)).exists():
                found[name] = _from(start, place)
    return replace(config, data=replace(config.data, **found))


def _from(start: Path, place: str) -> str:
    """Return a path that is valid here, if it is one and was valid in another directory."""
    there = start / expanded(place)
    return str(there) if not expanded(place).exists() and there.exists() else place


def run_splits(folder: Path, config: Config) -> Splits:
    """Read the data that a run was trained on, perhaps with other labels.

    Raises:
        UserError: It is missing, or it is not the data of the run.
    """
    recorded = Config.load(run_folder.config_path(folder)).data.dir
    try:
        splits = build_data(config, folder)
    except UserError as error:
        if expanded(config.data.dir).exists() or config.data.dir != recorded:
            raise
        raise UserError(f"{error}; if the data of {folder} has moved, pass --data") from error
    trained_on = run_folder.split_hash(folder)  # of texts and labels
    if trained_on not in (None, splits["train"].content_hash, _hash_as_trained(folder, config)):
        if config.data.dir == recorded:
            raise UserError(
                f"{recorded} is not the data that {folder} was trained on: it has changed since, "
                "or its labels are read differently: restore it, or evaluate a copy of it under "
                "another name with --data"
            )
        raise UserError(
            f"{config.data.dir} is not the data that {folder} was trained on, which was in "
            f"{recorded}: set --data to where it is now"
        )
    if trained_on == splits["train"].content_hash:
        _warn_of_changed_splits(splits, folder, config.data.dir)
    return splits


def _warn_of_changed_splits(splits: Splits, folder: Path, place: str) -> None:
    """Warn of splits that have changed since the training: their metrics do not compare."""
    for name, split in splits.items():
        if run_folder.split_hash(folder, name) not in (None, split.content_hash):
            logger.warning("%s: the %s split has changed since %s was trained", place, name, folder)


def _hash_as_trained(folder: Path, config: Config) -> str | None:
    """Return the hash of the training split with the labels that the run was trained with."""
    recorded = Config.load(run_folder.config_path(folder)).data
    data = replace(config.data, label_column=recorded.label_column, labels=recorded.labels)
    as_trained = replace(config, data=data)
    if as_trained == config:
        return None
    try:
        return build_data(as_trained, folder)["train"].content_hash
    except UserError:  # there is no such column: a corpus that has moved into tables
        return None
