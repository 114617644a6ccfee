"""Whether the two halves of a decoder agree: ``log_prob``, which is trained, and its stepper.

The chain rule is log p(x|z) = sum_t log p(x_t | x_<t, z). A stepper has read nothing but x_<t. If
``log_prob`` also sees x_t or later tokens, as without a causal mask, it is not a likelihood, every
bound computed from it is too high, and the stepper generates bad sentences.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from textvae.text.decode.token_log_probs import step, token_log_probs
from textvae.vae.batch import Batch
from textvae.vae.vae import check_shape

# The share of log p, and of 100 nats, that may differ. Before training, a leak changes log p by
# only a thousandth of it; rounding in fp32, by less than a millionth.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.05}


@torch.no_grad()
def check_stepper(decoder: Any, batch: Batch, z: Tensor) -> None:
    """Check that a text decoder's ``log_prob`` is what its stepper predicts, token by token.

    The stepper must also stay what it is when sentences leave (``keep``), or when beams continue
    from others (``move``).

    Args:
        decoder: A decoder with ``log_prob`` and ``stepper``, in evaluation mode.
        batch: B sentences.
        z: (B, Z).

    Raises:
        ValueError: They differ, or the stepper lacks a part of its contract.

    Example:
        >>> check_stepper(model.eval().decoder, batch, model.prior.sample(len(batch)))
    """
    scored = decoder.log_prob(batch, z[None])  # (1, B)
    check_shape("log_prob", scored, z[None])
    scored = scored[0]
    if not scored.isfinite().all():
        raise ValueError("the decoder's log_prob is not finite before any training")
    if (scored > 0).any():
        raise ValueError("the decoder's log_prob is positive: that of a text is at most 0")
    stepped = token_log_probs(_stepper(decoder, batch, z), batch.x).sum(1)
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
    _check_rows(decoder, batch, z, max(TOLERANCE.get(dtype, 0.0) for dtype in least))


def _stepper(decoder: Any, batch: Batch, z: Tensor) -> Any:
    y = batch.condition
    stepper = decoder.stepper(z if y is None else decoder.with_condition(z, y))
    if missing := [name for name in ("size", "step", "keep", "move") if not hasattr(stepper, name)]:
        raise ValueError(f"the decoder's stepper has no {', no '.join(missing)}")
    return stepper


def _check_rows(decoder: Any, batch: Batch, z: Tensor, tolerance: float) -> None:
    """Check that ``keep`` and ``move`` take the state of the right sentences with them."""
    first, second = batch.x[:, 0], batch.x[:, 1]
    whole = _stepper(decoder, batch, z)
    step(whole, first)
    expected = step(whole, second)  # (B, V)
    rows = torch.arange(len(z) - 1, -1, -2, device=z.device)
    kept = _stepper(decoder, batch, z)
    step(kept, first)
    kept.keep(rows)
    if kept.size != len(rows):
        raise ValueError(f"the stepper has size {kept.size} after keep of {len(rows)} sentences")
    if not _close(step(kept, second[rows]), expected[rows], tolerance):
        raise ValueError("the stepper's keep does not keep the state and the z of these sentences")
    twice = torch.arange(len(z), device=z.device).repeat(2)  # two beams for every z
    beams = _stepper(decoder, _rows(batch, twice), z[twice])
    step(beams, torch.cat([first, second]))
    beams.move(twice)  # both continue from the first beam
    if not _close(step(beams, second[twice]), expected[twice], tolerance):
        raise ValueError("the stepper's move does not give sentence i the state of rows[i]")


def _rows(batch: Batch, rows: Tensor) -> Batch:
    y = batch.condition
    return Batch(batch.x[rows], condition=None if y is None else y[rows])


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool(((found - expected).abs() <= tolerance * (100 + expected.abs())).all())
