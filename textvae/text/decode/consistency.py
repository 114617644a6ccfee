"""Whether the two halves of a decoder agree: ``log_prob``, which is trained, and its stepper.

The chain rule is log p(x|z) = sum_t log p(x_t | x_<t, z). A stepper has read nothing but x_<t. If
``log_prob`` also sees x_t or later tokens, as without a causal mask, it is no likelihood, every
bound computed from it is too high, and the sentences that the stepper generates are bad.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from textvae.text.tokenizers import PAD
from textvae.vae.batch import Batch

TOLERANCE = 0.05  # nats, and the same share of log p: more than rounding in half precision


@torch.no_grad()
def check_stepper(decoder: Any, batch: Batch, z: Tensor) -> None:
    """Check that a text decoder's ``log_prob`` is what its stepper predicts, token by token.

    Args:
        decoder: Has ``log_prob`` and ``stepper``, and does not drop out anything now.
        batch: B sentences.
        z: (B, Z).

    Raises:
        ValueError: They differ.

    Example:
        >>> check_stepper(model.eval().decoder, batch, model.prior.sample(len(batch)))
    """
    scored = decoder.log_prob(batch, z[None])[0].float()  # (B,)
    stepped = _log_prob_by_steps(decoder, batch, z)
    wrong = (scored - stepped).abs() > TOLERANCE * (1 + scored.abs())
    if wrong.any():
        row = int(wrong.int().argmax())
        raise ValueError(
            f"the decoder's log_prob of a sentence is {float(scored[row]):.2f} nats, but its "
            f"stepper, which only knows the words before each word, gives it "
            f"{float(stepped[row]):.2f}: does log_prob see the words that it predicts (a missing "
            "causal mask), or does the stepper lose z or the words before?"
        )


def _log_prob_by_steps(decoder: Any, batch: Batch, z: Tensor) -> Tensor:
    """Sum what the stepper predicts for the tokens of each sentence, (B,) nats."""
    y = batch.condition
    stepper = decoder.stepper(z if y is None else decoder.with_condition(z, y))
    total = torch.zeros(len(batch), device=z.device)
    for inputs, targets in zip(batch.x.t()[:-1], batch.x.t()[1:], strict=True):
        log_p = stepper.step(inputs).float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
        total += log_p.where(targets != PAD, 0.0)
    return total
