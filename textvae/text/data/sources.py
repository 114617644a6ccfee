"""Where the splits of a corpus come from: a folder, a single file, or a dataset on the hub."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.runs.files import expanded
from textvae.text.data.columns import Columns, Row
from textvae.text.data.readers import (
    EXTENSIONS,
    FORMATS,
    PLAIN,
    decoded_lines,
    format_of,
    read_rows,
)

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
_ALIASES = {"val": "valid", "validation": "valid", "dev": "valid"}
_SPLIT_FILE = re.compile(
    r"(?:.*[._-])?(train|valid|val|validation|dev|test)(?P<shard>-\d+-of-\d+)?"
    rf"\.(?:{'|'.join(EXTENSIONS)})(?:\.gz)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Source:
    """A split that has not been read yet.

    Attributes:
        where: Its name in messages.
        identity: Serializable as JSON; sources with equal identities have equal rows. None if
            the source can be read only once.
        rows: Opens a stream of ``(line, text, label)``.
        label_names: Names of the labels, if labels are indices into them (hub).
    """

    where: str
    identity: dict[str, Any] | None
    rows: Callable[[], Iterator[Row]]
    label_names: tuple[str, ...] | None = None


def find_sources(
    place: str, named: dict[str, str | None], columns: Columns, form: str
) -> dict[str, Source]:
    """Find the splits of a corpus.

    Args:
        place: A folder, a single file, or the name of a dataset on the hub.
        named: For each split the file in the folder, or the split on the hub; None to search.
        columns: The columns to read.
        form: One of ``FORMATS``, or ``auto``.

    Returns:
        A source for each split; a single file is ``train``.

    Raises:
        UserError: If nothing is found, a split has two files, or the hub cannot be reached.
    """
    if form != "auto" and form not in FORMATS:
        raise UserError(f"format {form!r}: must be auto or one of {', '.join(FORMATS)}")
    path = expanded(place)
    if path.is_file():
        return {"train": file_source([path], columns, form)}
    if path.is_dir():
        found = _split_files(path, named)
        return {split: file_source(files, columns, form) for split, files in found.items()}
    if _looks_like_path(place):
        raise UserError(
            f"{place}: no such file or folder (datasets on the hub are named owner/name)"
        )
    return _hub_sources(place, named, columns)


def file_source(paths: list[Path], columns: Columns, form: str) -> Source:
    """Make the source of a split that is one file, or several shards."""
    forms = [format_of(path) if form == "auto" else form for path in paths]
    if (columns.text or columns.label) and (plain := [name for name in forms if name in PLAIN]):
        raise UserError(
            f"{paths[0]}: read as {plain[0]}, which has no columns: --data.text_column and "
            "--data.label_column apply only to jsonl, csv, tsv and parquet"
        )
    if form == "auto" and "label-tab-text" in forms:
        log.info(
            "%s: lines read as `label<TAB>text` (set --data.format lines to disable)", paths[0]
        )

    def rows() -> Iterator[Row]:
        for path, its_form in zip(paths, forms, strict=True):
            yield from read_rows(path, its_form, columns)

    files = [_stamp(path) for path in paths]
    identity = {"files": files, "formats": forms, "text": columns.text, "label": columns.label}
    return Source(str(paths[0]), identity, rows)


def standard_input() -> Source:
    """Make the source of the lines on standard input."""
    where = "standard input"

    def rows() -> Iterator[Row]:
        for number, line in decoded_lines(sys.stdin.buffer, where):
            yield number, line.strip(), None

    return Source(where, None, rows)


def _stamp(path: Path) -> list[Any]:
    # Size and time identify the content, so that a second run does not have to read gigabytes.
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _split_files(folder: Path, named: dict[str, str | None]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for split, name in named.items():
        if name is not None:
            if not (folder / name).is_file():
                raise UserError(f"{folder / name}: no such file ({split}={name})")
            found[split] = [folder / name]
    sharded: dict[Path, bool] = {}
    for path in sorted(folder.iterdir()):
        match = _SPLIT_FILE.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        split = _ALIASES.get(match[1].lower(), match[1].lower())
        if named.get(split) is None:
            found.setdefault(split, []).append(path)
            sharded[path] = match["shard"] is not None
    for split, files in found.items():
        if len(files) > 1 and not all(sharded[path] for path in files):
            names = " and ".join(path.name for path in files)
            raise UserError(
                f"{folder}: {names} could both be {split}; choose one with --data.{split} NAME"
            )
    if "train" not in found:
        raise UserError(
            f"{folder}: no training file; name it train.txt (or .jsonl, .csv, .tsv, .parquet)"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _looks_like_path(place: str) -> bool:
    extension = place.lower().removesuffix(".gz").rpartition(".")[2]
    return (
        place.startswith((".", "~", os.sep))
        or place.count("/") != 1
        or place.endswith("/")
        or extension in EXTENSIONS
        or Path(place).parent.is_dir()  # such a folder exists: do not ask the hub
    )


def _hub_sources(name: str, named: dict[str, str | None], columns: Columns) -> dict[str, Source]:
    log.info("%s: no such file or folder, looking on the Hugging Face hub", name)
    repo, _, config = name.partition(":")
    loaded = _load_hub(repo, config or None)
    chosen: dict[str, str] = {}
    for split in loaded:
        standard = _ALIASES.get(split, split)
        if standard in SPLITS:
            chosen.setdefault(standard, split)
    for split, wanted in named.items():
        if wanted is not None:
            chosen[split] = wanted
            if wanted not in loaded:
                raise UserError(f"{name}: no split {wanted!r}; it has {', '.join(loaded)}")
    if "train" not in chosen:
        raise UserError(
            f"{name}: no split 'train'; it has {', '.join(loaded)}; set --data.train NAME"
        )
    return {
        split: _hub_source(f"{name} ({chosen[split]})", loaded[chosen[split]], columns)
        for split in SPLITS
        if split in chosen
    }


@functools.cache
def import_datasets() -> Any:
    """Import Hugging Face ``datasets``, silenced; on first use, because that takes a second."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    datasets.disable_progress_bars()
    # It logs every retry when there is no network; the final error is enough.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return datasets


def _load_hub(repo: str, config: str | None) -> Any:
    try:
        return import_datasets().load_dataset(repo, config)
    except Exception as error:  # load_dataset raises a dozen types from four libraries
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{repo}: no such file or folder, and the Hugging Face hub did not provide it: {why}. "
            "Offline? Download it on a machine with a network connection and pass its folder"
        ) from error


def _hub_source(where: str, dataset: Any, columns: Columns) -> Source:
    columns = columns.resolve(dataset.column_names, where)
    wanted = [*columns.text, *([columns.label] if columns.label else [])]
    names = getattr(dataset.features[columns.label], "names", None) if columns.label else None

    def rows() -> Iterator[Row]:
        for i, record in enumerate(dataset.select_columns(wanted), start=1):
            yield columns.pick(record, where, i)

    # The fingerprint of the dataset reflects its content and every transformation.
    identity = {"hub": dataset._fingerprint, "text": columns.text, "label": columns.label}
    return Source(where, identity, rows, tuple(names) if names else None)
