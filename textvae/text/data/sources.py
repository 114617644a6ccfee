"""Where the splits of a corpus come from: a folder, one file, or a hub data set."""

import functools
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.text.data.columns import Columns, Row
from textvae.text.data.readers import EXTENSIONS, FORMATS, PLAIN, format_of, read_rows

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
    """One split before it is read.

    Attributes:
        where: for messages.
        identity: JSON-able; equal identities promise equal rows.
        rows: opens the stream of `(line, text, label)`.
        label_names: if labels are indices into names already known (hub), those names.
    """

    where: str
    identity: dict[str, Any]
    rows: Callable[[], Iterator[Row]]
    label_names: tuple[str, ...] | None = None


def find_sources(
    place: str, named: dict[str, str | None], columns: Columns, form: str
) -> dict[str, Source]:
    """The splits at `place`; a single file comes as `train`.

    Args:
        named: split -> file name inside the folder, or split of the hub data set; None: look.

    Raises:
        UserError: nothing there, two files for a split, or the hub cannot be reached.
    """
    if form != "auto" and form not in FORMATS:
        raise UserError(f"format {form!r}: choose auto or one of {', '.join(FORMATS)}")
    path = Path(place).expanduser()
    if path.is_file():
        return {"train": file_source([path], columns, form)}
    if path.is_dir():
        found = _split_files(path, named)
        return {split: file_source(files, columns, form) for split, files in found.items()}
    if _looks_like_path(place):
        raise UserError(f"{place}: no such file or folder (a hub data set is owner/name)")
    return _hub_sources(place, named, columns)


def file_source(paths: list[Path], columns: Columns, form: str) -> Source:
    """One split out of one file, or out of the shards of one."""
    forms = [format_of(path) if form == "auto" else form for path in paths]
    if (columns.text or columns.label) and (plain := [name for name in forms if name in PLAIN]):
        raise UserError(
            f"{paths[0]}: read as {plain[0]}, which has no columns: --data.text_column and "
            "--data.label_column are for jsonl, csv, tsv and parquet"
        )
    if form == "auto" and "label-tab-text" in forms:
        log.info("%s: every line is `label<TAB>text`, read so (--data.format lines: not)", paths[0])

    def rows() -> Iterator[Row]:
        for path, its_form in zip(paths, forms, strict=True):
            yield from read_rows(path, its_form, columns)

    files = [_stamp(path) for path in paths]
    identity = {"files": files, "formats": forms, "text": columns.text, "label": columns.label}
    return Source(str(paths[0]), identity, rows)


def _stamp(path: Path) -> list[Any]:
    # Size and time stand for the content, so that a second start need not read gigabytes.
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
            raise UserError(f"{folder}: {names} could both be {split}; choose with {split}=NAME")
    if "train" not in found:
        raise UserError(
            f"{folder}: no training file; name one train.txt (or .jsonl, .csv, .tsv, .parquet)"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _looks_like_path(place: str) -> bool:
    extension = place.lower().removesuffix(".gz").rpartition(".")[2]
    return (
        place.startswith((".", "~", os.sep))
        or place.count("/") != 1
        or place.endswith("/")
        or extension in EXTENSIONS
        or Path(place).parent.is_dir()  # a folder of that name is here: no need to ask the hub
    )


def _hub_sources(name: str, named: dict[str, str | None], columns: Columns) -> dict[str, Source]:
    log.info("%s: no such file or folder here, looking on the Hugging Face hub", name)
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
        raise UserError(f"{name}: no split 'train'; it has {', '.join(loaded)}; set train=NAME")
    return {
        split: _hub_source(f"{name} ({chosen[split]})", loaded[chosen[split]], columns)
        for split in SPLITS
        if split in chosen
    }


@functools.cache
def import_datasets() -> Any:
    """Hugging Face `datasets`: silent, and imported on first use, as that takes a second."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    datasets.disable_progress_bars()
    # Of its retries without a network it tells one by one; the error at the end says it all.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return datasets


def _load_hub(repo: str, config: str | None) -> Any:
    try:
        return import_datasets().load_dataset(repo, config)
    except Exception as error:  # load_dataset raises a dozen types, of four libraries
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{repo}: no such file or folder here, and not to be had from the Hugging Face hub: "
            f"{why}. Offline? Load it where there is a network, and give its folder"
        ) from error


def _hub_source(where: str, dataset: Any, columns: Columns) -> Source:
    columns = columns.resolve(dataset.column_names, where)
    wanted = [*columns.text, *([columns.label] if columns.label else [])]
    names = getattr(dataset.features[columns.label], "names", None) if columns.label else None

    def rows() -> Iterator[Row]:
        for i, record in enumerate(dataset.select_columns(wanted), start=1):
            yield columns.pick(record, where, i)

    # The data set's own fingerprint follows its content and every transformation of it.
    identity = {"hub": dataset._fingerprint, "text": columns.text, "label": columns.label}
    return Source(where, identity, rows, tuple(names) if names else None)
