"""One LSTM layer over time, with a latent vector as a constant extra input.

For every time step t, with z the latent of the sentence (absent in an encoder):

    a_t = W_ih x_t + W_z z + W_hh h_{t-1} + b          the four gates, rows in the order i, f, g, o
    i, f, o = sigmoid(a^i), sigmoid(a^f), sigmoid(a^o);   g = tanh(a^g)
    c_t = f * c_{t-1} + i * g;                            h_t = o * tanh(c_t)

The row order matches ``nn.LSTM``, so weights can be copied between the two. There are three
implementations: the plain equations (``plain_lstm``), which are the reference; the fused one
(``fused_lstm``); and torch's own kernels.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from textvae.text.nn.fused_lstm import FusedLSTM
from textvae.text.nn.plain_lstm import Result, by_row, plain_lstm
from textvae.text.nn.products import product_dtype

Implementation = Literal["auto", "plain", "fused", "library"]

# The weights are cast for every call, so flatten_parameters() would not help.
warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")

SMALL = 2**14  # entries of h: below this, the Python loop costs more than a step's arithmetic


class LSTMLayer(nn.Module):
    """One LSTM layer that can see z at every time step.

    Args:
        input_dim: Size of the input at each time step.
        hidden_dim: Size of h and c.
        latent_dim: If above 0, z is added to the input of every time step.
    """

    def __init__(self, input_dim: int, hidden_dim: int, latent_dim: int = 0) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_dim, input_dim))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_dim, hidden_dim))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_dim))
        self.weight_latent = (
            nn.Parameter(torch.empty(4 * hidden_dim, latent_dim)) if latent_dim else None
        )
        for weight in self.parameters():
            nn.init.uniform_(weight, -(hidden_dim**-0.5), hidden_dim**-0.5)

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None, z: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the layer over all time steps.

        Args:
            inputs: (T, B, I).
            state: The initial h and c, (N, H) each; zeros by default. N is B or a multiple of it:
                row n reads the inputs of row n mod B.
            z: (N, Z); ignored if the layer has no latent weight.

        Returns:
            The outputs (T, N, H), and the last h and c, (N, H) each.
        """
        if state is None:
            zeros = inputs.new_zeros(inputs.size(1), self.hidden_dim)
            state = (zeros, zeros)
        weights = self.weight_ih, self.weight_hh, self.bias
        latent = None if self.weight_latent is None else z
        outputs, h, c = lstm(inputs, *weights, *state, latent, self.weight_latent)
        return outputs, (h, c)


def lstm(
    inputs: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    latent: Tensor | None = None,
    weight_latent: Tensor | None = None,
    implementation: Implementation = "auto",
) -> Result:
    """Run an LSTM layer over all time steps.

    Args:
        inputs: (T, B, I). N is B or a multiple of it: row n reads the inputs of row n mod B.
        weight_ih: (4H, I).
        weight_hh: (4H, H).
        bias: (4H,), the sum of the two biases of ``nn.LSTM``.
        h0: (N, H).
        c0: (N, H).
        latent: (N, Z), seen at every time step through ``weight_latent``.
        weight_latent: (4H, Z).
        implementation: ``auto`` picks the fastest for these sizes on this device. All can be
            differentiated more than once, except ``library`` on CUDA.

    Returns:
        The outputs (T, N, H), and the last h and the last c, (N, H) each.

    Raises:
        ValueError: If only one of ``latent`` and ``weight_latent`` is given, or the implementation
            is unknown.
    """
    if (latent is None) != (weight_latent is None):
        raise ValueError("latent and weight_latent must be given together")
    if implementation == "auto":
        implementation = _fastest(inputs, h0)
    arguments: tuple[Any, ...]
    arguments = (inputs, weight_ih, weight_hh, bias, h0, c0, latent, weight_latent)
    if not torch.is_grad_enabled():  # otherwise the fused one would save every step
        arguments = tuple(a if a is None else a.detach() for a in arguments)
    match implementation:
        case "plain":
            return plain_lstm(*arguments)
        case "fused":
            return FusedLSTM.apply(*arguments, product_dtype(inputs))
        case "library":
            return _library(*arguments)
        case _:
            raise ValueError(f"unknown LSTM implementation: {implementation}")


def _fastest(inputs: Tensor, h0: Tensor) -> Implementation:
    if inputs.device.type == "cuda":  # without cuDNN: for second derivatives
        return "library" if torch.backends.cudnn.enabled else "fused"
    short = h0.numel() < SMALL and inputs.dtype != torch.float64
    return "library" if short and inputs.size(1) == len(h0) else "fused"


def _library(
    inputs: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    latent: Tensor | None,
    weight_latent: Tensor | None,
) -> Result:
    """Torch's LSTM kernel (cuDNN, oneDNN), with the latent concatenated to every input."""
    dtype, inputs = product_dtype(inputs), by_row(inputs, h0)
    if latent is not None and weight_latent is not None:
        repeated = latent.to(inputs.dtype).expand(inputs.size(0), -1, -1)  # (T, B, Z)
        inputs = torch.cat([inputs, repeated], dim=2)
        weight_ih = torch.cat([weight_ih, weight_latent], dim=1)  # (4H, I + Z)
    weights = [weight_ih, weight_hh, bias, torch.zeros_like(bias)]
    weights = [weight.to(dtype) for weight in weights]
    state = (h0.to(dtype).contiguous()[None], c0.to(dtype).contiguous()[None])
    # Everything has its dtype already; under autocast, torch may cast to fp16 for cuDNN.
    with torch.autocast(inputs.device.type, enabled=False):
        # cuDNN can be differentiated only in training mode, whatever the mode of the model.
        training = torch.is_grad_enabled()
        outputs, h, c = torch._VF.lstm(
            inputs.to(dtype), state, weights, True, 1, 0.0, training, False, False
        )
    return outputs, h[0], c[0]
