"""Latent vectors to decode, and the random numbers that decoding uses: one stream for every row.

Row i of a draw is a pure function of (seed, i): neither the number of rows nor how they are cut
into batches changes it. Streams are drawn on the CPU, so a seed means the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from textvae.errors import UserError

# Purposes, each with streams of its own: the noise of z, the words drawn at z, refinement's noise.
_NOISE, _WORDS, _STEPS = 1, 2, 3
_MASK = 2**64 - 1


def normal_rows(count: int, width: int, seed: int, first_row: int = 0) -> Tensor:
    """Standard normal noise (N, Z); row i is that of number ``first_row + i``."""
    rows = [
        torch.randn(width, generator=_stream(seed, first_row + row, _NOISE)) for row in range(count)
    ]
    return torch.stack(rows) if rows else torch.empty(0, width)


def uniform_rows(count: int, width: int, seed: int, first_row: int = 0) -> Tensor:
    """Uniforms in [0, 1), float64 (N, T): what decides the words of each row, step by step."""
    rows = [
        torch.rand(width, generator=_stream(seed, first_row + row, _WORDS), dtype=torch.float64)
        for row in range(count)
    ]
    return torch.stack(rows) if rows else torch.empty(0, width, dtype=torch.float64)


def step_rows(rows: Sequence[int], steps: int, width: int, seed: int) -> Tensor:
    """Standard normal noise (K, B, Z) of the refinement steps of some rows."""
    noise = [torch.randn(steps, width, generator=_stream(seed, row, _STEPS)) for row in rows]
    return torch.stack(noise, dim=1)


def _stream(seed: int, row: int, purpose: int) -> torch.Generator:
    """A generator for one row and purpose; neighbouring numbers give unrelated seeds."""
    state = 0
    for number in (seed, purpose, row):  # SplitMix64 (Steele et al. 2014) after each number
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return torch.Generator().manual_seed(state)


def between(
    start: Tensor, end: Tensor, steps: int, kind: Literal["linear", "spherical"] = "linear"
) -> Tensor:
    """``steps`` points from ``start`` to ``end``, both (Z,), the ends included: (S, Z).

    ``spherical`` turns from one direction to the other at an even angle while the length changes
    evenly: points between two draws of the prior then stay where the prior has its mass.

    Raises:
        UserError: an unknown kind.
    """
    share = torch.linspace(0, 1, steps, device=start.device, dtype=start.dtype)[:, None]  # (S, 1)
    line = torch.lerp(start, end, share)
    if kind == "linear":
        return line
    if kind != "spherical":
        raise UserError(f"kind={kind!r}: linear or spherical")
    lengths = torch.stack([start.norm(), end.norm()])
    if bool((lengths == 0).any()):
        return line  # the origin has no direction
    u, v = start / lengths[0], end / lengths[1]
    angle = torch.acos((u @ v).clamp(-1, 1))
    if float(angle.sin()) < 1e-4:
        return line  # the same direction, or opposite ones with no plane to turn in
    arc = (((1 - share) * angle).sin() * u + (share * angle).sin() * v) / angle.sin()
    return torch.lerp(lengths[0], lengths[1], share) * arc
