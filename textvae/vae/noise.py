"""Random numbers as pure functions: one system for everything outside training.

A number is determined by (seed, purpose, row, position): the user's seed, what the draw is for, the
example it belongs to, and its position in that example's stream. So no number depends on the batch
size, the order of the batches, the device, or how many numbers are drawn: a longer series starts
with the numbers of a shorter one.

The bits are those of SplitMix64 (Steele, Lea & Flood 2014), whose n-th number can be computed
without the ones before it; normal draws come from pairs of uniform ones (Box & Muller 1958).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from textvae.errors import OptionError
from textvae.vae.contracts import Noise

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def check_seed(seed: int) -> None:
    """Raise a ``UserError`` if it is not an integer that a random generator takes."""
    is_integer = isinstance(seed, Integral) and not isinstance(seed, bool)
    if not is_integer or not -(2**63) <= seed < 2**64:
        raise OptionError("must be an integer of 64 bits", seed=seed)


def numpy_generator(seed: int) -> np.random.Generator:
    """Return NumPy's generator for any seed that ``check_seed`` accepts."""
    return np.random.default_rng(int(seed) % 2**64)


class Purpose(IntEnum):
    """What a stream of numbers is for. Streams for different purposes are unrelated."""

    LATENT = 1  # z drawn from a prior or posterior to be decoded
    TOKENS = 2  # the tokens, or pixels, drawn at z
    STEPS = 3  # refinement steps
    BOUND = 4  # the draws of the importance-weighted bound
    MIXTURE = 5  # mutual information
    DONOR = 6  # z taken from another example
    HOLES = 7  # draws of a prior or a sampler that may fall into holes
    CONDITION = 8  # labels or numbers that a model is conditioned on
    ANNEALING = 9  # transitions of annealed importance sampling


class RowNoise(NamedTuple):
    """One stream of numbers per row: ``Noise`` that depends only on these fields.

    Attributes:
        seed: The user's seed.
        purpose: What the draws are for.
        rows: The row of each example in its dataset (a sequence or a tensor).
        turn: Counts repeated uses for the same purpose, such as refinement steps.
    """

    seed: int
    purpose: Purpose
    rows: Sequence[int] | Tensor
    turn: int = 0

    def normal(self, samples: int, width: int) -> Tensor:
        """Standard normal draws on the CPU, (samples, B, width), float32."""
        count = samples * width
        pairs = self._uniform(count + count % 2).reshape(len(self.rows), (count + 1) // 2, 2)
        radius = np.sqrt(-2 * np.log1p(-pairs[..., 0]))  # 1 - u lies in (0, 1]
        angle = 2 * np.pi * pairs[..., 1]
        draws = np.empty(pairs.shape, dtype=np.float32)
        draws[..., 0], draws[..., 1] = radius * np.cos(angle), radius * np.sin(angle)
        draws = draws.reshape(len(self.rows), count + count % 2)[:, :count]
        return self._by_draw(draws, samples, width)

    def uniform(self, samples: int, width: int) -> Tensor:
        """Uniform draws in [0, 1) on the CPU, (samples, B, width), float64."""
        return self._by_draw(self._uniform(samples * width), samples, width)

    def _by_draw(self, draws: np.ndarray, samples: int, width: int) -> Tensor:
        return torch.from_numpy(draws.reshape(len(self.rows), samples, width).swapaxes(0, 1).copy())

    def _uniform(self, count: int) -> np.ndarray:
        """(B, count) in [0, 1), float64."""
        check_seed(self.seed)
        keys = np.zeros(len(self.rows), dtype=np.uint64)
        given = self.rows.cpu() if isinstance(self.rows, Tensor) else self.rows
        rows = np.asarray(given).astype(np.int64).astype(np.uint64)
        for number in (int(self.seed) % 2**64, int(self.purpose), self.turn, rows):
            keys = _mixed(keys + np.uint64(number))
        steps = np.arange(1, count + 1, dtype=np.uint64)
        bits = _mixed(keys[:, None] + steps * GOLDEN)
        return (bits >> np.uint64(11)) * 2.0**-53


def _mixed(state: np.ndarray) -> np.ndarray:
    """SplitMix64's output function; numbers wrap at 2^64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


class SeededNoise(NamedTuple):
    """Replayable noise for a whole batch, drawn on its device.

    Training uses it for steps that are computed more than once.
    """

    seed: int
    size: int  # B
    device: torch.device
    dtype: torch.dtype = torch.float32

    def normal(self, samples: int, width: int) -> Tensor:
        """Standard normal draws, (samples, B, width)."""
        shape = (samples, self.size, width)
        return torch.randn(shape, generator=self._generator(), dtype=self.dtype, device=self.device)

    def uniform(self, samples: int, width: int) -> Tensor:
        """Uniform draws in [0, 1), (samples, B, width)."""
        shape = (samples, self.size, width)
        return torch.rand(shape, generator=self._generator(), dtype=self.dtype, device=self.device)

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.seed)


OWN_TURN = 2  # of draws for the same rows and purpose as others, which may use turns 0 and 1


def second_stream(noise: Noise | None) -> Noise | None:
    """An unrelated stream for the same rows, for draws that need uniform and normal numbers."""
    if isinstance(noise, RowNoise):
        return noise._replace(turn=noise.turn + 1)
    return noise._replace(seed=noise.seed + 1) if isinstance(noise, SeededNoise) else noise


def standard_normal(noise: Noise | None, samples: int, like: Tensor) -> Tensor:
    """Standard normal draws (samples, B, W) for ``like`` (B, W), on its device and in its dtype.

    Args:
        noise: Source of the draws; torch's global generator if None.
        samples: Draws per row of ``like``.
        like: Determines the shape, device, and dtype.
    """
    if noise is None:
        return torch.randn(samples, *like.shape, dtype=like.dtype, device=like.device)
    return noise.normal(samples, like.size(-1)).to(like)
