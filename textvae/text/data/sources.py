"""Where the splits of a corpus come from: files, a folder, standard input, or the Hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

from textvae.errors import UserError
from textvae.runs.files import expanded
from textvae.text.data.columns import Row, listed
from textvae.text.data.hub import hub_sources, is_saved, is_saved_split, saved_sources
from textvae.text.data.layout import EXTENSIONS, Layout, extension_of
from textvae.text.data.readers import detect_layout, has_labels, read_rows
from textvae.text.data.source import Source, guesses, utf8
from textvae.text.data.split_files import (
    class_folders,
    documents,
    is_split_file,
    split_files,
    unlabeled_folders,
)
from textvae.text.data.streams import STANDARD_INPUT, InputFile, input_file


def find_sources(place: str, named: Mapping[str, str | None], options: Layout) -> dict[str, Source]:
    """Find the splits of a corpus, and say in the log how each is read.

    Args:
        place: A folder, a single file, ``-`` for standard input, or a dataset on the Hub.
        named: For each split the file in the folder, or the split on the Hub; None to search.
        options: How the files are laid out, as far as it is known.

    Returns:
        A source for each split; a single file is ``train``.

    Raises:
        UserError: If nothing is found, a split has two files, the layout is ambiguous, or the Hub
            cannot be reached.
    """
    check_place(place)
    path = expanded(place)
    if place == STANDARD_INPUT or (path.exists() and not path.is_dir()):
        return _single(place, named, options)
    if path.is_dir():
        return _folder_sources(path, named, options)
    _check_no_files(place, options)
    return _logged(hub_sources(place, named, options.columns))


def check_place(place: str) -> None:
    """Check that a corpus exists, unless its name may be that of a dataset on the Hub.

    Raises:
        UserError: There is no such file or folder.
    """
    if place != STANDARD_INPUT and not expanded(place).exists() and _looks_like_path(place):
        raise UserError(
            f"{place}: no such file or folder (datasets on the Hub are named owner/name)"
        )


def find_file(place: str | Path, options: Layout) -> Source:
    """Make the source of a file, or of a folder that is one split; the log says how it is read.

    Args:
        place: The file or folder, or ``-`` for standard input.
        options: How it is laid out, as far as it is known.

    Raises:
        UserError: It cannot be read, or the layout is ambiguous.
    """
    source = _one_source(place, options)
    guesses.info("%s: read as %s", source.where, source.described)
    return source


def is_one_split(folder: Path) -> bool:
    """Return whether a folder is one split, to be read like a file.

    It is one if ``save_to_disk`` wrote it as a dataset without splits, or if it has one document
    per file in a folder per class.
    """
    if is_saved(folder):
        return is_saved_split(folder)
    if class_folders(folder) or any(map(is_split_file, folder.iterdir())):
        return False
    found = documents(folder)  # not corpora in folders of their own, nor train/*.txt
    return bool(found) and not any(map(is_split_file, found)) and not unlabeled_folders(folder)


def _one_source(place: str | Path, options: Layout) -> Source:
    path = expanded(place)
    if str(place) == STANDARD_INPUT or not path.is_dir():
        return file_source([input_file(place)], options)
    if not is_one_split(path):
        if options.format == "documents" and (flat := documents(path, "*")):
            unlabeled = replace(options, columns=replace(options.columns, labels=False))
            return file_source([*map(input_file, flat)], unlabeled)
        raise UserError(
            f"{path}: a folder, not a file: it can be read as one if it has one document per file, "
            "in a folder per class or, with --data.format documents, without classes; or if "
            "save_to_disk wrote it as a dataset without splits"
        )
    if is_saved(path):
        _check_no_files(str(path), options)
        return saved_sources(path, {}, options.columns)["train"]
    return file_source([*map(input_file, documents(path))], replace(options, format="documents"))


def _single(place: str, named: Mapping[str, str | None], options: Layout) -> dict[str, Source]:
    if named.get("train"):
        raise UserError(
            f"{place} is a single file, so it is the training data: leave out --data.train"
        )
    found = {"train": find_file(place, options)}
    return found | {split: find_file(name, options) for split, name in named.items() if name}


def _folder_sources(
    folder: Path, named: Mapping[str, str | None], options: Layout
) -> dict[str, Source]:
    if is_saved(folder):
        _check_no_files(str(folder), options)
        return _logged(saved_sources(folder, named, options.columns))
    files = {} if options.format == "documents" else split_files(folder, named)
    if not files and (files := class_folders(folder)):
        options = replace(options, format="documents")
    if not files and options.format == "documents":
        if files := unlabeled_folders(folder):
            options = replace(options, columns=replace(options.columns, labels=False))
        elif found := documents(folder):
            files = {"train": found}
    if "train" not in files:
        if not files and _has_pictures(folder):
            raise UserError(f"{folder} has images: train on them with --data.kind images")
        names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        raise UserError(
            f"{folder}: no training file{f' among {listed(names)}' if names else ''}; name it "
            "train.txt (or .jsonl, .csv, .tsv, .parquet), set --data.train FILE, or use folders "
            "train/CLASS/ with one document per file"
        )
    return _logged(
        {split: file_source([*map(input_file, found)], options) for split, found in files.items()}
    )


def _has_pictures(folder: Path) -> bool:
    """Return whether there are pictures in a folder, in its splits, or in their classes."""
    places = (path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(depth))
    return any(path.suffix.lower() in (".png", ".jpg", ".jpeg") for path in places)


def _check_no_files(place: str, options: Layout) -> None:
    if (options.format, options.delimiter, options.header) != ("auto", None, None):
        raise UserError(
            f"{place} is a dataset with columns: --data.format, --data.delimiter and --data.header "
            "apply only to files"
        )


def file_source(files: list[InputFile], options: Layout) -> Source:
    """Make the source of a split that is one file, or several that follow each other.

    Args:
        files: The files.
        options: How they are laid out, as far as it is known.

    Raises:
        UserError: The layout is ambiguous, or an option does not fit it.
    """
    if options.format == "documents":  # thousands of files that all look alike
        layouts = [detect_layout(files[0], options)] * len(files)
    else:
        layouts = [detect_layout(file, options) for file in files]

    def rows() -> Iterator[Row]:
        for file, layout in zip(files, layouts, strict=True):
            yield from read_rows(file, layout)

    identity = {
        "files": [file.stamp() for file in files],
        "layouts": [layout.identity() for layout in layouts],
    }
    where = files[0].where + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    labeled = any(map(has_labels, layouts))
    described = layouts[0].describe()
    for file, layout in zip(files, layouts, strict=True):  # shards that are laid out differently
        if layout is not layouts[0] and layout.describe() != layouts[0].describe():
            described += f"; {Path(file.where).name} as {layout.describe()}"
    return Source(where, identity, rows, described, labeled)


def _logged(found: dict[str, Source]) -> dict[str, Source]:
    for source in found.values():
        guesses.info("%s: read as %s", source.where, source.described)
    return found


Documents = tuple[list[str], list[str | None]]  # texts and labels


def read_documents(place: str | Path, options: Layout) -> Documents:
    """Read the documents of one file into memory, as training reads them.

    Args:
        place: A file, a folder that is one split, or ``-`` for standard input.
        options: How it is laid out, as far as it is known.

    Returns:
        The texts, with an empty one for every blank line, so that their numbers are those of the
        lines; and their labels, None for an unlabeled one.

    Raises:
        UserError: It cannot be read, the layout is ambiguous, or it has only blank lines.
    """
    ((texts, labels),) = document_parts(place, options, None)()
    return texts, labels


def document_parts(
    place: str | Path, options: Layout, size: int | None
) -> Callable[[], Iterator[Documents]]:
    """Read the documents of one file as ``read_documents`` does, a part at a time.

    Args:
        place: A file, a folder that is one split, or ``-`` for standard input.
        options: How it is laid out, as far as it is known.
        size: Documents in a part; None: all of them.

    Returns:
        A function that reads the file from its start; it can be called again.

    Raises:
        UserError: As ``read_documents`` does, some of it only when the parts are read.
    """
    source = _one_source(place, options)
    if (str(place), source.described) != (STANDARD_INPUT, "lines"):  # what it is for
        guesses.info("%s: read as %s", source.where, source.described)

    def parts() -> Iterator[Documents]:
        rows, only_blank = iter(source.rows()), True
        while part := list(islice(rows, size)):
            only_blank &= not any(text and not text.isspace() for _, text, _ in part)
            for line, *texts in part:
                utf8("".join(text or "" for text in texts), f"{source.where}, line {line}")
            labels = [source.label_name(label) for _, _, label in part]
            yield [text or "" for _, text, _ in part], labels
        if only_blank:
            raise UserError(f"{source.where} has no sentences")

    return parts


def _looks_like_path(place: str) -> bool:
    return (
        place.startswith((".", "~", os.sep))
        or place.count("/") != 1
        or place.endswith("/")
        or extension_of(Path(place)) in EXTENSIONS
        or Path(place).parent.is_dir()  # such a folder exists: do not ask the Hub
    )
