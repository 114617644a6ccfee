"""A faster LSTM: everything that does not have to be computed step by step is outside the loop.

In the backward pass, dh_{t-1} = W_hh^T da_t; the rest of a step is in ``cell``, in both directions.
Only ``W_hh h`` and ``W_hh^T da`` have to be computed step by step. Everything else is moved out of
the loop: one product for the inputs of all steps before it, and one for each weight gradient and
for the input gradients after it. ``W_z z + b`` is computed once, and its gradients come from the
sum of da over time. Sequences that read the same inputs with different z, such as several draws
from the posterior of one sentence, share the input products.

Matrix products run in the autocast dtype when autocast is on; the cell state and the gate
arithmetic stay in fp32. Of the gates, only the products a_t are saved: activating them again in the
backward pass is cheaper than storing four fp32 numbers per entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from textvae.text.nn import cell
from textvae.text.nn.double_backward import graph_is_needed, plain_gradients
from textvae.text.nn.plain_lstm import plain_lstm
from textvae.text.nn.products import product, recurrence, state_dtype, weight_gradient


class FusedLSTM(torch.autograd.Function):
    """The loop written by hand; K = N / B sequences read the same inputs."""

    @staticmethod
    def forward(ctx, inputs, weight_ih, weight_hh, bias, h0, c0, latent, weight_latent, dtype):
        """Run the layer; the arguments are those of ``recurrence.lstm``, and the product dtype."""
        x = inputs.to(dtype)  # (T, B, I)
        from_outside = _from_outside(x, weight_ih, bias, latent, weight_latent, len(h0))
        keep = any(ctx.needs_input_grad)
        h, c, gates = _run_forward(from_outside, weight_hh.to(dtype), h0, c0, keep)
        arguments = (inputs, weight_ih, weight_hh, bias, h0, c0, latent, weight_latent)
        ctx.save_for_backward(x, h, c, *arguments, *gates)
        return h[1:], h[-1].clone(), c[-1].clone()

    @staticmethod
    def backward(ctx, *grads_of_results):
        """Return the gradients of what ``forward`` was given, computing only those needed."""
        grad_outputs, grad_h, grad_c = grads_of_results
        x, h, c, *rest = ctx.saved_tensors
        arguments, gates = rest[:8], rest[8:]
        _, weight_ih, weight_hh, _, _, _, latent, weight_latent = arguments
        need, dtype = ctx.needs_input_grad[:8], x.dtype
        if graph_is_needed():
            upstream = (grad_outputs, grad_h, grad_c)
            return *plain_gradients(plain_lstm, arguments, need, upstream, dtype), None
        d_gates, total, d_h0, d_c0 = _run_backward(
            gates, c, weight_hh.to(dtype), grad_outputs, grad_h, grad_c
        )
        grads: list[Any] = [None, None, None, None, d_h0, d_c0, None, None]
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
    if latent is None or weight_latent is None:
        gates = product(x.flatten(0, 1), w_ih, b).view(steps, 1, batch, -1)
        return gates.expand(-1, rows // batch, -1, -1).reshape(steps, rows, -1)
    static = product(latent.to(x.dtype), weight_latent.to(x.dtype), b)  # (N, 4H)
    gates = product(x.flatten(0, 1), w_ih).view(steps, 1, batch, -1)
    return (gates + static.view(-1, batch, static.size(1))).view(steps, rows, -1)


def _sum_over_draws(d_gates: Tensor, batch: int) -> Tensor:
    """(T, N, 4H) -> (T, B, 4H): summed over the rows that read the same input."""
    steps, rows, width = d_gates.shape
    return d_gates if rows == batch else d_gates.view(steps, -1, batch, width).sum(1)


def _run_forward(
    from_outside: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor, keep: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The loop of the forward pass.

    Returns:
        h and c of steps 0..T, (T + 1, N, H) each, and for steps 1..T the gates before activation,
        (N, 4H) each. Without ``keep`` there are no gates, and all steps of c share one piece of
        memory, which ends up holding the last step.
    """
    (steps, rows, width), wide = from_outside.shape, state_dtype(from_outside.dtype)
    h = from_outside.new_empty(steps + 1, rows, width // 4)
    c = from_outside.new_empty(steps + 1 if keep else 1, rows, width // 4, dtype=wide)
    c = c.expand(steps + 1, -1, -1)
    h[0], c[0] = h0, c0
    plus_recurrent = recurrence(w_hh, rows, steps)
    hidden, state, kept = h.unbind(), c.unbind(), []
    for t, added in enumerate(from_outside.unbind()):  # hidden[t], state[t]: before step t
        gates = plus_recurrent(hidden[t], added)
        cell.forward(gates, state[t], state[t + 1], hidden[t + 1])
        if keep:
            kept.append(gates)
    return h, c, kept


def _run_backward(
    gates: Sequence[Tensor],
    c: Tensor,
    w_hh: Tensor,
    grad_outputs: Tensor,
    grad_h: Tensor,
    grad_c: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loop of the backward pass.

    Returns:
        The gradients of the gates before activation (T, N, 4H), their sum over time (N, 4H) in
        fp32, and the gradients of h0 and c0, (N, H) each.
    """
    steps, rows, size = grad_outputs.shape
    above = grad_outputs.to(w_hh.dtype).contiguous().unbind()
    d_gates, total = w_hh.new_empty(steps, rows, 4 * size), c.new_zeros(rows, 4 * size)
    dh = (grad_h.to(w_hh.dtype) + above[-1]).contiguous()
    dc = grad_c.to(c.dtype, copy=True).contiguous()
    above = (torch.zeros_like(above[0]), *above)  # above[t] is the gradient of h before step t
    plus_recurrent = recurrence(w_hh.t(), rows, steps)
    state, d_gate = c.unbind(), d_gates.unbind()
    for t in reversed(range(steps)):
        cell.backward(gates[t], state[t], state[t + 1], dh, dc, d_gate[t], total)
        dh = plus_recurrent(d_gate[t], above[t])
    return d_gates, total, dh, dc
