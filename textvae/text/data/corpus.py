"""Text corpora: from files or a dataset on the Hugging Face Hub to token ids on disk.

    read_corpus        -> {"train": Dataset, "valid": …, "test": …}    texts, on disk
    learned_tokenizer  -> Tokenizer                                    learned once; tokenizer.py
    encode_corpus      -> {"train": EncodedSplit, …}                   ids, on disk

No step holds a whole corpus in memory.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textvae.errors import quantity
from textvae.runs.cache import cache_folder
from textvae.runs.files import replace_file
from textvae.text.data.encoded import EncodedSplit, encode_corpus
from textvae.text.data.layout import Layout
from textvae.text.data.readers import is_label
from textvae.text.data.source import SPLITS, guesses
from textvae.text.data.sources import find_file, find_sources
from textvae.text.data.store import stored
from textvae.vae.held_out import SHARE, held_out

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "EncodedSplit",
    "encode_corpus",
    "read_corpus",
    "read_file",
    "texts",
    "warn_of_known_texts",
    "write_split",
]

logger = logging.getLogger(__name__)
MANY_KNOWN = 0.1  # of a split; in Yelp's short reviews, 0.07 of the test split


def read_corpus(
    dir: str | Path,
    *,
    train: str | None = None,
    valid: str | None = None,
    test: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    labels: bool = True,
    format: str = "auto",
    delimiter: str | None = None,
    header: bool | None = None,
    numeric: bool = False,
    cache_dir: str | Path | None = None,
) -> dict[str, Dataset]:
    """Read a corpus as Hugging Face datasets with a column ``text`` and possibly ``label``.

    Args:
        dir: A folder with train, valid and test files (``train.txt``, ``ptb.train.txt``, …), with
            folders ``train/CLASS/`` of one document per file, or that ``save_to_disk`` wrote; a
            single file; ``-`` for standard input; or a dataset on the Hub (``owner/name`` or
            ``owner/name:config``). If it has no ``valid`` split, 5% of the training documents are
            held out for it, and as many for ``test`` if that is missing, too.
        train: The training file, in the folder or elsewhere, or the name of the split on the Hub.
        valid: The same for validation.
        test: The same for test.
        text_column: Column with the text, ``text`` by default; several columns, separated by
            commas, are joined with a space, and so are the tokens in a list. ``a.b`` is the field
            b of the column a; the columns of a table without a header are 1, 2, ….
        label_column: Column with the label; by default ``label``, if there is one. Labels are
            strings, or indices into the names of the classes of a dataset on the Hub. An example
            whose label is -1, null, or empty is unlabeled.
        labels: Whether to read labels at all.
        format: One of ``layout.FORMATS``, or ``auto`` to detect it from the extension and content.
        delimiter: What separates the columns of a table: a character, ``tab``, ``comma``,
            ``semicolon`` or ``pipe``; None to detect it.
        header: Whether the first row of a table names its columns; None to detect it.
        numeric: Whether the labels are numbers; -1 is then one, and what is not a number an error.
        cache_dir: ``$TEXTVAE_CACHE`` or ``~/.cache/textvae`` by default.

    Returns:
        A dataset for each split, in the order train, valid, test.

    Raises:
        UserError: If there is a problem with the files; the message names the file and line.
    """
    named = {"train": train, "valid": valid, "test": test}
    layout = Layout.parse(
        format, text_column, label_column, labels, delimiter, header, numeric=numeric
    )
    sources = find_sources(str(dir), named, layout)
    cache = cache_folder(cache_dir)
    corpus = {split: stored(source, cache) for split, source in sources.items()}
    if "valid" not in corpus:
        missing = [split for split in SPLITS[1:] if split not in corpus]
        corpus |= _held_out(corpus["train"], missing, str(dir))
    elif "test" not in corpus:
        guesses.info(
            "%s: no test split: evaluate the model on valid, or on a file with --data", str(dir)
        )
    return {split: corpus[split] for split in SPLITS if split in corpus}


def warn_of_known_texts(corpus: Mapping[str, Dataset]) -> None:
    """Warn if many texts of another split are also in train: their metrics mislead.

    A few short sentences usually are; many are if a file has duplicates and no splits of its own.
    A split that equals the training split is left out: ``train`` warns of it, for images as well.
    """
    train = corpus["train"]
    known = _hashes(train)
    for split in SPLITS[1:]:
        if split not in corpus or corpus[split]._fingerprint == train._fingerprint:
            continue
        share = float(np.isin(_hashes(corpus[split]), known).mean())
        if share > MANY_KNOWN:
            logger.warning(
                "%s: %.0f%% of its %s are also in train, so its metrics are better than those of "
                "new texts: remove duplicates from the data",
                *(split, 100 * share, quantity(len(corpus[split]), "text")),
            )


def _hashes(dataset: Dataset) -> np.ndarray:
    return np.fromiter(map(hash, texts(dataset)), np.int64, len(dataset))


def read_file(
    source: str | Path, *, cache_dir: str | Path | None = None, **options: Any
) -> Dataset:
    """Read all documents of one file, like a split of ``read_corpus``.

    Args:
        source: The file, or ``-`` for standard input.
        cache_dir: ``$TEXTVAE_CACHE`` or ``~/.cache/textvae`` by default.
        options: format, text_column, label_column, labels, delimiter, header, and numeric, as for
            ``read_corpus``; and ``usual``, the options of the training data, which are used if the
            file is of the same kind and none are given.

    Returns:
        A dataset with a column ``text`` and possibly ``label``; and, if the file has blank rows,
        ``row``: the number of each row with them.

    Raises:
        UserError: If there is a problem with the file; the message names the file and line.
    """
    found = find_file(source, Layout.parse(**options))
    return stored(found, cache_folder(cache_dir), numbered=True)


def texts(dataset: Dataset) -> Iterator[str]:
    """Stream the texts of a split from disk."""
    for batch in dataset.select_columns("text").iter(batch_size=1000):
        yield from batch["text"]  # type: ignore[index]  # a dict of columns


def write_split(path: Path, rows: Iterable[tuple[str, str | None]]) -> int:
    r"""Write one split of a corpus in the layout that ``read_corpus`` reads without options.

    The file has one document per line, ``label<TAB>text`` if there are labels, in UTF-8 with LF. It
    appears only once it is complete. If a document contains line breaks or tabs, all its whitespace
    becomes single spaces.

    Args:
        path: ``train.txt``, ``valid.txt`` or ``test.txt`` in the folder of the corpus.
        rows: Text and label of each document. None: no label; the first document has one unless
            there are none at all.

    Returns:
        The number of documents.

    Raises:
        UserError: The file cannot be written.
        ValueError: A label could not be read back.
    """
    count, labeled = 0, False

    def write(temporary: Path) -> None:
        nonlocal count, labeled
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for text, label in rows:
                labeled = labeled if count else label is not None
                if label is not None and not (labeled and is_label(label)):
                    why = "has a space or is too long" if labeled else "comes after a text without"
                    raise ValueError(f"{path}: the label {label!r} {why}")
                if any(mark in text for mark in "\n\r\t"):
                    text = " ".join(text.split())
                file.write(f"{label or ''}\t{text}\n" if labeled else f"{text}\n")
                count += 1

    replace_file(path, write)
    return count


def _held_out(train: Dataset, missing: list[str], where: str) -> dict[str, Dataset]:
    drawn = held_out(len(train), missing, where, "document")
    guesses.info(
        "%s: no %s split; drawn from train: %s",
        where,
        " or ".join(missing),
        ", ".join(f"{split} {len(rows)}" for split, rows in drawn.items()),
    )
    # The rows are in the order of the file, so that it is read from front to back.
    return {
        split: train.select(rows, new_fingerprint=_fingerprint(train, split, missing))
        for split, rows in drawn.items()
    }


def _fingerprint(train: Dataset, split: str, missing: list[str]) -> str:
    key = f"{train._fingerprint} {split} of {missing} {SHARE} 0"  # 0: the seed of held_out
    return hashlib.sha256(key.encode()).hexdigest()
