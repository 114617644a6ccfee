"""Paths through the latent space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from textvae.config.arguments import check_choice


def between(
    start: Tensor, end: Tensor, steps: int, kind: Literal["linear", "spherical"] = "linear"
) -> Tensor:
    """``steps`` points from ``start`` to ``end``, both (Z,), including the ends: (S, Z).

    Args:
        start: The first point.
        end: The last point.
        steps: Number of points.
        kind: ``linear``, or ``spherical``: rotate from one direction to the other at constant
            angular speed while the length changes linearly, so that points between two draws from
            N(0, I) stay where the prior has its mass.

    Raises:
        UserError: Unknown kind.
    """
    share = torch.linspace(0, 1, steps, device=start.device, dtype=start.dtype)[:, None]  # (S, 1)
    line = torch.lerp(start, end, share)
    check_choice(("linear", "spherical"), kind=kind)
    if kind == "linear":
        return line
    lengths = torch.stack([start.norm(), end.norm()])
    if bool((lengths == 0).any()):
        return line  # the origin has no direction
    u, v = start / lengths[0], end / lengths[1]
    angle = torch.acos((u @ v).clamp(-1, 1))
    if float(angle.sin()) < 1e-4:
        if float(u @ v) > 0 or len(u) < 2:
            return line  # the same direction, or no way around the origin
        # Opposite directions define no plane of rotation: any will do.
        arc = (math.pi * share).cos() * u + (math.pi * share).sin() * _at_right_angle(u)
    else:
        arc = (((1 - share) * angle).sin() * u + (share * angle).sin() * v) / angle.sin()
    return torch.lerp(lengths[0], lengths[1], share) * arc


def _at_right_angle(u: Tensor) -> Tensor:
    """Return a unit vector at a right angle to ``u`` (Z,)."""
    other = torch.zeros_like(u)
    other[u.abs().argmin()] = 1
    other = other - (other @ u) * u
    return other / other.norm()


def along(z: Tensor, dimensions: Sequence[int], values: Sequence[float] | Tensor) -> Tensor:
    """``z`` (Z,) with one dimension set to each of S values, for D dimensions in turn: (D * S, Z).

    Row ``d * S + s`` has ``values[s]`` in ``dimensions[d]``. All other dimensions are those of z.
    """
    values = torch.as_tensor(values, dtype=z.dtype, device=z.device)  # (S,)
    points = z.repeat(len(dimensions), len(values), 1)  # (D, S, Z)
    for row, dimension in zip(points, dimensions, strict=True):
        row[:, dimension] = values
    return points.flatten(0, 1)
