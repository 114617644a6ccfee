"""Matrix products with oneDNN on the CPU, in fp32 as well as bf16.

Torch uses oneDNN for bf16 products, but for fp32 products it uses the BLAS it was built with, which
is half as fast on some processors. ``product`` uses oneDNN for both. In all other cases (CUDA,
float64, torch without oneDNN) it is an ordinary product. The functions here are not differentiable:
they are used in the forward and backward passes of autograd functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Recurrence = Callable[[Tensor, Tensor], Tensor]


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products: the autocast dtype if autocast is on, else that of x."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and states that go with products in ``dtype``: at least fp32."""
    return torch.promote_types(dtype, torch.float32)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x weight^T + bias, (M, N), for x (M, K), weight (N, K) and bias (N,)."""
    if x.dtype == torch.float32 and _has_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, _dense(weight), bias, "none", [], "")
    return F.linear(x, weight, bias)  # on the CPU, torch uses oneDNN for bf16


def prepared(weight: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    """Prepare ``product`` for a weight that several x of about as many rows are multiplied with.

    Args:
        weight: (N, K); it is reordered once instead of for every product.
        rows: Usual number of rows of x.
    """
    if not _has_onednn(weight) or not rows:
        return lambda x: product(x, weight)
    packed = torch.ops.mkldnn._reorder_linear_weight(_dense(weight), rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def weight_gradient(d_outputs: Tensor, x: Tensor) -> Tensor:
    """Compute d_outputs^T x, (N, K), for d_outputs (M, N) and x (M, K)."""
    if x.dtype != torch.float32 or not _has_onednn(x):
        return d_outputs.t() @ x
    if d_outputs.is_contiguous():
        # oneDNN copies a transposed first factor: make it the smaller one.
        return product(x.t(), d_outputs.t()).t().contiguous()
    return product(d_outputs.t(), x.t())


def recurrence(weight: Tensor, rows: int, steps: int) -> Recurrence:
    """Prepare a product that is computed many times with the same weight.

    Args:
        weight: (N, K); if there are many steps, it is first reordered for the kernel.
        rows: Number of rows of x.
        steps: Number of times that the product is computed.

    Returns:
        The function (x (rows, K), added (rows, N)) -> x weight^T + added.
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
    """Copy a weight that is a slice of another: oneDNN would be a hundred times slower."""
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
