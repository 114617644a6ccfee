"""One LSTM layer over time, with a latent vector as a constant extra input.

For every time step t, with z the latent of the sentence (absent in an encoder):

    a_t = W_ih x_t + W_z z + W_hh h_{t-1} + b          the four gates, rows in the order i, f, g, o
    i, f, o = sigmoid(a^i), sigmoid(a^f), sigmoid(a^o);   g = tanh(a^g)
    c_t = f * c_{t-1} + i * g;                            h_t = o * tanh(c_t)

The order of the rows is that of ``nn.LSTM``, so weights move freely between the two. Backwards,
with dh_t = dL/dh_t and dc_t = dL/dc_t gathered from above and from step t + 1:

    dc_t += dh_t * o * (1 - tanh(c_t)^2);                 dc_{t-1} = dc_t * f
    da_t = (dc_t g, dc_t c_{t-1}, dc_t i, dh_t tanh(c_t)) * derivative of each gate
    dh_{t-1} = W_hh^T da_t

Only ``W_hh h`` and ``W_hh^T da`` must be done step by step. The fused implementation therefore
takes everything else out of the loop: one product for the inputs of all steps before it, one for
each weight gradient and one for the input gradients after it. Matrix products run in the autocast
dtype when autocast is on; the cell state, the gate arithmetic and the gradients stay in fp32.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Implementation = Literal["auto", "plain", "fused", "cudnn"]
Result = tuple[Tensor, Tensor, Tensor]


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
    """Outputs (T, B, H) and the last h and c (B, H) for inputs (T, B, I).

    Args:
        weight_ih: (4H, I); ``weight_hh``: (4H, H); ``bias``: (4H,), the sum of nn.LSTM's two.
        latent: (B, Z), seen at every time step through ``weight_latent`` (4H, Z).
        implementation: ``plain`` is differentiable any number of times, ``fused`` and ``cudnn``
            once; ``auto`` takes ``cudnn`` on CUDA and ``fused`` elsewhere.
    """
    if (latent is None) != (weight_latent is None):
        raise ValueError("latent and weight_latent come together")
    if implementation == "auto":
        implementation = "cudnn" if inputs.device.type == "cuda" else "fused"
    arguments = (inputs, weight_ih, weight_hh, bias, h0, c0, latent, weight_latent)
    match implementation:
        case "plain":
            return _plain(*arguments)
        case "fused":
            return _FusedLSTM.apply(*arguments, product_dtype(inputs))
        case "cudnn":
            return _library(*arguments)
        case _:
            raise ValueError(f"unknown LSTM implementation: {implementation}")


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products: autocast's where it is on, else the tensor's own."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _state_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


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
    for x in inputs:
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
    """Torch's own LSTM kernel (cuDNN on CUDA), the latent written beside every input."""
    dtype = product_dtype(inputs)
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


def _first_three_last(weight: Tensor) -> Tensor:
    """Gate rows i, f, g, o -> i, f, o, g: the three sigmoids become one block."""
    i, f, g, o = weight.chunk(4)
    return torch.cat([i, f, o, g])


def _beside(inputs: Tensor, latent: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(T * B, I), or (T * B, I + Z) with the latent beside every input, in ``dtype``."""
    x = inputs.to(dtype)
    if latent is not None:
        x = torch.cat([x, latent.to(dtype).expand(x.size(0), -1, -1)], dim=2)
    return x.flatten(0, 1)


class _FusedLSTM(torch.autograd.Function):
    """The loop by hand. Inside, gate rows stand in the order i, f, o, g."""

    @staticmethod
    def forward(ctx, inputs, weight_ih, weight_hh, bias, h0, c0, latent, weight_latent, dtype):
        steps, batch, _ = inputs.shape
        both = weight_ih if latent is None else torch.cat([weight_ih, weight_latent], dim=1)
        w_in = _first_three_last(both.to(dtype))  # (4H, I + Z)
        w_hh = _first_three_last(weight_hh.to(dtype))  # (4H, H)
        x = _beside(inputs, latent, dtype)
        gates = torch.addmm(_first_three_last(bias.to(dtype)), x, w_in.t())
        gates = gates.view(steps, batch, -1)  # (T, B, 4H)
        h, c, acts = _run_forward(gates, w_hh, h0, c0)
        ctx.save_for_backward(x, w_in, w_hh, h, c, acts)
        ctx.shapes = (inputs, weight_ih, bias, h0, c0, latent)
        ctx.dtypes = [None if a is None else a.dtype for a in ctx.shapes]
        ctx.shapes = [None if a is None else a.shape for a in ctx.shapes]
        return h[1:], h[-1].clone(), c[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_outputs, grad_h, grad_c):
        x, w_in, w_hh, h, c, acts = ctx.saved_tensors
        need = ctx.needs_input_grad
        steps, batch, size = h.size(0) - 1, h.size(1), ctx.shapes[0][2]
        grads, grad_h0, grad_c0 = _run_backward(acts, c, w_hh, grad_outputs, grad_h, grad_c)
        flat = grads.flatten(0, 1)  # (T * B, 4H)
        d_inputs = d_ih = d_hh = d_bias = d_latent = d_weight_latent = None
        if need[0]:
            d_inputs = (flat @ w_in[:, :size]).view(steps, batch, size).to(ctx.dtypes[0])
        if need[1] or need[7]:
            columns = x if need[1] and need[7] else x[:, :size] if need[1] else x[:, size:]
            product = _gates_in_order(flat.t() @ columns).to(ctx.dtypes[1])
            d_ih = product[:, :size] if need[1] else None
            d_weight_latent = product[:, product.size(1) - x.size(1) + size :] if need[7] else None
        if need[2]:
            d_hh = _gates_in_order(flat.t() @ h[:-1].flatten(0, 1)).to(ctx.dtypes[1])
        if need[3]:
            d_bias = _gates_in_order(flat.sum(0, dtype=_state_dtype(flat.dtype)))
            d_bias = d_bias.to(ctx.dtypes[2])
        if need[6]:
            summed = grads.sum(0, dtype=_state_dtype(flat.dtype))  # (B, 4H)
            d_latent = (summed @ w_in[:, size:].to(summed.dtype)).to(ctx.dtypes[5])
        d_h0 = grad_h0.to(ctx.dtypes[3]) if need[4] else None
        d_c0 = grad_c0.to(ctx.dtypes[4]) if need[5] else None
        return d_inputs, d_ih, d_hh, d_bias, d_h0, d_c0, d_latent, d_weight_latent, None


def _gates_in_order(grad: Tensor) -> Tensor:
    """Gate rows i, f, o, g -> i, f, g, o."""
    return _first_three_last(grad)


def _run_forward(gates: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor) -> Result:
    """h and c for steps 0..T, and every step's activated gates with tanh(c), (T, B, 5H)."""
    steps, batch, width = gates.shape
    size, wide = width // 4, _state_dtype(gates.dtype)
    h = gates.new_empty(steps + 1, batch, size)
    c = gates.new_empty(steps + 1, batch, size, dtype=wide)
    acts = gates.new_empty(steps, batch, 5 * size, dtype=wide)
    h[0], c[0] = h0, c0
    recurrent = w_hh.t()
    for step in range(steps):
        gates[step].addmm_(h[step], recurrent)
        act = acts[step]
        torch.sigmoid(act[:, : 3 * size].copy_(gates[step, :, : 3 * size]), out=act[:, : 3 * size])
        act[:, 3 * size : 4 * size].copy_(gates[step, :, 3 * size :]).tanh_()
        i, f, o, g, tanh_c = act.split(size, dim=1)
        torch.mul(f, c[step], out=c[step + 1]).addcmul_(i, g)
        torch.tanh(c[step + 1], out=tanh_c)
        h[step + 1] = o * tanh_c
    return h, c, acts


def _run_backward(
    acts: Tensor, c: Tensor, w_hh: Tensor, grad_outputs: Tensor, grad_h: Tensor, grad_c: Tensor
) -> Result:
    """The gradients of the gates before activation (T, B, 4H), of h0 and of c0 (B, H)."""
    steps, batch, size = grad_outputs.shape
    grads = torch.empty(steps, batch, 4 * size, dtype=w_hh.dtype, device=w_hh.device)
    scratch = acts.new_empty(batch, 4 * size)
    d_i, d_f, d_o, d_g = scratch.split(size, dim=1)
    dc = grad_c.to(acts.dtype, copy=True)
    dh = grad_h.to(acts.dtype) + grad_outputs[-1]
    for step in reversed(range(steps)):
        i, f, o, g, tanh_c = acts[step].split(size, dim=1)
        dc += torch.ops.aten.tanh_backward(dh * o, tanh_c)
        torch.mul(dc, g, out=d_i)
        torch.mul(dc, c[step], out=d_f)
        torch.mul(dh, tanh_c, out=d_o)
        torch.mul(dc, i, out=d_g)
        sigmoids = acts[step, :, : 3 * size]
        before = scratch[:, : 3 * size]
        torch.ops.aten.sigmoid_backward(before, sigmoids, grad_input=before)
        torch.ops.aten.tanh_backward(d_g, g, grad_input=d_g)
        grads[step] = scratch
        dc *= f
        dh = (grads[step] @ w_hh).to(acts.dtype)
        if step:
            dh += grad_outputs[step - 1]
    return grads, dh, dc
