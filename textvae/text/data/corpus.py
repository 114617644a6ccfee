"""Text corpora: from files or a data set on the Hugging Face hub to token ids on disk.

    read_corpus        -> {"train": Dataset, "valid": …, "test": …}    texts, on disk
    learned_tokenizer  -> Tokenizer                                    learned once, then cached
    encode_corpus      -> {"train": EncodedSplit, …}                   ids, on disk

No step holds a whole corpus in memory.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textvae.errors import UserError
from textvae.runs.cache import cache_folder
from textvae.runs.files import expanded, replace_file
from textvae.text.data.columns import Columns
from textvae.text.data.encoded import EncodedSplit, encode_corpus
from textvae.text.data.readers import PLAIN, format_of
from textvae.text.data.sources import SPLITS, file_source, find_sources, standard_input
from textvae.text.data.store import stored
from textvae.text.tokenizers import Tokenizer, load_tokenizer
from textvae.text.tokenizers.vocabulary import fingerprint_of

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "EncodedSplit",
    "encode_corpus",
    "learned_tokenizer",
    "read_corpus",
    "read_file",
    "texts",
    "write_split",
]

log = logging.getLogger(__name__)

HELD_OUT = 0.05  # fraction of the documents held out for each of valid and test, if missing
_LEARNING_VERSION = 1  # changes if the same texts and options give a different tokenizer


def read_corpus(
    dir: str | Path,
    *,
    train: str | None = None,
    valid: str | None = None,
    test: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    format: str = "auto",
    cache_dir: str | Path | None = None,
    seed: int = 0,
) -> dict[str, Dataset]:
    """Read a corpus as Hugging Face datasets with a column ``text`` and possibly ``label``.

    Args:
        dir: A folder with train, valid and test files (``train.txt``, ``ptb.train.txt``, …), a
            single file, or a dataset on the hub (``owner/name`` or ``owner/name:config``).
        train: Name of the training file in the folder, or of the split on the hub.
        valid: The same for validation.
        test: The same for test.
        text_column: Column with the text, ``text`` by default; several columns, separated by
            commas, are joined with a space.
        label_column: Column with the label; by default ``label``, if there is one. Labels are
            strings, or indices into the names of the classes of a dataset on the hub.
        format: One of ``readers.FORMATS``, or ``auto`` to detect it from the extension and content.
        cache_dir: ``$TEXTVAE_CACHE`` or ``~/.cache/textvae`` by default.
        seed: Seed for drawing the held-out documents if the corpus has no ``valid`` split: 5 % of
            train each for valid and test, or only for valid if there is a test split.

    Returns:
        A dataset for each split, in the order train, valid, test.

    Raises:
        UserError: If there is a problem with the files; the message names the file and line.
    """
    named = {"train": train, "valid": valid, "test": test}
    columns = Columns.parse(text_column, label_column)
    sources = find_sources(str(dir), named, columns, format)
    cache = cache_folder(cache_dir)
    corpus = {split: stored(source, cache) for split, source in sources.items()}
    if "valid" not in corpus:
        missing = [split for split in SPLITS[1:] if split not in corpus]
        corpus |= _held_out(corpus["train"], missing, seed, str(dir))
    return {split: corpus[split] for split in SPLITS if split in corpus}


def read_file(
    source: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    format: str = "auto",
    usual_text_column: str | None = None,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Read all documents of one file, like a split of ``read_corpus``.

    Args:
        source: The file, or ``-`` for standard input, which has one document per line.
        text_column: As for ``read_corpus``.
        label_column: As for ``read_corpus``.
        format: As for ``read_corpus``.
        usual_text_column: The text column if none is given and the file has named columns.
        cache_dir: ``$TEXTVAE_CACHE`` or ``~/.cache/textvae`` by default.

    Returns:
        A dataset with a column ``text`` and possibly ``label``.

    Raises:
        UserError: If there is a problem with the file; the message names the file and line.
    """
    cache = cache_folder(cache_dir)
    if source == "-":
        return stored(standard_input(), cache)
    path = expanded(source)
    if not path.is_file():
        raise UserError(f"{source}: no such file")
    form = format_of(path) if format == "auto" else format
    columns = Columns.parse(
        text_column or (None if form in PLAIN else usual_text_column), label_column
    )
    return stored(file_source([path], columns, format), cache)


def texts(dataset: Dataset) -> Iterator[str]:
    """Stream the texts of a split from disk."""
    for batch in dataset.select_columns("text").iter(batch_size=1000):
        yield from batch["text"]  # type: ignore[index]  # a dict of columns


def learned_tokenizer(
    dataset: Dataset,
    learn: Callable[[Iterable[str]], Tokenizer],
    options: dict[str, Any],
    cache_dir: str | Path | None = None,
) -> Tokenizer:
    """Learn a tokenizer, or load it from the cache if it was learned before.

    Args:
        dataset: A split with the column ``text``.
        learn: Trains a tokenizer on texts.
        options: Everything else that the result depends on; must be serializable as JSON.
        cache_dir: ``$TEXTVAE_CACHE`` or ``~/.cache/textvae`` by default.

    Returns:
        The tokenizer.
    """
    from filelock import FileLock

    key = fingerprint_of(_LEARNING_VERSION, dataset._fingerprint, options)
    folder = cache_folder(cache_dir) / "tokenizers" / key
    with FileLock(f"{folder}.lock"):  # one of several processes learns, the others wait
        try:
            return load_tokenizer(folder)
        except UserError:  # not there yet, or damaged
            tokenizer = learn(texts(dataset))
            folder.mkdir(exist_ok=True)
            tokenizer.save(folder)
            return tokenizer


def write_split(path: Path, rows: Iterable[tuple[str, str | None]]) -> int:
    r"""Write one split of a corpus in the layout that ``read_corpus`` reads without options.

    The file has one document per line, ``label<TAB>text`` if there are labels, in UTF-8 with LF. It
    appears only once it is complete. If a document contains line breaks or tabs, all its whitespace
    becomes single spaces.

    Args:
        path: ``train.txt``, ``valid.txt`` or ``test.txt`` in the folder of the corpus.
        rows: Text and label of each document.

    Returns:
        The number of documents.

    Raises:
        UserError: If the file cannot be written.
    """
    count = 0

    def write(temporary: Path) -> None:
        nonlocal count
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for text, label in rows:
                if any(mark in text for mark in "\n\r\t"):
                    text = " ".join(text.split())
                file.write(f"{text}\n" if label is None else f"{label}\t{text}\n")
                count += 1

    replace_file(path, write)
    return count


def _held_out(train: Dataset, missing: list[str], seed: int, where: str) -> dict[str, Dataset]:
    count = max(1, round(HELD_OUT * len(train)))
    if len(train) <= count * len(missing):
        raise UserError(
            f"{where}: too few documents ({len(train)}) to hold out {' and '.join(missing)}; "
            "add documents, or use a folder with train, valid and test files"
        )
    order = np.random.default_rng(seed).permutation(len(train))
    drawn = {split: order[i * count : (i + 1) * count] for i, split in enumerate(missing)}
    drawn["train"] = order[count * len(missing) :]
    log.info(
        "%s: no %s split; drawn from train with seed %d: %s",
        where,
        " or ".join(missing),
        seed,
        ", ".join(f"{split} {len(drawn[split])}" for split in ("train", *missing)),
    )
    # Keep the rows in file order, so that the file is read from front to back.
    return {
        split: train.select(
            np.sort(rows), new_fingerprint=_fingerprint(train, split, missing, seed)
        )
        for split, rows in drawn.items()
    }


def _fingerprint(train: Dataset, split: str, missing: list[str], seed: int) -> str:
    key = f"{train._fingerprint} {split} of {missing} {HELD_OUT} {seed}"
    return hashlib.sha256(key.encode()).hexdigest()
