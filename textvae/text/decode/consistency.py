"""Whether the two halves of a decoder agree: ``log_prob``, which is trained, and its stepper.

The chain rule is log p(x|z) = sum_t log p(x_t | x_<t, z). A stepper has read nothing but x_<t. If
``log_prob`` also sees x_t or later tokens, as without a causal mask, it is no likelihood, every
bound computed from it is too high, and the stepper generates bad sentences.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from textvae.text.tokenizers import PAD
from textvae.vae.batch import Batch

# The share of log p, and of 100 nats, that may differ. Before training, a leak changes log p by
# only a thousandth of it; rounding in fp32, by less than a millionth.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.05}


@torch.no_grad()
def check_stepper(decoder: Any, batch: Batch, z: Tensor) -> None:
    """Check that a text decoder's ``log_prob`` is what its stepper predicts, token by token.

    Args:
        decoder: A decoder with ``log_prob`` and ``stepper``, in evaluation mode.
        batch: B sentences.
        z: (B, Z).

    Raises:
        ValueError: They differ.

    Example:
        >>> check_stepper(model.eval().decoder, batch, model.prior.sample(len(batch)))
    """
    scored = decoder.log_prob(batch, z[None])[0]  # (B,)
    stepped = _log_prob_by_steps(decoder, batch, z)
    least = {parameter.dtype for parameter in decoder.parameters()} | {scored.dtype}
    tolerance = max(TOLERANCE.get(dtype, 0.0) for dtype in least) * (100 + stepped.abs())
    wrong = ~((scored - stepped).abs() <= tolerance)  # NaN is wrong, too
    if wrong.any():
        row = int(wrong.int().argmax())
        raise ValueError(
            f"the decoder's log_prob of a sentence is {float(scored[row]):.4f} nats, but its "
            f"stepper, which only knows the words before each word, gives it "
            f"{float(stepped[row]):.4f}: does log_prob see the words that it predicts (a missing "
            "causal mask), or does the stepper ignore z or forget earlier words?"
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
