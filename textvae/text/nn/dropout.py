"""Random masks for training: dropout, word dropout, and a random choice of time steps.

On a CPU, torch's dropout draws one float per entry, one after another, which took 2 to 4% of a
training step. Sixteen random bits are enough: one 64-bit draw serves four entries, at a probability
within 1 / 2^17 of the requested one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from textvae.text.tokenizers import BOS, EOS, PAD, UNK

LEVELS = 2**16


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Set entries of x to 0 with probability p and divide the others by 1 - p.

    Args:
        x: Of any shape.
        p: Probability of dropping an entry.
        training: If False, x is returned unchanged.

    Returns:
        A tensor like x, or x itself if there is nothing to drop.
    """
    if not training or p == 0:
        return x
    dropped = round(p * LEVELS)
    if x.device.type != "cpu" or dropped == LEVELS:
        return F.dropout(x, p)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    choices = words.view(torch.int16)[: x.numel()].view(x.shape)  # uniform in [-2^15, 2^15)
    kept = (choices >= dropped - LEVELS // 2).to(x.dtype)
    return x * kept.mul_(LEVELS / (LEVELS - dropped))


def drop_words(tokens: Tensor, p: float) -> Tensor:
    """Replace tokens by ``<unk>`` with probability p; ``<s>``, ``</s>`` and padding are kept."""
    dropped = torch.rand(tokens.shape, device=tokens.device) < p
    kept = (tokens == BOS) | (tokens == EOS) | (tokens == PAD)
    return tokens.masked_fill(dropped & ~kept, UNK)


def systematic_mask(steps: int, columns: int, share: float, device: torch.device) -> Tensor:
    """Choose time steps by systematic sampling.

    Each step is chosen with probability ``share``, and the chosen steps of a column are evenly
    spaced, so that their number varies by at most 1.

    Args:
        steps: T.
        columns: N, each with its own random offset.
        share: Expected fraction of the steps that are chosen, from 0 to 1.
        device: The device of the mask.

    Returns:
        A boolean mask (T, N).
    """
    edges = torch.arange(steps + 1, device=device)[:, None] * share  # (T+1, 1)
    marks = (edges + torch.rand(columns, device=device)).floor()
    return marks[1:] > marks[:-1]
