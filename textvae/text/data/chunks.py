"""Encode documents, a thousand at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from textvae.text.tokenizers import Tokenizer
from textvae.text.tokenizers.words import WordTokenizer, count_words

if TYPE_CHECKING:
    from datasets import Dataset

_CHUNK = 1000  # documents encoded at once; part of the content hash


@dataclass(frozen=True)
class Encoding:
    """How documents become ids.

    Attributes:
        tokenizer: Maps a text to its ids.
        tokenized: Whether words are separated by spaces; otherwise they are counted by Treebank
            rules.
        max_length: Maximum number of tokens of a document, including ``</s>``.
        long: What happens to longer ones, ``truncate`` or ``drop``.
        label_ids: Index of each label; None if labels are these indices already.
    """

    tokenizer: Tokenizer
    tokenized: bool
    max_length: int | None
    long: str
    label_ids: dict[Any, int] | None


class Chunk(NamedTuple):
    """Encoded documents; ``rows`` are the numbers of those that were kept."""

    ids: np.ndarray
    counts: np.ndarray
    units: np.ndarray
    num_bytes: np.ndarray
    labels: np.ndarray | None
    rows: np.ndarray
    truncated: int
    digest: bytes


class Document(NamedTuple):
    """One text: its ids without special tokens, its words + 1, its bytes, whether it was cut."""

    ids: Sequence[int]
    units: int
    num_bytes: int
    truncated: bool


def encode_document(text: str, encoding: Encoding) -> Document:
    """Encode one text and count its words and bytes, of the part that is kept."""
    tokenizer, limit = encoding.tokenizer, encoding.max_length
    ids = tokenizer.encode(text)
    truncated = limit is not None and len(ids) >= limit
    if limit is not None and truncated:
        ids, text = ids[: limit - 1], tokenizer.prefix(text, limit - 1)
    # Treebank rules take most of the time: do not apply them again if the ids already are words.
    are_words = isinstance(tokenizer, WordTokenizer) and tokenizer.tokenized == encoding.tokenized
    words = len(ids) if are_words else count_words(text, encoding.tokenized)
    return Document(ids, words + 1, len(text.encode("utf-8")), truncated)


def encode_chunks(dataset: Dataset, encoding: Encoding) -> Iterator[Chunk]:
    """Encode a whole dataset in order."""
    for start in range(0, len(dataset), _CHUNK):
        yield _encode_chunk(dataset, encoding, start)


def _encode_chunk(dataset: Dataset, encoding: Encoding, start: int) -> Chunk:
    columns = dataset[start : start + _CHUNK]
    texts, labels = columns["text"], columns.get("label")
    documents, rows = [], []
    for row, text in enumerate(texts, start=start):
        document = encode_document(text, encoding)
        if not document.truncated or encoding.long == "truncate":
            documents.append(document)
            rows.append(row)
    ids = [np.asarray(document.ids, np.int32) for document in documents]
    return Chunk(
        ids=np.concatenate([np.zeros(0, np.int32), *ids]),
        counts=np.array([len(each) for each in ids], np.int32),
        units=np.array([document.units for document in documents], np.int32),
        num_bytes=np.array([document.num_bytes for document in documents], np.int32),
        labels=_label_array(labels, rows, start, encoding.label_ids),
        rows=np.array(rows, np.int64),
        truncated=sum(document.truncated for document in documents),
        digest=_digest(texts, labels),
    )


def _label_array(
    labels: list | None, rows: list[int], start: int, label_ids: dict[Any, int] | None
) -> np.ndarray | None:
    if labels is None:
        return None
    kept = (labels[row - start] for row in rows)
    if label_ids is None:
        return np.array([-1 if label is None else label for label in kept], np.int64)
    return np.array([-1 if label is None else label_ids[label] for label in kept], np.int64)


def _digest(texts: list[str], labels: list | None) -> bytes:
    digest = hashlib.sha256()
    names = ("-1" if label is None else str(label) for label in labels or ())
    for part in (*texts, *names):
        encoded = part.encode("utf-8")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()
