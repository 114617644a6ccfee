"""The elementwise part of one LSTM time step, forward and backward.

From the four gates before activation, a = (a^i, a^f, a^g, a^o), and the previous c:

    i, f, o = sigmoid(a^i), sigmoid(a^f), sigmoid(a^o);   g = tanh(a^g)
    c = f * before + i * g;                               h = o * tanh(c)

Backward, with dh = dL/dh, and dc the part of dL/dc that comes from later steps:

    dc += dh * o * (1 - tanh(c)^2);                       d_before = dc * f
    da = (dc g, dc before, dc i, dh tanh(c)) * derivative of each gate

This runs in C if the kernels could be compiled, otherwise in torch. Both use
tanh(a) = 2 sigmoid(2a) - 1: sigmoid is much faster than tanh, and the result is as accurate as the
sums of fp32 products that it is applied to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from textvae.text.nn import kernels

sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward = torch.ops.aten.tanh_backward.grad_input


def forward(gates: Tensor, before: Tensor, c: Tensor, h: Tensor) -> None:
    """Write c and h, (N, H) each; ``c`` may be ``before``."""
    if kernels.available_for(gates):
        kernels.lstm_forward(gates, before, c, h)
        return
    i, f, g, o = _activated(gates, c.dtype).chunk(4, dim=1)
    torch.mul(f, before, out=c).addcmul_(i, g)
    h.copy_(o * _tanh(c))


def backward(
    gates: Tensor,
    before: Tensor,
    c: Tensor,
    dh: Tensor,
    dc: Tensor,
    d_gates: Tensor,
    total: Tensor,
) -> None:
    """Write d_gates (N, 4H), add them to ``total`` in fp32, and turn dc into d_before."""
    if kernels.available_for(gates):
        kernels.lstm_backward(gates, before, c, dh, dc, d_gates, total)
        return
    i, f, g, o = _activated(gates, c.dtype).chunk(4, dim=1)
    wide, dh, squashed = torch.empty_like(total), dh.to(c.dtype), _tanh(c)
    d_i, d_f, d_g, d_o = wide.chunk(4, dim=1)
    dc += tanh_backward(torch.mul(dh, o, out=d_o), squashed, grad_input=d_o)
    sigmoid_backward(torch.mul(dc, g, out=d_i), i, grad_input=d_i)
    sigmoid_backward(torch.mul(dc, before, out=d_f), f, grad_input=d_f)
    sigmoid_backward(torch.mul(dh, squashed, out=d_o), o, grad_input=d_o)
    tanh_backward(torch.mul(dc, i, out=d_g), g, grad_input=d_g)
    total += wide
    dc *= f
    d_gates.copy_(wide)


def _activated(gates: Tensor, dtype: torch.dtype) -> Tensor:
    """i, f, g, o side by side, (N, 4H), with a single sigmoid for all."""
    active = gates.to(dtype, copy=True)
    g = active.chunk(4, dim=1)[2]
    g.mul_(2)
    active.sigmoid_()
    g.mul_(2).sub_(1)
    return active


def _tanh(x: Tensor) -> Tensor:
    return torch.sigmoid(2 * x).mul_(2).sub_(1)
