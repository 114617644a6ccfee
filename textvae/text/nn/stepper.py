"""The decoder one word at a time, for inference.

The same equations as in training. What does not change from step to step is computed once: the
part of z in the gates of every layer, W_z z + b, and in the logits of the softmax; the weights in
the precision that autocast asks for. Dropout plays no part.

Matrix products of one row and of several run through different kernels and differ in their last
bits. From two rows on (oneDNN) or five (MKL), in fp32 as in bf16, a row's result was found to be
its own on CPUs, so rows are padded to a multiple of ``ROWS``: that is what makes a sentence
independent of the batch it is decoded in. For one sentence alone it costs up to twice the time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from textvae.text.nn.lstm import LSTMDecoder
from textvae.text.nn.products import product, product_dtype

ROWS = 8


class Stepper:
    """N sentences being decoded side by side."""

    def __init__(self, decoder: LSTMDecoder, z: Tensor) -> None:
        self.size = len(z)
        z = z[_padded(torch.arange(len(z), device=z.device))]  # (N', Z), N' a multiple of ROWS
        self._dtype = product_dtype(z)
        self._embedding = decoder.embedding.weight
        self._layers = [
            (layer.weight_ih.to(self._dtype), layer.weight_hh.to(self._dtype))
            for layer in decoder.layers
        ]
        self._output = decoder.output.weight.to(self._dtype)
        with torch.autocast(z.device.type, enabled=False):
            state = decoder.initial_state(z)
            self._gates = [_static(z, layer.bias, layer.weight_latent) for layer in decoder.layers]
            self._logits = _static(z, decoder.output.bias, decoder.output_latent)  # (N', V)
        self._h = [h for h, _ in state.layers]  # (N', H) by layer
        self._c = [c for _, c in state.layers]

    def step(self, tokens: Tensor) -> Tensor:
        """Reads tokens (N,); returns the logits (N, V) of the words after them, in fp32."""
        with torch.autocast(tokens.device.type, enabled=False):
            x = F.embedding(_padded(tokens), self._embedding)  # (N', E)
            for layer in range(len(self._layers)):
                x = self._advance(layer, x)
            logits = product(x.to(self._dtype), self._output).float()  # (N', V)
            if self._logits is not None:
                logits += self._logits
        return logits[: self.size]

    def _advance(self, layer: int, x: Tensor) -> Tensor:
        inward, recurrent = self._layers[layer]
        gates = product(x.to(self._dtype), inward) + self._gates[layer]  # (N', 4H)
        gates += product(self._h[layer].to(self._dtype), recurrent)
        i, f, g, o = gates.chunk(4, dim=1)  # (N', H) each
        c = f.sigmoid() * self._c[layer] + i.sigmoid() * g.tanh()
        self._c[layer], self._h[layer] = c, o.sigmoid() * c.tanh()
        return self._h[layer]

    def keep(self, rows: Tensor) -> None:
        """Goes on with some of the sentences, in that order."""
        self.size, rows = len(rows), _padded(rows)
        self._reorder(rows)
        self._gates = [_select(static, rows) for static in self._gates]
        self._logits = None if self._logits is None else _select(self._logits, rows)

    def move(self, rows: Tensor) -> None:
        """Gives every row the state of another row with the same z: beams move this way."""
        self._reorder(_padded(rows))

    def _reorder(self, rows: Tensor) -> None:
        self._h = [h[rows] for h in self._h]
        self._c = [c[rows] for c in self._c]


def _padded(rows: Tensor) -> Tensor:
    """(N,) -> (N',): the first entry repeated up to a multiple of ROWS."""
    missing = -len(rows) % ROWS
    return torch.cat([rows, rows[:1].expand(missing)]) if missing else rows


def _static(z: Tensor, bias: Tensor | None, weight: Tensor | None) -> Tensor | None:
    """What z and the bias add at every step: (N', F); (1, F) where z plays no part."""
    if weight is None:
        return None if bias is None else bias[None]
    return z @ weight.t() if bias is None else torch.addmm(bias, z, weight.t())


def _select(static: Tensor, rows: Tensor) -> Tensor:
    return static if len(static) == 1 else static[rows]
