"""log p(x_t | x_<t, z) of every token of a text, from the stepper of any decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from textvae.text.tokenizers import PAD


def token_log_probs(stepper: Any, tokens: Tensor) -> Tensor:
    """Read texts token by token, and return what the stepper predicts for each token.

    Args:
        stepper: A new ``textvae.vae.contracts.Stepper`` of N texts.
        tokens: (N, T+1), ``<s> x_1 ... x_T``, padded.

    Returns:
        (N, T) nats, 0 for padding. The sum of a row is log p(x|z).

    Raises:
        ValueError: The stepper does not return logits.
    """
    found = []
    for inputs, targets in zip(tokens.t()[:-1], tokens.t()[1:], strict=True):
        log_p = step(stepper, inputs).log_softmax(-1).gather(1, targets[:, None])[:, 0]
        found.append(log_p.where(targets != PAD, 0.0))
    return torch.stack(found, 1)


def step(stepper: Any, tokens: Tensor) -> Tensor:
    """Return a copy of the logits (N, V) of one step, since generation overwrites them.

    Raises:
        ValueError: They have another shape.
    """
    logits = stepper.step(tokens)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(tokens):
        shown = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the stepper's step must return logits (N, V) of {len(tokens)} sentences, not {shown}"
        )
    return logits.float().clone()
