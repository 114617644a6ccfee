"""The aggregate posterior q(z) = 1/N sum_n q(z|x_n), compared with where z is sampled from.

A sampler of z (a prior, or a sampler fitted to the posteriors) draws into a *hole* if z lies
outside the smallest region that holds 99% of the mass of q(z) (its highest density region,
Hyndman 1996):

    hole_share = P_{z ~ p}[ log q(z) < t ],    P_{z ~ q}[ log q(z) < t ] = 0.01

t is estimated from draws of q(z) itself. For a draw from q(z|x_n), log q(z) is computed without
example n, because a draw of p does not have a posterior of its own, either. So if p equals the
distribution of z over all possible examples, about 1% of its draws are in holes, however narrow
the N posteriors are.

CU (Zhang et al. 2022) counts the dimensions whose aggregate posterior is consistent with the prior:

    cu = #{ d : KL(p(z_d) || q(z_d)) < 0.03 },    q(z_d) = 1/N sum_n q(z_d|x_n)

With r = q(z_d) / p(z_d), the KL is estimated by the mean of r - 1 - log r over draws of p, which is
unbiased (the mean of r is 1), never negative, and has little variance where q and p are close.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from textvae.vae.batch import device_of
from textvae.vae.contracts import Posterior
from textvae.vae.mixtures import mixture_log_prob
from textvae.vae.noise import OWN_TURN, Purpose, RowNoise
from textvae.vae.posteriors import move, select

DRAWS = 1000
MARGINAL_DRAWS = 250  # of which each costs an exponential per example and dimension
OUTSIDE = 0.01  # of the mass of q(z) is in places that count as holes
CONSISTENT = 0.03  # nats (Zhang et al. 2022)
MAX_NUMBERS = 2**22  # densities held at once


@dataclass(frozen=True)
class Pool:
    """The posteriors whose mixture is q(z): of all examples, even if only some are examined."""

    posterior: Any  # Posterior of N examples
    index: Tensor  # (N,)


def hole_shares(
    q: Posterior, samplers: Sequence[Any], index: Tensor, *, seed: int = 0, draws: int = DRAWS
) -> list[float] | None:
    """Return which share of the draws of each sampler falls into holes of q(z).

    Args:
        q: Posteriors of all N examples.
        samplers: Priors and other distributions of z.
        index: (N,) the row of each example, for the noise.
        seed: Seed of all draws.
        draws: Number of draws from every sampler, and at least from q(z).

    Returns:
        Shares from 0 to 1; None if there are fewer than two examples or no latent variable.
    """
    count, latent_dim = q.center().shape
    if count < 2 or not latent_dim:
        return None
    q = move(q, "cpu", torch.float64)
    threshold = _log_density_of_own_draws(q, index, seed, draws).quantile(OUTSIDE)
    noise = RowNoise(seed, Purpose.HOLES, range(draws))
    shares = []
    for sampler in samplers:
        density = mixture_log_prob(q, sampler.sample(draws, noise).double())
        shares.append(float((density < threshold).double().mean()))
    return shares


def _log_density_of_own_draws(q: Any, index: Tensor, seed: int, draws: int) -> Tensor:
    """Log q(z) without the example that z was drawn from, for evenly chosen examples: (M,)."""
    count = len(index)
    chosen = torch.linspace(0, count - 1, min(count, draws), dtype=torch.float64).round().long()
    noise = RowNoise(seed, Purpose.HOLES, index[chosen], turn=OWN_TURN)
    z = select(q, chosen).rsample(math.ceil(draws / len(chosen)), noise)  # (S, M, Z)
    return mixture_log_prob(q, z.flatten(0, 1), without=chosen.repeat(len(z)))


def marginal_kls(
    q: Posterior, prior: Any, *, seed: int = 0, draws: int = MARGINAL_DRAWS
) -> Tensor | None:
    """Estimate KL(p(z_d) || q(z_d)) of every dimension, (Z,) in nats.

    Args:
        q: Posteriors of all N examples.
        prior: The prior p.
        seed: Seed of the draws.
        draws: Number of draws from the prior.

    Returns:
        None if q or the prior cannot compute the densities of single coordinates
        (``marginal_log_prob``), or if there is no latent variable.
    """
    able = all(hasattr(part, "marginal_log_prob") for part in (q, prior))
    if not able or not q.center().size(1):
        return None
    q = move(q, "cpu")
    count, latent_dim = q.center().shape
    z = prior.sample(draws, RowNoise(seed, Purpose.HOLES, range(draws)))  # (S, Z)
    log_p = prior.marginal_log_prob(z.to(device_of(prior))).cpu()
    parts = z.split(max(1, MAX_NUMBERS // (count * latent_dim)))
    pairs = [q.marginal_log_prob(part[:, None]).logsumexp(1) for part in parts]  # type: ignore[attr-defined]
    log_r = (torch.cat(pairs) - math.log(count) - log_p).double()
    return (torch.expm1(log_r) - log_r).mean(0)


def consistent_units(kls: Tensor, threshold: float = CONSISTENT) -> int:
    """Number of dimensions whose KL(p(z_d) || q(z_d)) is below a threshold in nats."""
    return int((kls < threshold).sum())
