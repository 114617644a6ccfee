"""Gradients of gradients, for functions whose hand-written backward pass is not differentiable.

The fused LSTM and the chunked softmax compute their gradients by hand. When autograd asks for a
graph of these gradients (``create_graph=True``: exact Hessian-vector products), their backward pass
switches to the plain equations, which autograd can differentiate any number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def graph_is_needed() -> bool:
    """Whether the current backward pass will itself be differentiated."""
    return torch.is_grad_enabled()


def plain_gradients(
    plain: Callable[..., Tensor | tuple[Tensor, ...]],
    arguments: Sequence[Tensor | None],
    needed: Sequence[bool],
    upstream: Tensor | tuple[Tensor, ...],
    dtype: torch.dtype,
) -> list[Tensor | None]:
    """Differentiate the plain equations, keeping the graph.

    Args:
        plain: The function, written with differentiable operations.
        arguments: Its arguments.
        needed: Which of them need a gradient.
        upstream: The gradients of its outputs.
        dtype: The dtype of matrix products.

    Returns:
        A gradient for each argument, None where it is not needed.
    """
    # Use separate views: if one argument was computed from another, the gradient of the latter must
    # not pass through the former.
    views = [a if a is None else a.view_as(a) for a in arguments]
    inputs = [view for view, need in zip(views, needed, strict=True) if need and view is not None]
    kind, cast = inputs[0].device.type, dtype in (torch.bfloat16, torch.float16)
    with torch.autocast(kind, dtype if cast else None, enabled=cast):
        outputs = plain(*views)
    found = iter(torch.autograd.grad(outputs, inputs, upstream, create_graph=True))
    return [next(found) if need else None for need in needed]
