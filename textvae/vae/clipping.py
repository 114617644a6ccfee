"""Clipping of the gradients of posteriors, and its derivative."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Tensors = Sequence[Tensor]


def clip(gradients: Tensors, limit: float, per: str) -> list[Tensor]:
    """Clip the norm of the gradient of each tensor of a posterior.

    Args:
        gradients: The gradients (B, ...), one per tensor.
        limit: Maximum norm; 0 for no clipping.
        per: Whether the norm is computed over the ``batch`` or over each ``example``.
    """
    return [g * _shrink(g, limit, per) if limit else g for g in gradients]


def _shrink(gradient: Tensor, limit: float, per: str) -> Tensor:
    norm = _norm(gradient, per)
    return (limit / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1)


def _norm(gradient: Tensor, per: str) -> Tensor:
    return _sum(gradient.square(), per).sqrt()


def _sum(values: Tensor, per: str) -> Tensor:
    """Sum over the batch, or over each example of (B, ...), in a shape that broadcasts."""
    if per == "batch":
        return values.sum()
    return values.reshape(len(values), -1).sum(1).view(-1, *[1] * (values.dim() - 1))


def clip_backward(upstream: Tensors, gradients: Tensors, limit: float, per: str) -> list[Tensor]:
    """Return the vector-Jacobian product of ``clip`` at ``gradients``.

    If a norm exceeds the limit, the component along the gradient is lost.
    """
    if not limit:
        return list(upstream)
    found = []
    for above, gradient in zip(upstream, gradients, strict=True):
        shrink, norm = _shrink(gradient, limit, per), _norm(gradient, per)
        unit = gradient / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        along = _sum(unit * above, per)
        found.append(shrink * torch.where(shrink < 1, above - unit * along, above))
    return found


def cap(gradients: Tensors, longest: Tensor) -> list[Tensor]:
    """Cap the norm of each example's gradient over all tensors of a posterior.

    Args:
        gradients: The gradients (B, ...), one per tensor.
        longest: (B,) maximum norm of each example.
    """
    norm = lengths(gradients).clamp(min=torch.finfo(longest.dtype).tiny)
    factor = (longest / norm).clamp(max=1)
    return [g * factor.view(-1, *[1] * (g.dim() - 1)) for g in gradients]


def lengths(gradients: Tensors) -> Tensor:
    """(B,) the norm of each example over all tensors."""
    return torch.stack([g.reshape(len(g), -1).square().sum(1) for g in gradients]).sum(0).sqrt()
