"""Gradients of gradients, for functions whose own backward pass is differentiable no further.

The fused LSTM and the chunked softmax form their gradients by hand. Where a graph of these is asked
for (``create_graph=True``: exact Hessian-vector products), their backward pass takes the plain
equations instead, which autograd differentiates any number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def graph_is_wanted() -> bool:
    """Whether the backward pass that asks is to be differentiated itself."""
    return torch.is_grad_enabled()


def plain_gradients(
    plain: Callable[..., Tensor | tuple[Tensor, ...]],
    arguments: Sequence[Tensor | None],
    needed: Sequence[bool],
    upstream: Tensor | tuple[Tensor, ...],
    dtype: torch.dtype,
) -> list[Tensor | None]:
    """The gradients of the needed arguments, with a graph; matrix products in ``dtype``."""
    # Each under a name of its own: where one argument was computed from another, the gradient of
    # the latter must not pass through the former.
    arguments = [a if a is None else a.view_as(a) for a in arguments]
    wanted = [argument for argument, need in zip(arguments, needed, strict=True) if need]
    kind, cast = wanted[0].device.type, dtype in (torch.bfloat16, torch.float16)
    with torch.autocast(kind, dtype if cast else None, enabled=cast):
        outputs = plain(*arguments)
    found = iter(torch.autograd.grad(outputs, wanted, upstream, create_graph=True))
    return [next(found) if need else None for need in needed]
