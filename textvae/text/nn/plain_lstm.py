"""The equations of an LSTM as they are written: the reference for the faster implementations."""

from __future__ import annotations

import torch
from torch import Tensor

Result = tuple[Tensor, Tensor, Tensor]


def plain_lstm(
    inputs: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    latent: Tensor | None,
    weight_latent: Tensor | None,
) -> Result:
    """Run an LSTM layer over all time steps; the arguments are those of ``recurrence.lstm``."""
    static = bias  # (4H,)
    if latent is not None and weight_latent is not None:
        static = bias + latent @ weight_latent.t()  # (N, 4H)
    h, c, outputs = h0, c0, []
    for x in by_row(inputs, h0):
        gates = x @ weight_ih.t() + h @ weight_hh.t() + static  # (B, 4H)
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # (B, H)
        h = o.sigmoid() * c.tanh()  # (B, H)
        outputs.append(h)
    return torch.stack(outputs), h, c


def by_row(inputs: Tensor, h0: Tensor) -> Tensor:
    """Repeat the inputs (T, B, I) to match the rows of the state (N, H): (T, N, I)."""
    return inputs.repeat(1, len(h0) // inputs.size(1), 1)
