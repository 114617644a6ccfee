"""Matrix products on the CPU through oneDNN, in fp32 too.

Torch sends bf16 products to oneDNN, but fp32 products to the BLAS it was built with, which on some
processors reaches half of oneDNN's speed. ``product`` asks oneDNN for both; elsewhere (CUDA,
float64, a torch without oneDNN) it is an ordinary product. No function here is differentiable:
they serve the forward and backward passes of autograd functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Recurrence = Callable[[Tensor, Tensor], Tensor]


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products: autocast's where it is on, else the tensor's own."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and states beside products in ``dtype``: fp32 at least."""
    return torch.promote_types(dtype, torch.float32)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (M, K) times weight (N, K) transposed, plus bias (N,): (M, N)."""
    if x.dtype == torch.float32 and _has_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, _dense(weight), bias, "none", [], "")
    return F.linear(x, weight, bias)  # on the CPU, torch itself sends bf16 to oneDNN


def weight_gradient(d_outputs: Tensor, x: Tensor) -> Tensor:
    """d_outputs^T x, (N, K), for d_outputs (M, N) and x (M, K): summed over rows."""
    if x.dtype != torch.float32 or not _has_onednn(x):
        return d_outputs.t() @ x
    if d_outputs.is_contiguous():  # oneDNN copies a transposed first factor: take the smaller one
        return product(x.t(), d_outputs.t()).t().contiguous()
    return product(d_outputs.t(), x.t())


def recurrence(weight: Tensor, rows: int, steps: int) -> Recurrence:
    """The function (x (rows, K), added (rows, N)) -> x weight^T + added, made to be called
    ``steps`` times: when they are many, the weight (N, K) is first laid out as the kernel reads it.
    """
    if not _has_onednn(weight) or not rows:
        transposed = weight.t()
        return lambda x, added: torch.addmm(added, x, transposed)
    weight = _dense(weight)
    if steps > 15:
        weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    add = torch.ops.mkldnn._linear_pointwise.binary
    return lambda x, added: add(x, added, weight, None, "add")


def _dense(weight: Tensor) -> Tensor:
    """For a weight that is a slice of another, oneDNN falls back to code a hundred times slower."""
    return weight if weight.is_contiguous() or weight.t().is_contiguous() else weight.contiguous()


def _has_onednn(x: Tensor) -> bool:
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available() or not x.numel():
        return False
    match x.dtype:
        case torch.float32:
            return True
        case torch.bfloat16:
            return torch.ops.mkldnn._is_mkldnn_bf16_supported()
        case _:
            return False
