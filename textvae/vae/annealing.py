"""Annealed importance sampling (AIS): a bound on log p(x) that more steps make as tight as needed.

The importance-weighted bound goes from q(z|x) to the posterior p(z|x) in one jump. AIS (Neal 2001)
goes there through intermediate distributions

    f_t(z) = q(z|x)^(1 - b_t) p(x, z)^b_t,        0 = b_0 < b_1 < ... < b_T = 1

A chain starts at z_0 ~ q(z|x), and a transition that leaves f_t invariant leads to z_t. Its weight,

    log w = sum_t (b_t - b_{t-1}) [log p(x, z_{t-1}) - log q(z_{t-1}|x)],

has the mean E[w] = p(x), so the log of the mean weight of K chains is a lower bound on log p(x) in
expectation; with T = 1, it is the importance-weighted bound. A chain that is walked backward from a
draw of the posterior has E[1/w] = 1/p(x), which gives an upper bound. Such a draw is known only for
x that the model itself has generated: it is the z that x came from (bidirectional Monte Carlo,
Grosse, Ghahramani & Adams 2015; for VAEs, Wu et al. 2017).

The transitions are those of Hamiltonian Monte Carlo (Neal 2011), in units of the standard
deviations of q(z|x). Their step sizes are tuned for every example and every t in separate chains
that have no part in the weights, so both bounds hold however well they are tuned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from textvae.config.arguments import check_integers
from textvae.vae.batch import Batch
from textvae.vae.contracts import LatentModel, Posterior
from textvae.vae.estimators import draws_at_once
from textvae.vae.modes import frozen
from textvae.vae.noise import Purpose, RowNoise

PILOTS = 2  # chains that tune the step sizes
FIRST_STEP = 0.8  # in standard deviations of q(z|x)
ACCEPTED = 0.8  # of the proposals, the aim of tuning
JITTER = 0.8  # random reduction of a step size, at most
GAIN = 0.5  # how fast the logarithm of a step size follows
SCALED_BY = 64  # draws of q(z|x) for its standard deviations


class Annealed(NamedTuple):
    """K chains for each of B examples."""

    log_weights: Tensor  # (K, B) nats
    accepted: Tensor  # (B,) share of the proposals that were accepted

    @property
    def lower(self) -> Tensor:
        """A lower bound on log p(x) in expectation, (B,), from chains that started at q(z|x)."""
        return self.log_weights.logsumexp(0) - math.log(len(self.log_weights))

    @property
    def upper(self) -> Tensor:
        """An upper bound on log p(x) in expectation, (B,), from chains that started at p(z|x)."""
        return math.log(len(self.log_weights)) - (-self.log_weights).logsumexp(0)


def anneal(
    model: LatentModel,
    batch: Batch,
    chains: int = 10,
    steps: int = 100,
    *,
    leapfrogs: int = 5,
    posterior: Posterior | None = None,
    exact: Tensor | None = None,
    seed: int = 0,
    max_symbols: int | None = None,
) -> Annealed:
    """Walk between q(z|x) and p(z|x) with K chains for every example.

    It takes ``(chains + 2) * steps * leapfrogs`` gradients of log p(x|z) for every example.

    Args:
        model: Any model with a posterior, a likelihood and a prior.
        batch: B examples on the model's device.
        chains: K.
        steps: T, the number of distributions after q(z|x).
        leapfrogs: Gradient steps of a transition.
        posterior: Where the chains start, such as a refined posterior; ``model.posterior(batch)``
            by default. It must have a density over all of R^Z.
        exact: Draws of the posteriors p(z|x) themselves, (B, Z): the chains start there and go
            backward.
        seed: Seed of all noise.
        max_symbols: As in ``importance_estimate``.
    """
    check_integers(1, chains=chains, steps=steps, leapfrogs=leapfrogs)
    with torch.no_grad():
        q: Any = model.posterior(batch) if posterior is None else posterior
        noise = RowNoise(seed, Purpose.ANNEALING, batch.index)
        # The first K draws are those of the importance-weighted bound.
        draws = q.rsample(chains + PILOTS, RowNoise(seed, Purpose.BOUND, batch.index))
        z, pilots = draws[:chains], draws[chains:]
        path = _Path(model, batch, q, noise, max_symbols)
        betas = torch.linspace(0, 1, steps + 1).tolist()
        sizes = _tuned(path, betas, leapfrogs, pilots, noise)
        if exact is None:
            order = list(range(1, steps + 1))
        else:
            order, z = list(range(steps, 0, -1)), exact.to(z).expand_as(z)
        point, log_weights = path.at(z), z.new_zeros(z.shape[:2])
        accepted = z.new_zeros(z.shape[:2])
        for t, following in zip(order, [*order[1:], 0], strict=True):
            log_weights += (betas[t] - betas[t - 1]) * (point.log_joint - point.log_q)
            if not following:
                break
            at = min(t, following)  # the distribution between this step and the next one
            point, chance = _transition(path, point, betas[at], sizes[at], leapfrogs, noise, at)
            accepted += chance
        return Annealed(log_weights, accepted.mean(0) / max(1, steps - 1))


class _Point(NamedTuple):
    """Where K chains of B examples are, with what a transition needs to know there."""

    z: Tensor  # (K, B, Z)
    log_q: Tensor  # (K, B) log q(z|x)
    log_joint: Tensor  # (K, B) log p(x, z)
    d_q: Tensor  # (K, B, Z) gradient of log q(z|x)
    d_joint: Tensor  # (K, B, Z) gradient of log p(x, z)

    def log_f(self, beta: float) -> Tensor:
        """The log density of an intermediate distribution, not normalized, (K, B)."""
        return (1 - beta) * self.log_q + beta * self.log_joint

    def slope(self, beta: float) -> Tensor:
        """Its gradient, (K, B, Z)."""
        return (1 - beta) * self.d_q + beta * self.d_joint


class _Path:
    """The distributions between q(z|x) and p(x, z) of one batch."""

    def __init__(
        self, model: Any, batch: Batch, q: Any, noise: RowNoise, max_symbols: int | None
    ) -> None:
        self.model, self.batch, self.q = model, batch, q
        self.at_once = draws_at_once(batch, max_symbols)
        spread = q.rsample(SCALED_BY, noise).std(0)  # (B, Z)
        self.scale = spread.clamp(min=torch.finfo(spread.dtype).tiny)
        weights = model.parameters() if isinstance(model, nn.Module) else ()
        self.weights = [p for p in weights if p.requires_grad]

    def at(self, z: Tensor) -> _Point:
        """Evaluate both densities and their gradients at z (K, B, Z)."""
        with frozen(self.weights):
            parts = [self._at(part) for part in z.split(self.at_once)]
        return _Point(*(torch.cat(column) for column in zip(*parts, strict=True)))

    @torch.enable_grad()
    def _at(self, z: Tensor) -> _Point:
        z = z.detach().requires_grad_()
        log_q = self.q.log_prob(z)
        log_px = self.model.log_likelihood(self.batch, z).to(z.dtype)
        log_joint = log_px + self.model.prior.log_prob(z)
        slopes = (_gradient(each, z) for each in (log_q, log_joint))
        return _Point(*(part.detach() for part in (z, log_q, log_joint, *slopes)))


def _gradient(value: Tensor, z: Tensor) -> Tensor:
    if not value.requires_grad:  # constant in z
        return torch.zeros_like(z)
    return torch.autograd.grad(value.sum(), z, materialize_grads=True, allow_unused=True)[0]


def _tuned(
    path: _Path, betas: Sequence[float], leapfrogs: int, z: Tensor, noise: RowNoise
) -> list[Tensor]:
    """Return the step size of every transition, (B,), from pilot chains with their own noise."""
    point, count = path.at(z), len(betas) - 1
    size = z.new_full(z.shape[1:2], FIRST_STEP)
    sizes = [size]
    for t in range(1, count):
        point, chance = _transition(path, point, betas[t], size, leapfrogs, noise, count + t)
        size = size * torch.exp(GAIN * (chance.mean(0) - ACCEPTED))
        sizes.append(size)
    return sizes


def _transition(
    path: _Path,
    start: _Point,
    beta: float,
    size: Tensor,
    leapfrogs: int,
    noise: RowNoise,
    turn: int,
) -> tuple[_Point, Tensor]:
    """Make one transition of Hamiltonian Monte Carlo that leaves f_t invariant.

    Args:
        path: The distributions.
        start: Where the chains are.
        beta: b_t.
        size: Step sizes (B,).
        leapfrogs: Number of steps.
        noise: Source of the momentum and of the decisions.
        turn: Which transition this is; every one has its own noise.

    Returns:
        Where the chains are then, and the probabilities with which the proposals were accepted,
        (K, B).
    """
    chains, _, latent_dim = start.z.shape
    momentum = noise._replace(turn=2 * turn).normal(chains, latent_dim).to(start.z)
    chosen, jitter = noise._replace(turn=2 * turn + 1).uniform(chains, 2).to(start.z).unbind(-1)
    # Trajectories of one length would return to where they began, as a pendulum does.
    step = (size * (1 - JITTER * jitter))[..., None] * path.scale  # (K, B, Z), for z
    first = start.log_f(beta) - 0.5 * momentum.square().sum(-1)
    point = start
    for _ in range(leapfrogs):
        momentum = momentum + 0.5 * step * point.slope(beta)
        point = path.at(point.z + step * momentum)
        momentum = momentum + 0.5 * step * point.slope(beta)
    last = point.log_f(beta) - 0.5 * momentum.square().sum(-1)
    chance = (last - first).exp().clamp(max=1).nan_to_num(nan=0.0)
    moved = chosen < chance  # (K, B)
    parts = [
        torch.where(moved if a.dim() == moved.dim() else moved[..., None], a, b)
        for a, b in zip(point, start, strict=True)
    ]
    return _Point(*parts), chance
