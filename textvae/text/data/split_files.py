"""Which files of a folder are which split.

A split is a file (``train.txt``, ``ptb.train.txt``), a complete set of shards
(``train-00000-of-00002.parquet``), or a folder with one document per file, in a folder per class
(``train/pos/0.txt``) or not (``train/0.txt``). Hidden files are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from textvae.errors import UserError
from textvae.runs.files import expanded
from textvae.text.data.columns import listed
from textvae.text.data.layout import EXTENSIONS, extension_of
from textvae.text.data.source import ALIASES, SPLITS, guesses
from textvae.text.data.streams import SUFFIXES

_SPLIT = "train|valid|val|validation|dev|test"
_SPLIT_FILE = re.compile(
    rf"(?:.*[._-])?({_SPLIT})(?P<shard>-(\d+)-of-(\d+))?"
    rf"\.(?:{'|'.join(EXTENSIONS)})(?:{'|'.join(map(re.escape, SUFFIXES))})?",
    re.IGNORECASE,
)


def split_files(folder: Path, named: Mapping[str, str | None]) -> dict[str, list[Path]]:
    """Find the files of each split.

    Args:
        folder: The folder.
        named: For each split a file in the folder or elsewhere; None to search for it.

    Returns:
        The files of each split, in the order of their documents; empty if there is none.

    Raises:
        UserError: A file is missing, or a split has two files.
    """
    found = {split: [_named(folder, split, name)] for split, name in named.items() if name}
    matches: dict[str, list[re.Match]] = {}
    for path in sorted(folder.iterdir()):
        match = _SPLIT_FILE.fullmatch(path.name)
        if match and _is_visible_file(path):
            split = ALIASES.get(match[1].lower(), match[1].lower())
            matches.setdefault(split, []).append(match)
    for split, candidates in matches.items():
        if split not in found:
            _check_shards(folder, split, candidates)
            found[split] = [folder / match[0] for match in candidates]
    if found:
        _log_left_out(folder, [path for paths in found.values() for path in paths])
    return {split: found[split] for split in SPLITS if split in found}


def _log_left_out(folder: Path, read: Sequence[Path]) -> None:
    """Name the files with the same extensions that are not read."""
    known = {path.resolve() for path in read}
    extensions = {extension_of(path) for path in read}
    others = [
        path.name
        for path in sorted(folder.iterdir())
        if _is_visible_file(path)
        and extension_of(path) in extensions
        and path.resolve() not in known
    ]
    if others:
        guesses.info("%s: not a split, and left out: %s", folder, listed(others))


def is_split_file(path: Path) -> bool:
    """Return whether a file has the name of a split, and is not hidden."""
    return _is_visible_file(path) and _SPLIT_FILE.fullmatch(path.name) is not None


def _is_visible_file(path: Path) -> bool:
    return not path.name.startswith(".") and not path.is_dir()


def _named(folder: Path, split: str, name: str) -> Path:
    path = folder / expanded(name)
    if not path.exists() and Path(name).exists():
        path = Path(name)  # a path from here
    if not path.exists() or path.is_dir():
        raise UserError(f"{path}: no such file ({split}={name})")
    return path


def _check_shards(folder: Path, split: str, candidates: list[re.Match]) -> None:
    names = [match[0] for match in candidates]
    if any(not match["shard"] for match in candidates) or len({m[4] for m in candidates}) > 1:
        if len(names) > 1:
            raise UserError(
                f"{folder}: {' and '.join(names)} could both be {split}; choose one with "
                f"--data.{split} NAME"
            )
        return
    total, numbers = int(candidates[0][4]), sorted(int(match[3]) for match in candidates)
    if len(set(numbers)) < len(numbers):
        raise UserError(
            f"{folder}: {' and '.join(names)} have the same shard twice; remove one, or choose one "
            f"file with --data.{split} NAME"
        )
    first = 1 if total in numbers else 0
    if missing := [str(i) for i in range(first, first + total) if i not in numbers]:
        raise UserError(
            f"{folder}: {split} has {len(numbers)} of {total} shards ({', '.join(missing[:5])} "
            f"missing): add them, or choose one file with --data.{split} NAME"
        )


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Find one document per file in ``split/class/*.txt``.

    Args:
        folder: The folder that contains those of the splits.

    Returns:
        The files of each split, sorted by class; empty if there are none.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        split = ALIASES.get(path.name.lower(), path.name.lower())
        if split in SPLITS and path.is_dir() and (files := documents(path)):
            found[split] = files
    return {split: found[split] for split in SPLITS if split in found}


def unlabeled_folders(folder: Path) -> dict[str, list[Path]]:
    """Find one document per file in ``split/*.txt``.

    Folders named like splits may also be classes: they are splits if ``train`` is one of them and
    they are all there are, or if there are several.

    Args:
        folder: The folder that contains those of the splits.

    Returns:
        The files of each split, sorted; empty if the folders are classes.

    Raises:
        UserError: Two folders are the same split.
    """
    found: dict[str, Path] = {}
    others = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_dir() or not documents(path, "*"):
            continue
        split = ALIASES.get(path.name.lower(), path.name.lower())
        if split not in SPLITS:
            others.append(path.name)
        elif split in found:
            raise UserError(
                f"{folder}: {found[split].name} and {path.name} could both be {split}: rename one"
            )
        else:
            found[split] = path
    if len(found) < 2 and ("train" not in found or others):
        return {}
    if others:
        guesses.warning("%s: not a split, and left out: %s", folder, ", ".join(others))
    return {split: documents(found[split], "*") for split in SPLITS if split in found}


def documents(folder: Path, where: str = "*/*") -> list[Path]:
    """Return the text files of a folder, sorted; hidden ones are left out.

    Args:
        folder: The folder.
        where: A pattern: by default, those in a folder per class.
    """
    return sorted(
        path
        for path in folder.glob(where)
        if EXTENSIONS.get(extension_of(path)) == "lines"
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
