"""Noise on the sentences that an encoder reads in training (Shen et al. 2020, denoising).

* ``delete``   remove words;
* ``mask``     replace words by ``<unk>``;
* ``blank``    replace words by ``<unk>``, and leave one ``<unk>`` of several in a row;
* ``shuffle``  move words by at most ``REACH`` positions (Lample et al. 2018).

Each word is affected with the same probability. The end of the sentence stays at the end, and
``delete`` and ``blank`` spare at least one word. The random numbers come from torch's global
generator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from textvae.config.choices import InputNoise
from textvae.text.nn.dropout import drop_words
from textvae.text.tokenizers import BOS, EOS, PAD, UNK

REACH = 3


def add_noise(
    tokens: Tensor, lengths: Tensor, kind: InputNoise, rate: float
) -> tuple[Tensor, Tensor]:
    """Return noisy sentences, padded to the same width, and their lengths.

    Args:
        tokens: ``w1 … wn </s>`` of each sentence, padded, (B, T).
        lengths: Tokens of each sentence, including ``</s>``, (B,).
        kind: What happens to a word.
        rate: The probability that it happens.

    Raises:
        ValueError: Unknown kind.
    """
    match kind:
        case "none":
            return tokens, lengths
        case "mask":
            return drop_words(tokens, rate), lengths
        case "shuffle":
            return _shuffled(tokens, rate), lengths
        case "delete":
            return _without(tokens, lengths, _chosen(tokens, rate))
        case "blank":
            chosen = _chosen(tokens, rate)
            again = torch.zeros_like(chosen)
            again[:, 1:] = chosen[:, 1:] & chosen[:, :-1]
            return _without(tokens.masked_fill(chosen, UNK), lengths, again)
    raise ValueError(f"unknown noise {kind!r}: none, delete, mask, shuffle or blank")


def _is_word(tokens: Tensor) -> Tensor:
    return (tokens != BOS) & (tokens != EOS) & (tokens != PAD)


def _chosen(tokens: Tensor, rate: float) -> Tensor:
    """Choose words with probability ``rate``, but never all words of a sentence."""
    draws = torch.rand(tokens.shape, device=tokens.device).masked_fill(~_is_word(tokens), -1)
    last = draws == draws.amax(1, keepdim=True)  # the last to be chosen if the rate rose to 1
    return (draws < rate) & (draws >= 0) & ~last


def _without(tokens: Tensor, lengths: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
    """Remove tokens and move the others to the left."""
    order = removed.to(torch.uint8).argsort(dim=1, stable=True)
    left = (lengths - removed.sum(1)).to(lengths)
    column = torch.arange(tokens.size(1), device=tokens.device)
    return tokens.gather(1, order).masked_fill(column >= left[:, None], PAD), left


def _shuffled(tokens: Tensor, rate: float) -> Tensor:
    """Sort by position + U(0, REACH + 1) for chosen words: no word moves more than REACH."""
    draws = torch.rand(2, *tokens.shape, device=tokens.device)
    offset = (draws[0] < rate) * draws[1] * (REACH + 1)
    offset = offset.masked_fill(~_is_word(tokens), REACH + 1)  # after all words
    position = torch.arange(tokens.size(1), device=tokens.device)
    return tokens.gather(1, (position + offset).argsort(dim=1, stable=True))
