"""A corpus: files or a hub name in, splits with the columns `text` and `label` out.

    read_corpus -> {"train": Dataset, "valid": …, "test": …}      texts, on disk
    texts       -> one text after the other, for a tokenizer to learn from
    encode_corpus -> {"train": EncodedSplit, …}                    ids, on disk

Nothing here holds a corpus in memory.
"""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textvae.errors import UserError
from textvae.runs.cache import cache_folder
from textvae.text.data.columns import Columns
from textvae.text.data.encoded import EncodedSplit, encode_corpus
from textvae.text.data.sources import SPLITS, find_sources
from textvae.text.data.store import stored

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["EncodedSplit", "encode_corpus", "read_corpus", "texts"]

log = logging.getLogger(__name__)

HELD_OUT = 0.05  # of the documents, for each of valid and test, where a corpus brings none


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
) -> "dict[str, Dataset]":
    """Read a corpus into Hugging Face datasets with the columns `text` and maybe `label`.

    Args:
        dir: a folder with train, valid and test files (`train.txt`, `ptb.train.txt`, …), one
            file, or a hub data set (`owner/name` or `owner/name:config`).
        train, valid, test: file names in the folder, or splits of the hub data set.
        text_column: default `text`; several, comma-separated, are joined by a space.
        label_column: default `label` if there is one. Labels are strings, or indices into the
            feature's names where a hub data set has named classes.
        format: one of `readers.FORMATS`, or `auto`: by the file's ending and look.
        cache_dir: default $TEXTVAE_CACHE or ~/.cache/textvae.
        seed: draws the held-out documents where the corpus has no `valid`: 5 % of train each
            for valid and test (for valid alone, if there is a test file).

    Raises:
        UserError: whatever is wrong with the files, with file and line.
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


def texts(dataset: "Dataset") -> Iterator[str]:
    """The texts of a split, streamed from disk: what `Tokenizer.train` takes."""
    for batch in dataset.select_columns("text").iter(batch_size=1000):
        yield from batch["text"]


def _held_out(train: "Dataset", missing: list[str], seed: int, where: str) -> "dict[str, Dataset]":
    count = max(1, round(HELD_OUT * len(train)))
    if len(train) <= count * len(missing):
        raise UserError(
            f"{where}: too few documents ({len(train)}) to hold out {' and '.join(missing)}; "
            "give more, or a folder with train, valid and test files"
        )
    order = np.random.default_rng(seed).permutation(len(train))
    drawn = {split: order[i * count : (i + 1) * count] for i, split in enumerate(missing)}
    drawn["train"] = order[count * len(missing) :]
    log.info(
        "%s: no %s given; drawn from train with seed %d: %s",
        where,
        " or ".join(missing),
        seed,
        ", ".join(f"{split} {len(drawn[split])}" for split in ("train", *missing)),
    )
    # Rows stay in the order of the file, so that reading them runs forward through it.
    return {
        split: train.select(
            np.sort(rows), new_fingerprint=_fingerprint(train, split, missing, seed)
        )
        for split, rows in drawn.items()
    }


def _fingerprint(train: "Dataset", split: str, missing: list[str], seed: int) -> str:
    key = f"{train._fingerprint} {split} of {missing} {HELD_OUT} {seed}"
    return hashlib.sha256(key.encode()).hexdigest()
