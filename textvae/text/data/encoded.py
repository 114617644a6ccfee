"""The token ids of a split: encoded once, stored on disk, and memory-mapped.

    cache/encoded/<key>/ids.bin        int32, all documents one after another
                        offsets.npy    (N+1,) int64: document i is ids[offsets[i]:offsets[i+1]]
                        lengths, units, num_bytes, labels, rows .npy
                        facts.json     counts, content hash, checksums of the files

The key combines the fingerprints of the dataset and the tokenizer with the policy for long
documents. A folder is created atomically, by a single rename.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textvae.config.arguments import check_choice, check_integers
from textvae.errors import UserError
from textvae.runs.cache import cache_folder, cache_lock, checksum, mark_used, unwritable
from textvae.runs.slow_steps import SlowStep
from textvae.text.data.batches import text_batch
from textvae.text.data.chunks import Chunk, Encoding, encode_chunks
from textvae.text.data.labels import numbered_labels
from textvae.text.tokenizers import UNK, Tokenizer
from textvae.text.tokenizers.vocabulary import fingerprint_of
from textvae.vae.batch import Batch

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

_VERSION = 3
TOO_MANY_UNKNOWN = 0.1  # of the tokens; words of real text that were left out are fewer
_ARRAYS = ("offsets", "lengths", "units", "num_bytes", "labels", "rows")


class EncodedSplit:
    """N documents as token ids, memory-mapped.

    The units and bytes of a truncated document count only the part that is kept.

    Args:
        folder: The folder of the encoded split.
        dataset: The texts.
        label_names: Names of the labels.

    Attributes:
        offsets: (N+1,) int64, where each document starts in ``values``.
        values: int32 token ids of all documents, without special tokens.
        lengths: (N,) int32, number of predicted tokens: those of the document and ``</s>``.
        units: (N,) int32, number of words + 1 for the end, independent of the tokenizer.
        num_bytes: (N,) int32, number of UTF-8 bytes of the text.
        labels: (N,) int64, indices into ``label_names`` (-1: unlabeled), or None.
        label_names: Names of the labels, or None.
        conditions: (N,) what the model is conditioned on, or None; the batches include it.
        content_hash: sha256 of texts and labels, independent of where they were read from.
        truncated: Number of documents that were cut to the maximum length.
        dropped: Number of documents that were left out because they were longer.
    """

    def __init__(self, folder: Path, dataset: Dataset, label_names: list[str] | None):
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in _ARRAYS
            if (folder / f"{name}.npy").exists()
        }
        # Plain views: slicing a numpy.memmap takes ten times as long as slicing an array.
        arrays = {name: array.view(np.ndarray) for name, array in arrays.items()}
        self.offsets: np.ndarray = arrays["offsets"]
        self.lengths: np.ndarray = arrays["lengths"]
        self.units: np.ndarray = arrays["units"]
        self.num_bytes: np.ndarray = arrays["num_bytes"]
        self.labels: np.ndarray | None = arrays.get("labels")
        self.label_names = label_names if self.labels is not None else None
        self.values: np.ndarray = (
            np.memmap(folder / "ids.bin", dtype=np.int32, mode="r").view(np.ndarray)
            if self.offsets[-1]
            else np.zeros(0, np.int32)
        )
        self.content_hash: str = facts["content_hash"]
        self.truncated: int = facts["truncated"]
        self.dropped: int = facts["dropped"]
        self.conditions: np.ndarray | None = None
        self._rows: np.ndarray | None = arrays.get("rows")
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, i: int) -> np.ndarray:
        """Token ids of document i, without special tokens: a read-only int32 view."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def unknown_share(self) -> float:
        """Return the share of the tokens that are ``<unk>``."""
        return float((self.values == UNK).mean()) if len(self.values) else 0.0

    def source_row(self, i: int) -> int:
        """Number of document i from 0, counting dropped ones and, of new files, blank ones."""
        row = self._row(i)
        return int(self._dataset[row]["row"]) if "row" in self._dataset.column_names else row

    def _row(self, i: int) -> int:
        return i if self._rows is None else int(self._rows[i])

    def kept(self, values: Sequence[Any]) -> list[Any]:
        """Return the values of the documents that were kept, given one for every document read."""
        return list(values) if self._rows is None else [values[int(row)] for row in self._rows]

    def batch(self, rows: np.ndarray, epoch: int | None = None) -> Batch:
        """Collate the documents ``rows``; the batch is the same in every epoch."""
        rows = np.asarray(rows)
        starts, stops = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        return text_batch(
            [self.values[start:stop] for start, stop in zip(starts, stops, strict=True)],
            rows,
            units=self.units[rows],
            num_bytes=self.num_bytes[rows],
            labels=None if self.labels is None else self.labels[rows],
            condition=None if self.conditions is None else self.conditions[rows],
        )

    def caption(self, i: int) -> str:
        """The complete text of document i, as it was read."""
        return self._dataset[self._row(i)]["text"]

    def thumbnails(self, rows: np.ndarray) -> None:
        """Return None: texts have no thumbnails."""


def encode_corpus(
    corpus: dict[str, Dataset],
    tokenizer: Tokenizer,
    *,
    tokenized: bool = True,
    max_length: int | None = None,
    long: str = "truncate",
    cache_dir: str | Path | None = None,
) -> dict[str, EncodedSplit]:
    """Encode all splits of a corpus, or load them from the cache if they were encoded before.

    Args:
        corpus: Datasets by split, with a column ``text`` and possibly ``label``, as returned by
            ``read_corpus``.
        tokenizer: Maps a text to its ids.
        tokenized: Whether the words of the corpus are separated by spaces; otherwise they are
            counted by Treebank rules.
        max_length: Maximum number of predicted tokens of a document, including ``</s>``.
        long: What to do with longer documents, ``truncate`` or ``drop``; their number is logged.
        cache_dir: ``$TEXTVAE_CACHE`` or ``~/.cache/textvae`` by default.

    Returns:
        The encoded splits.

    Raises:
        UserError: If an option is out of range, or no document is left.
    """
    check_choice(("truncate", "drop"), long=long)
    if max_length is not None:
        check_integers(2, max_length=max_length)  # a token and </s>
    names, label_ids = numbered_labels(corpus)
    cache = cache_folder(cache_dir) / "encoded"
    splits = {}
    for name, dataset in corpus.items():
        encoding = Encoding(tokenizer, tokenized, max_length, long, label_ids.get(name))
        folder = _encoded(dataset, encoding, names, cache)
        splits[name] = EncodedSplit(folder, dataset, names)
        _report(name, splits[name], encoding)
    _warn_of_unknown(splits)
    return splits


def _report(name: str, split: EncodedSplit, encoding: Encoding) -> None:
    if split.truncated or split.dropped:
        logger.warning(
            "%s: %d of %d documents exceed max_length=%d: %s",
            name,
            split.truncated + split.dropped,
            len(split) + split.dropped,
            encoding.max_length,
            "truncated" if split.truncated else "dropped",
        )
    if len(split) == 0:
        raise UserError(f"{name}: max_length={encoding.max_length} drops every document")


def _warn_of_unknown(splits: Mapping[str, EncodedSplit]) -> None:
    """Warn once of the splits that have many ``<unk>``."""
    shares = {name: split.unknown_share() for name, split in splits.items()}
    if many := {name: share for name, share in shares.items() if share > TOO_MANY_UNKNOWN}:
        logger.warning(
            "%s: %.0f%% of the tokens are <unk>, which are easy to predict: the latent vectors "
            "carry little information, and perplexities and bits per byte are too low; for such "
            "text, train with subwords (--data.tokenized false), characters (--tokenizer.kind "
            "char), or a larger vocabulary",
            *(", ".join(many), 100 * max(many.values())),
        )


def _encoded(dataset: Dataset, encoding: Encoding, names: list | None, cache: Path) -> Path:
    key = fingerprint_of(
        _VERSION,
        dataset._fingerprint,
        encoding.tokenizer.fingerprint(),
        [encoding.tokenized, encoding.max_length, encoding.max_length and encoding.long],
        names if "label" in dataset.column_names else None,
        *_renumbering(encoding.label_ids or {}),
    )
    folder = cache / key
    if not _complete(folder):
        # If several processes start at once, one encodes and the others wait.
        with cache_lock(folder):
            if not _complete(folder):
                _write(dataset, encoding, folder)
    mark_used(folder)
    return folder


def _renumbering(label_ids: Mapping[Any, int]) -> list[Any]:
    """Return new indices of labels that are indices into other names than those of the corpus."""
    by_index = any(isinstance(label, int) for label in label_ids)
    return [sorted(label_ids.items())] if by_index else []


def _complete(folder: Path) -> bool:
    try:
        sums = json.loads((folder / "facts.json").read_text(encoding="utf-8"))["checksums"]
        return all(checksum(folder / name) == total for name, total in sums.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _write(dataset: Dataset, encoding: Encoding, folder: Path) -> None:
    temporary = folder.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir()
        chunks = _shown(encode_chunks(dataset, encoding), len(dataset))
        facts = _write_arrays(chunks, len(dataset), temporary)
        facts["checksums"] = {file.name: checksum(file, flush=True) for file in temporary.iterdir()}
        (temporary / "facts.json").write_text(json.dumps(facts, indent=1))
        shutil.rmtree(folder, ignore_errors=True)  # an existing folder is damaged
        os.rename(temporary, folder)
    except OSError as error:
        if not _complete(folder):  # another process, without a lock, may have been faster
            raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _shown(chunks: Iterator[Chunk], total: int) -> Iterator[Chunk]:
    step, done = SlowStep(logger, "token ids: %d of %d documents encoded"), 0
    for chunk in chunks:
        done += len(chunk.counts)
        step.show(done, total)
        yield chunk


def _write_arrays(chunks: Iterator[Chunk], total: int, folder: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    small: list[Chunk] = []
    with open(folder / "ids.bin", "wb") as file:
        for chunk in chunks:
            file.write(chunk.ids.tobytes())
            digest.update(chunk.digest)
            small.append(chunk._replace(ids=np.zeros(0, np.int32)))
    counts = np.concatenate([chunk.counts for chunk in small])
    arrays = {
        "offsets": np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        "lengths": counts + 1,
        "units": np.concatenate([chunk.units for chunk in small]),
        "num_bytes": np.concatenate([chunk.num_bytes for chunk in small]),
    }
    if labels := [chunk.labels for chunk in small if chunk.labels is not None]:
        arrays["labels"] = np.concatenate(labels)
    if len(counts) < total:
        arrays["rows"] = np.concatenate([chunk.rows for chunk in small])
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {
        "content_hash": digest.hexdigest(),
        "documents": len(counts),
        "truncated": sum(chunk.truncated for chunk in small),
        "dropped": total - len(counts),
    }
