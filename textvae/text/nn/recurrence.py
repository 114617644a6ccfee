"""One LSTM layer over time, with a latent vector as a constant extra input.

For every time step t, with z the latent of the sentence (absent in an encoder):

    a_t = W_ih x_t + W_z z + W_hh h_{t-1} + b          the four gates, rows in the order i, f, g, o
    i, f, o = sigmoid(a^i), sigmoid(a^f), sigmoid(a^o);   g = tanh(a^g)
    c_t = f * c_{t-1} + i * g;                            h_t = o * tanh(c_t)

The order of the rows is that of ``nn.LSTM``, so weights move freely between the two. Backwards,
dh_{t-1} = W_hh^T da_t; ``cell`` has the rest of a step, in both directions.

Only ``W_hh h`` and ``W_hh^T da`` must be done step by step. The fused implementation therefore
takes everything else out of the loop: one product for the inputs of all steps before it, one for
each weight gradient and one for the input gradients after it. ``W_z z + b`` is computed once, and
its gradients come from the sum of da over time. Sequences that read the same inputs with another
z, as draws from one sentence's posterior do, share the inputs' products.

Matrix products run in the autocast dtype when autocast is on; the cell state and the gates'
arithmetic stay in fp32. What products gave, a_t, is all that is kept of the gates: to activate them
again in the backward pass costs less than memory for four fp32 numbers an entry.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from textvae.text.nn import cell
from textvae.text.nn.double_backward import graph_is_wanted, plain_gradients
from textvae.text.nn.products import (
    product,
    product_dtype,
    recurrence,
    state_dtype,
    weight_gradient,
)

Implementation = Literal["auto", "plain", "fused", "library"]
Result = tuple[Tensor, Tensor, Tensor]

SMALL = 2**14  # entries of h: below, a step on a CPU is over sooner than a loop in Python turns


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
    """Outputs (T, N, H) and the last h and c (N, H) for inputs (T, B, I) and h0, c0 (N, H).

    Args:
        inputs: N is B, or a multiple of it: row n then reads the inputs of row n mod B.
        weight_ih: (4H, I); ``weight_hh``: (4H, H); ``bias``: (4H,), the sum of nn.LSTM's two.
        latent: (N, Z), seen at every time step through ``weight_latent`` (4H, Z).
        implementation: all three are differentiable more than once, except ``library`` on CUDA;
            ``auto`` takes the one that is quickest there for such sizes.
    """
    if (latent is None) != (weight_latent is None):
        raise ValueError("latent and weight_latent come together")
    if implementation == "auto":
        implementation = _quickest(inputs, h0)
    arguments = (inputs, weight_ih, weight_hh, bias, h0, c0, latent, weight_latent)
    if not torch.is_grad_enabled():  # the fused one would not notice, and keep every step
        arguments = tuple(a if a is None else a.detach() for a in arguments)
    match implementation:
        case "plain":
            return _plain(*arguments)
        case "fused":
            return _FusedLSTM.apply(*arguments, product_dtype(inputs))
        case "library":
            return _library(*arguments)
        case _:
            raise ValueError(f"unknown LSTM implementation: {implementation}")


def _quickest(inputs: Tensor, h0: Tensor) -> Implementation:
    if inputs.device.type == "cuda":
        return "library"
    short = h0.numel() < SMALL and inputs.dtype != torch.float64
    return "library" if short and inputs.size(1) == len(h0) else "fused"


def _plain(
    inputs: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    latent: Tensor | None,
    weight_latent: Tensor | None,
) -> Result:
    """The equations as they stand; the reference for the other implementations."""
    static = bias if latent is None else bias + latent @ weight_latent.t()  # (4H,) or (B, 4H)
    h, c, outputs = h0, c0, []
    for x in _by_row(inputs, h0):
        gates = x @ weight_ih.t() + h @ weight_hh.t() + static  # (B, 4H)
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # (B, H)
        h = o.sigmoid() * c.tanh()  # (B, H)
        outputs.append(h)
    return torch.stack(outputs), h, c


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
    """Torch's own LSTM kernel (cuDNN, oneDNN), the latent written beside every input."""
    dtype, inputs = product_dtype(inputs), _by_row(inputs, h0)
    if latent is not None:
        beside = latent.to(inputs.dtype).expand(inputs.size(0), -1, -1)  # (T, B, Z)
        inputs = torch.cat([inputs, beside], dim=2)
        weight_ih = torch.cat([weight_ih, weight_latent], dim=1)  # (4H, I + Z)
    weights = [weight_ih, weight_hh, bias, torch.zeros_like(bias)]
    weights = [weight.to(dtype) for weight in weights]
    state = (h0.to(dtype)[None], c0.to(dtype)[None])
    outputs, h, c = torch._VF.lstm(
        inputs.to(dtype), state, weights, True, 1, 0.0, torch.is_grad_enabled(), False, False
    )
    return outputs, h[0], c[0]


def _by_row(inputs: Tensor, h0: Tensor) -> Tensor:
    """(T, B, I) -> (T, N, I): the inputs again for every row of the state (N, H)."""
    return inputs.repeat(1, len(h0) // inputs.size(1), 1)


class _FusedLSTM(torch.autograd.Function):
    """The loop by hand; K = N / B sequences read the same inputs."""

    @staticmethod
    def forward(ctx, inputs, weight_ih, weight_hh, bias, h0, c0, latent, weight_latent, dtype):
        x = inputs.to(dtype)  # (T, B, I)
        from_outside = _from_outside(x, weight_ih, bias, latent, weight_latent, len(h0))
        keep = any(ctx.needs_input_grad)
        h, c, gates = _run_forward(from_outside, weight_hh.to(dtype), h0, c0, keep)
        arguments = (inputs, weight_ih, weight_hh, bias, h0, c0, latent, weight_latent)
        ctx.save_for_backward(x, h, c, *arguments, *gates)
        return h[1:], h[-1].clone(), c[-1].clone()

    @staticmethod
    def backward(ctx, grad_outputs, grad_h, grad_c):
        x, h, c, *rest = ctx.saved_tensors
        arguments, gates = rest[:8], rest[8:]
        _, weight_ih, weight_hh, _, _, _, latent, weight_latent = arguments
        need, dtype = ctx.needs_input_grad[:8], x.dtype
        if graph_is_wanted():
            upstream = (grad_outputs, grad_h, grad_c)
            return *plain_gradients(_plain, arguments, need, upstream, dtype), None
        d_gates, total, d_h0, d_c0 = _run_backward(
            gates, c, weight_hh.to(dtype), grad_outputs, grad_h, grad_c
        )
        grads = [None, None, None, None, d_h0, d_c0, None, None]
        if need[0] or need[1]:
            shared = _sum_over_draws(d_gates, x.size(1)).flatten(0, 1)  # (T * B, 4H)
        if need[0]:
            grads[0] = product(shared, weight_ih.to(dtype).t()).view_as(x)
        if need[1]:
            grads[1] = weight_gradient(shared, x.flatten(0, 1))
        if need[2]:
            grads[2] = weight_gradient(d_gates.flatten(0, 1), h[:-1].flatten(0, 1))
        if need[3]:
            grads[3] = total.sum(0)
        if need[6]:
            grads[6] = product(total, weight_latent.to(total.dtype).t())
        if need[7]:
            grads[7] = weight_gradient(total, latent.to(total.dtype))
        wanted = zip(grads, arguments, need, strict=True)
        return *(grad.to(given.dtype) if asked else None for grad, given, asked in wanted), None


def _from_outside(
    x: Tensor,
    weight_ih: Tensor,
    bias: Tensor,
    latent: Tensor | None,
    weight_latent: Tensor | None,
    rows: int,
) -> Tensor:
    """W_ih x + W_z z + b for every step, (T, N, 4H), in the dtype of x (T, B, I)."""
    steps, batch, _ = x.shape
    w_ih, b = weight_ih.to(x.dtype), bias.to(x.dtype)
    if latent is None:
        gates = product(x.flatten(0, 1), w_ih, b).view(steps, 1, batch, -1)
        return gates.expand(-1, rows // batch, -1, -1).reshape(steps, rows, -1)
    static = product(latent.to(x.dtype), weight_latent.to(x.dtype), b)  # (N, 4H)
    gates = product(x.flatten(0, 1), w_ih).view(steps, 1, batch, -1)
    return (gates + static.view(-1, batch, static.size(1))).view(steps, rows, -1)


def _sum_over_draws(d_gates: Tensor, batch: int) -> Tensor:
    """(T, N, 4H) -> (T, B, 4H): what the rows that share an input say together."""
    steps, rows, width = d_gates.shape
    return d_gates if rows == batch else d_gates.view(steps, -1, batch, width).sum(1)


def _run_forward(
    from_outside: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor, keep: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """h and c of steps 0..T, (T + 1, N, H); of steps 1..T the gates before activation (N, 4H).

    Without ``keep`` no gates, and all steps of c are one piece of memory: what stands there is the
    last step's.
    """
    (steps, rows, width), wide = from_outside.shape, state_dtype(from_outside.dtype)
    h = from_outside.new_empty(steps + 1, rows, width // 4)
    c = from_outside.new_empty(steps + 1 if keep else 1, rows, width // 4, dtype=wide)
    c = c.expand(steps + 1, -1, -1)
    h[0], c[0] = h0, c0
    plus_recurrent = recurrence(w_hh, rows, steps)
    hidden, state, kept = h.unbind(), c.unbind(), []
    for t, added in enumerate(from_outside.unbind()):  # hidden[t], state[t]: those before step t
        gates = plus_recurrent(hidden[t], added)
        cell.forward(gates, state[t], state[t + 1], hidden[t + 1])
        if keep:
            kept.append(gates)
    return h, c, kept


def _run_backward(
    gates: list[Tensor],
    c: Tensor,
    w_hh: Tensor,
    grad_outputs: Tensor,
    grad_h: Tensor,
    grad_c: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the gates before activation at every step (T, N, 4H), their sum over steps
    (N, 4H) in fp32, and the gradients of h0 and c0 (N, H)."""
    steps, rows, size = grad_outputs.shape
    above = grad_outputs.to(w_hh.dtype).contiguous().unbind()
    d_gates, total = w_hh.new_empty(steps, rows, 4 * size), c.new_zeros(rows, 4 * size)
    dh, dc = grad_h.to(w_hh.dtype) + above[-1], grad_c.to(c.dtype, copy=True).contiguous()
    above = (torch.zeros_like(above[0]), *above)  # above[t] is the gradient of h before step t
    plus_recurrent = recurrence(w_hh.t(), rows, steps)
    state, d_gate = c.unbind(), d_gates.unbind()
    for t in reversed(range(steps)):
        cell.backward(gates[t], state[t], state[t + 1], dh, dc, d_gate[t], total)
        dh = plus_recurrent(d_gate[t], above[t])
    return d_gates, total, dh, dc
