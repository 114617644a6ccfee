"""Batches of documents: ids between `<s>` and `</s>`, padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from textvae.text.tokenizers import BOS, EOS, PAD, Tokenizer, count_words
from textvae.vae.batch import Batch

if TYPE_CHECKING:
    from textvae.text.data.encoded import EncodedSplit


def collate(split: EncodedSplit, rows: np.ndarray) -> Batch:
    """The documents `rows` as `<s> w1 … wn </s>`, padded: x is (B, T+1)."""
    rows = np.asarray(rows)
    starts, stops = split.offsets[rows].tolist(), split.offsets[rows + 1].tolist()
    ids = [split.values[a:b] for a, b in zip(starts, stops, strict=True)]
    labels = None if split.labels is None else torch.from_numpy(split.labels[rows])
    return Batch(
        x=torch.from_numpy(_padded(ids)),
        lengths=_long(split.lengths[rows]),
        units=_long(split.units[rows]),
        num_bytes=_long(split.num_bytes[rows]),
        index=_long(rows),
        labels=labels,
    )


def collate_texts(texts: Sequence[str], tokenizer: Tokenizer, *, tokenized: bool = True) -> Batch:
    """A batch of texts at hand, in their order; `index` counts from 0."""
    ids = [np.asarray(tokenizer.encode(text), np.int32) for text in texts]
    return Batch(
        x=torch.from_numpy(_padded(ids)),
        lengths=torch.tensor([len(i) + 1 for i in ids]),
        units=torch.tensor([count_words(text, tokenized) + 1 for text in texts]),
        num_bytes=torch.tensor([len(text.encode("utf-8")) for text in texts]),
        index=torch.arange(len(ids)),
    )


def _padded(ids: list[np.ndarray]) -> np.ndarray:
    counts = np.array([len(i) for i in ids])[:, None]  # (B, 1)
    x = np.full((len(ids), counts.max() + 2), PAD, dtype=np.int64)  # (B, T+1)
    column = np.arange(x.shape[1])
    x[(column >= 1) & (column <= counts)] = np.concatenate(ids)
    x[:, 0] = BOS
    x[np.arange(len(ids)), counts[:, 0] + 1] = EOS
    return x


def _long(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int64))
