"""Datasets of Hugging Face ``datasets``: on the Hub, or in a folder that ``save_to_disk`` wrote."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from textvae.errors import UserError, first_line
from textvae.runs.hugging_face import import_datasets, quiet_datasets
from textvae.text.data.arrow_records import dataset_columns, dataset_rows
from textvae.text.data.columns import Columns, Row
from textvae.text.data.source import ALIASES, SPLITS, Source

logger = logging.getLogger(__name__)


def hub_sources(name: str, named: Mapping[str, str | None], columns: Columns) -> dict[str, Source]:
    """Find the splits of a dataset on the Hub.

    Args:
        name: ``owner/name`` or ``owner/name:config``.
        named: For each split of the corpus its name there, or None for the usual one.
        columns: The columns to read.

    Raises:
        UserError: The hub cannot be reached, a split or a column is missing, or two splits could be
            the same one.
    """
    logger.info("%s: no such file or folder, looking on the Hugging Face Hub", name)
    repo, _, config = name.partition(":")
    return _sources(name, _load_hub(repo, config or None), named, columns)


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def is_saved_split(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder as a dataset without splits."""
    return is_saved(folder) and not (folder / "dataset_dict.json").is_file()


def saved_sources(
    folder: Path, named: Mapping[str, str | None], columns: Columns
) -> dict[str, Source]:
    """Find the splits of a folder that ``save_to_disk`` wrote; a single dataset is ``train``.

    Args:
        folder: The folder.
        named: For each split of the corpus its name there, or None for the usual one.
        columns: The columns to read.

    Raises:
        UserError: The folder is damaged, a split or a column is missing, or two splits could be the
            same one.
    """
    datasets = import_datasets()
    try:
        with quiet_datasets():
            loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # a dozen types, as below
        raise UserError(f"{folder}: a damaged save_to_disk folder ({first_line(error)})") from None
    splits = {"train": loaded} if isinstance(loaded, datasets.Dataset) else loaded
    return _sources(str(folder), splits, named, columns)


def _load_hub(repo: str, config: str | None) -> Any:
    try:
        with quiet_datasets() as datasets:
            return datasets.load_dataset(repo, config)
    except Exception as error:  # load_dataset raises a dozen types from four libraries
        raise UserError(
            f"{repo}: no such file or folder, and the Hugging Face Hub did not provide it: "
            f"{first_line(error)}. Offline? Download it on a machine with a network connection "
            "and pass its folder"
        ) from error


def _sources(
    name: str, loaded: Mapping[str, Any], named: Mapping[str, str | None], columns: Columns
) -> dict[str, Source]:
    chosen: dict[str, str] = {}
    for split in loaded:
        standard = ALIASES.get(split, split)
        if standard not in SPLITS or named.get(standard) is not None:
            continue
        if standard in chosen:
            raise UserError(
                f"{name}: {chosen[standard]} and {split} could both be {standard}; choose one with "
                f"--data.{standard} NAME"
            )
        chosen[standard] = split
    for split, wanted in named.items():
        if wanted is not None:
            chosen[split] = wanted
            if wanted not in loaded:
                raise UserError(f"{name}: no split {wanted!r}; it has {', '.join(loaded)}")
    if "train" not in chosen:
        raise UserError(
            f"{name}: no split 'train'; it has {', '.join(loaded)}; set --data.train NAME"
        )
    if unused := [split for split in loaded if split not in chosen.values()]:
        logger.info("%s: splits that are not used: %s", name, ", ".join(unused))
    return {
        split: _source(f"{name} ({chosen[split]})", loaded[chosen[split]], columns)
        for split in SPLITS
        if split in chosen
    }


def _source(where: str, dataset: Any, columns: Columns) -> Source:
    columns = dataset_columns(dataset, columns, where)
    feature = dataset.features.get(columns.label) if columns.label else None
    names = None if columns.numeric else getattr(feature, "names", None)

    def rows() -> Iterator[Row]:
        return dataset_rows(dataset, columns, where)

    # The fingerprint of the dataset reflects its content and every transformation; the files are
    # those of a saved one, which may have been replaced.
    files = [_stamp(Path(file["filename"])) for file in dataset.cache_files]
    identity = {
        "hub": dataset._fingerprint,
        "files": files,
        "text": columns.text,
        "label": columns.label,
        **({"numeric": True} if columns.numeric else {}),
    }
    return Source(
        where,
        identity,
        rows,
        f"a dataset, {columns.describe()}",
        labeled=columns.label is not None,
        label_names=tuple(names) if names else None,
    )


def _stamp(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]
