"""Token ids as batches: ``<s>`` before each sentence, ``</s>`` after it, padded to the longest."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from textvae.text.tokenizers import BOS, EOS, PAD, Tokenizer
from textvae.vae.batch import Batch

logger = logging.getLogger(__name__)

Array = np.ndarray | Tensor | Sequence[int]


def text_batch(
    ids: Sequence[np.ndarray | Tensor],
    rows: Array,
    *,
    units: Array | None = None,
    num_bytes: Array | None = None,
    labels: Array | None = None,
    condition: np.ndarray | None = None,
) -> Batch:
    """Collate B sentences into a batch.

    Args:
        ids: Token ids of each sentence, without special tokens.
        rows: Number of each sentence in its dataset.
        units: Number of words in each sentence, including ``</s>``, for any tokenizer. Only metrics
            need ``units`` and ``num_bytes``; both are 0 by default.
        num_bytes: Number of UTF-8 bytes of each text.
        labels: Label index of each sentence.
        condition: What the model is conditioned on, for each sentence.

    Returns:
        A batch with x (B, T+1), where T is the length of the longest sentence including ``</s>``.
    """
    sentences = [np.asarray(sentence) for sentence in ids]
    counts = np.array([len(sentence) for sentence in sentences])
    zeros = np.zeros(len(sentences), np.int64)
    return Batch(
        x=torch.from_numpy(_padded(sentences, counts[:, None])),
        lengths=_long(counts + 1),
        units=_long(zeros if units is None else units),
        num_bytes=_long(zeros if num_bytes is None else num_bytes),
        index=_long(rows),
        labels=None if labels is None else _long(labels),
        condition=None if condition is None else torch.from_numpy(condition),
    )


def token_ids(texts: Sequence[str], tokenizer: Tokenizer, max_length: int) -> list[np.ndarray]:
    """Tokenize texts, cutting each one to at most ``max_length`` tokens.

    Args:
        texts: N texts.
        tokenizer: Maps a text to its ids.
        max_length: Maximum number of tokens, excluding ``<s>`` and ``</s>``.

    Returns:
        The ids of each text, without special tokens.
    """
    ids = [np.asarray(tokenizer.encode(text), np.int64) for text in texts]
    if cut := sum(len(sentence) > max_length for sentence in ids):
        logger.warning("%d of %d texts cut to %d tokens", cut, len(ids), max_length)
    return [sentence[:max_length] for sentence in ids]


def _padded(ids: list[np.ndarray], counts: np.ndarray) -> np.ndarray:
    x = np.full((len(ids), counts.max() + 2), PAD, dtype=np.int64)  # (B, T+1)
    column = np.arange(x.shape[1])
    x[(column >= 1) & (column <= counts)] = np.concatenate(ids)
    x[:, 0] = BOS
    x[np.arange(len(ids)), counts[:, 0] + 1] = EOS
    return x


def _long(numbers: Array) -> Tensor:
    return torch.from_numpy(np.asarray(numbers).astype(np.int64))
