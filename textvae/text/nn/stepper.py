"""The LSTM decoder, one word at a time, for generation.

The equations are the same as in training, without dropout. Everything that does not change from
step to step is computed once: the contribution of z to the gates of every layer, W_z z + b, and to
the logits of the softmax; and the weights in the autocast precision.

Matrix products with one row and with several rows use different kernels, whose results differ in
the last bits. From two rows on (oneDNN) or five (MKL), in fp32 and in bf16, the result of a row was
found not to depend on the other rows on CPUs, so rows are padded to a multiple of ``ROWS``. This
makes a sentence independent of the batch it is decoded in, but decoding a single sentence takes up
to twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from textvae.text.nn.products import product, product_dtype
from textvae.text.nn.recurrence import LSTMLayer

ROWS = 8
State = tuple[Tensor, Tensor]  # h and c, (N, H) each


class LSTMStepper:
    """N sentences being decoded in parallel; a ``textvae.vae.contracts.Stepper``.

    Args:
        z: (N, Z).
        embedding: (V, E).
        layers: The LSTM layers, from the bottom up.
        initial_state: z -> the state of each layer before the first word.
        output: (V, H), the weight of the softmax layer.
        output_bias: z -> the bias of the softmax layer: (V,), (N, V), or None.
    """

    def __init__(
        self,
        z: Tensor,
        *,
        embedding: Tensor,
        layers: Sequence[LSTMLayer],
        initial_state: Callable[[Tensor], Sequence[State]],
        output: Tensor,
        output_bias: Callable[[Tensor], Tensor | None],
    ) -> None:
        self.size = len(z)
        z = z[_padded(torch.arange(len(z), device=z.device))]  # (N', Z), N' a multiple of ROWS
        self._dtype = product_dtype(z)
        self._embedding = embedding
        self._layers = [
            (layer.weight_ih.to(self._dtype), layer.weight_hh.to(self._dtype)) for layer in layers
        ]
        self._output = output.to(self._dtype)
        with torch.autocast(z.device.type, enabled=False):
            states = initial_state(z)
            self._gates = [_static_gates(layer, z) for layer in layers]  # (N', 4H) or (1, 4H)
            bias = output_bias(z)
        self._logits = bias[None] if bias is not None and bias.dim() == 1 else bias  # (N', V)
        self._h = [h for h, _ in states]  # (N', H) for each layer
        self._c = [c for _, c in states]

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token per sentence, (N,); return the logits of the next one, (N, V), in fp32."""
        with torch.autocast(tokens.device.type, enabled=False):
            x = F.embedding(_padded(tokens), self._embedding)  # (N', E)
            for layer in range(len(self._layers)):
                x = self._advance(layer, x)
            logits = product(x.to(self._dtype), self._output).float()  # (N', V)
            if self._logits is not None:
                logits += self._logits
        return logits[: self.size]

    def _advance(self, layer: int, x: Tensor) -> Tensor:
        weight_ih, weight_hh = self._layers[layer]
        gates = product(x.to(self._dtype), weight_ih) + self._gates[layer]  # (N', 4H)
        gates += product(self._h[layer].to(self._dtype), weight_hh)
        i, f, g, o = gates.chunk(4, dim=1)  # (N', H) each
        c = f.sigmoid() * self._c[layer] + i.sigmoid() * g.tanh()
        self._c[layer], self._h[layer] = c, o.sigmoid() * c.tanh()
        return self._h[layer]

    def keep(self, rows: Tensor) -> None:
        """Continue with these sentences only, in this order."""
        self.size, rows = len(rows), _padded(rows)
        self._reorder(rows)
        self._gates = [_select(static, rows) for static in self._gates]
        self._logits = None if self._logits is None else _select(self._logits, rows)

    def move(self, rows: Tensor) -> None:
        """Give every sentence the state of sentence ``rows[i]``, which has the same z."""
        self._reorder(_padded(rows))

    def _reorder(self, rows: Tensor) -> None:
        self._h = [h[rows] for h in self._h]
        self._c = [c[rows] for c in self._c]


def _padded(rows: Tensor) -> Tensor:
    """(N,) -> (N',): the first entry repeated up to a multiple of ROWS."""
    missing = -len(rows) % ROWS
    return torch.cat([rows, rows[:1].expand(missing)]) if missing else rows


def _static_gates(layer: LSTMLayer, z: Tensor) -> Tensor:
    """What z and the bias add to the gates at every step."""
    if layer.weight_latent is None:
        return layer.bias[None]
    return torch.addmm(layer.bias, z, layer.weight_latent.t())


def _select(static: Tensor, rows: Tensor) -> Tensor:
    return static if len(static) == 1 else static[rows]
