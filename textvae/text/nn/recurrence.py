"""One LSTM layer over time, with a latent vector as a constant extra input.

For every time step t, with z the latent of the sentence (absent in an encoder):

    a_t = W_ih x_t + W_z z + W_hh h_{t-1} + b          the four gates, rows in the order i, f, g, o
    i, f, o = sigmoid(a^i), sigmoid(a^f), sigmoid(a^o);   g = tanh(a^g)
    c_t = f * c_{t-1} + i * g;                            h_t = o * tanh(c_t)

The row order matches ``nn.LSTM``, so weights can be copied between the two. In the backward pass,
dh_{t-1} = W_hh^T da_t; the rest of a step is in ``cell``, in both directions.

Only ``W_hh h`` and ``W_hh^T da`` have to be computed step by step. The fused implementation
therefore moves everything else out of the loop: one product for the inputs of all steps before it,
and one for each weight gradient and for the input gradients after it. ``W_z z + b`` is computed
once, and its gradients come from the sum of da over time. Sequences that read the same inputs with
different z, such as several draws from the posterior of one sentence, share the input products.

Matrix products run in the autocast dtype when autocast is on; the cell state and the gate
arithmetic stay in fp32. Of the gates, only the products a_t are saved: activating them again in the
backward pass is cheaper than storing four fp32 numbers per entry.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from textvae.text.nn import cell
from textvae.text.nn.double_backward import graph_is_needed, plain_gradients
from textvae.text.nn.products import (
    product,
    product_dtype,
    recurrence,
    state_dtype,
    weight_gradient,
)

Implementation = Literal["auto", "plain", "fused", "library"]
Result = tuple[Tensor, Tensor, Tensor]

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
            return _plain(*arguments)
        case "fused":
            return _FusedLSTM.apply(*arguments, product_dtype(inputs))
        case "library":
            return _library(*arguments)
        case _:
            raise ValueError(f"unknown LSTM implementation: {implementation}")


def _fastest(inputs: Tensor, h0: Tensor) -> Implementation:
    if inputs.device.type == "cuda":  # without cuDNN: for second derivatives
        return "library" if torch.backends.cudnn.enabled else "fused"
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
    """The equations as written; the reference for the other implementations."""
    static = bias  # (4H,)
    if latent is not None and weight_latent is not None:
        static = bias + latent @ weight_latent.t()  # (N, 4H)
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
    """Torch's LSTM kernel (cuDNN, oneDNN), with the latent concatenated to every input."""
    dtype, inputs = product_dtype(inputs), _by_row(inputs, h0)
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


def _by_row(inputs: Tensor, h0: Tensor) -> Tensor:
    """(T, B, I) -> (T, N, I): the inputs repeated to match the rows of the state (N, H)."""
    return inputs.repeat(1, len(h0) // inputs.size(1), 1)


class _FusedLSTM(torch.autograd.Function):
    """The loop written by hand; K = N / B sequences read the same inputs."""

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
    def backward(ctx, *grads_of_results):
        """Return the gradients of what ``forward`` was given, computing only those needed."""
        grad_outputs, grad_h, grad_c = grads_of_results
        x, h, c, *rest = ctx.saved_tensors
        arguments, gates = rest[:8], rest[8:]
        _, weight_ih, weight_hh, _, _, _, latent, weight_latent = arguments
        need, dtype = ctx.needs_input_grad[:8], x.dtype
        if graph_is_needed():
            upstream = (grad_outputs, grad_h, grad_c)
            return *plain_gradients(_plain, arguments, need, upstream, dtype), None
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
    dh, dc = grad_h.to(w_hh.dtype) + above[-1], grad_c.to(c.dtype, copy=True).contiguous()
    above = (torch.zeros_like(above[0]), *above)  # above[t] is the gradient of h before step t
    plus_recurrent = recurrence(w_hh.t(), rows, steps)
    state, d_gate = c.unbind(), d_gates.unbind()
    for t in reversed(range(steps)):
        cell.backward(gates[t], state[t], state[t + 1], dh, dc, d_gate[t], total)
        dh = plus_recurrent(d_gate[t], above[t])
    return d_gates, total, dh, dc
