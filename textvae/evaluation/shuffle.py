"""The shuffle gap: how many nats log p(x|z) drops when z comes from another example.

    gap   = E_q(z|x)[log p(x|z)] - E_q(z|x')[log p(x|z)]
    gap_d = E[log p(x|z)] - E[log p(x|z with z'_d in place of z_d)],  z ~ q(z|x), z' ~ q(z|x')

The examples form a random ring, and each passes its z on to the next, so that none keeps its own.
``gap`` is near 0 if the decoder ignores z, and ``gap_d`` if it ignores dimension d. If q is the
exact posterior, the gap is at least I(x; z): it is I(x; z) plus the KL from the product of the two
distributions to the joint one (the lautum information, Palomar and Verdu 2008).

The condition gap is the same for what a model is conditioned on:

    E[log p(x|z,y)] - E[log p(x|z,y')],    z ~ q(z|x,y), and y' of another example

It is near 0 if the decoder ignores y. Examples that receive an equal y lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from textvae.evaluation.per_example import ExampleStats
from textvae.vae.batch import Batch, device_of
from textvae.vae.estimators import decode_in_parts
from textvae.vae.noise import OWN_TURN, Purpose, RowNoise, numpy_generator
from textvae.vae.posteriors import move, select


def shuffle_gaps(
    model: Any, batches: Iterable[Batch], stats: ExampleStats, seed: int
) -> Tensor | None:
    """Measure the gap of every example with one draw of another one's z.

    Args:
        model: Any model with a posterior, a likelihood and a prior.
        batches: The examples of ``stats``, in any order.
        stats: The posteriors and reconstruction terms of all N examples.
        seed: Seed of the ring and of the draws.

    Returns:
        (N,) nats in the order of ``stats``; None if there is no latent variable, or one example.
    """
    if not _can_be_shuffled(stats):
        return None
    return stats.rec.double() - _over_batches(model, batches, stats, seed, _from_another)[:, 0]


def condition_gaps(
    model: Any, batches: Callable[[], Iterable[Batch]], stats: ExampleStats, seed: int
) -> Tensor | None:
    """Measure the gap of every example when y comes from another one.

    Args:
        model: Any model with a posterior, a likelihood and a prior.
        batches: Returns the examples of ``stats``, in any order.
        stats: The posteriors of all N examples.
        seed: Seed of the ring and of the draws.

    Returns:
        (N,) nats in the order of ``stats``, from one draw of z that is decoded with both y; None if
        there is no condition, or one example.
    """
    conditions: Any = None
    for batch in batches():
        if batch.condition is None or len(stats.index) == 1:
            return None
        if conditions is None:
            conditions = batch.condition.new_empty(len(stats.index), device="cpu")
        conditions[_places(stats, batch)] = batch.condition.cpu()
    donors, gaps = ring(len(stats.index), seed), torch.empty(len(stats.index), dtype=torch.float64)
    for batch in batches():
        places, here = _places(stats, batch), batch.to(device_of(model))
        other = replace(batch, condition=conditions[donors[places]]).to(device_of(model))
        z = _draws(stats, places, here, seed, OWN_TURN)[None]
        own_log_px, other_log_px = (decode_in_parts(model, b, z)[0] for b in (here, other))
        gaps[places] = own_log_px.double().cpu() - other_log_px.double().cpu()
    return gaps


def dimension_gaps(
    model: Any,
    batches: Iterable[Batch],
    stats: ExampleStats,
    seed: int,
    max_symbols: int | None = None,
) -> Tensor | None:
    """Measure the gap of every example and dimension, with one draw of z and of z'.

    Args:
        model: Any model with a posterior, a likelihood and a prior.
        batches: The examples of ``stats``, in any order.
        stats: The posteriors of all N examples.
        seed: Seed of the ring and of the draws.
        max_symbols: See ``textvae.vae.estimators.importance_estimate``.

    Returns:
        (N, Z) nats in the order of ``stats``; None as for ``shuffle_gaps``.
    """
    if not _can_be_shuffled(stats):
        return None
    found = _over_batches(model, batches, stats, seed, _one_dimension_at_a_time, max_symbols)
    return found[:, :1] - found[:, 1:]


def _can_be_shuffled(stats: ExampleStats) -> bool:
    count, latent_dim = stats.posterior.center().shape
    return count > 1 and latent_dim > 0


def _from_another(own: Tensor, other: Tensor) -> Tensor:
    """Replace all of z (B, Z): (1, B, Z)."""
    return other[None]


def _one_dimension_at_a_time(own: Tensor, other: Tensor) -> Tensor:
    """Return z (B, Z) itself, and with each of its dimensions replaced: (1 + Z, B, Z)."""
    chosen = torch.eye(own.size(1), dtype=torch.bool, device=own.device)[:, None]  # (Z, 1, Z)
    return torch.cat([own[None], torch.where(chosen, other, own)])


def _over_batches(
    model: Any,
    batches: Iterable[Batch],
    stats: ExampleStats,
    seed: int,
    mix: Any,
    max_symbols: int | None = None,
) -> Tensor:
    """Decode every example from mixtures of its own z and another one's: (N, K) nats."""
    donors = ring(len(stats.index), seed)
    found: Any = None
    for batch in batches:
        places, here = _places(stats, batch), batch.to(device_of(model))
        other = _draws(stats, donors[places], here, seed)
        own = _draws(stats, places, here, seed, OWN_TURN)
        log_px = decode_in_parts(model, here, mix(own, other), max_symbols)  # (K, B)
        if found is None:
            found = torch.empty(len(stats.index), len(log_px), dtype=torch.float64)
        found[places] = log_px.t().double().cpu()
    return found


def ring(count: int, seed: int, shift: int = 1) -> Tensor:
    """Return for each of N examples (N,) the place of the one that it receives from.

    Args:
        count: N.
        seed: Seed of the order of the ring.
        shift: How many places further on; below N, none receives from itself.
    """
    order = torch.from_numpy(numpy_generator(seed).permutation(count))
    donors = torch.empty_like(order)
    donors[order] = order.roll(shift)
    return donors


def _places(stats: ExampleStats, batch: Batch) -> Tensor:
    """Return where the examples of a batch are in ``stats``, (B,)."""
    return torch.searchsorted(stats.index, batch.index.cpu())


def _draws(stats: ExampleStats, places: Tensor, here: Batch, seed: int, turn: int = 0) -> Tensor:
    """Draw from the posteriors at some places with the noise of the rows of a batch, (B, Z)."""
    noise = RowNoise(seed, Purpose.DONOR, here.index, turn)
    return move(select(stats.posterior, places), here.x.device).rsample(1, noise)[0]
