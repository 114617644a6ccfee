"""Estimators: the importance-weighted bound, mutual information, and active units.

Importance-weighted bound (Burda, Grosse & Salakhutdinov 2016), z_k ~ q(z|x):

    log p(x) >= E[ log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) ] >= elbo

It increases with K; K = 1 gives the ELBO. Mutual information of x and z under q (Hoffman & Johnson
2016; Dieng et al. 2019), with q(z) = 1/N sum_n q(z|x_n) over the *whole* dataset:

    I = E_x KL(q(z|x) || p(z)) - KL(q(z) || p(z)) = E_x E_q(z|x)[ log q(z|x) - log q(z) ]

The right-hand side is estimated with both logarithms at the same z, so their errors cancel where
the posteriors coincide (every draw is 0) and where they are far apart (every draw is ln N, which
no draw can exceed). As an estimate of the information about all possible examples, this is a lower
bound in expectation, and clearly too low from about 3 nats below ln N. If x_n is left out of the
sum in its own q(z), the result is an upper bound (Poole et al. 2019). So is the KL, and ``upper``
is the lower of the two.

Active units (Burda et al. 2016): A = #{d: Var_x(E_q[z_d]) >= 0.01}.

With the mixture of a mini-batch of B examples in place of q(z), the same difference is at most
ln B: too low if z tells more examples apart than that. Values computed with the code of
vae-lagging-encoder (He et al. 2019) are of this kind (``minibatch_information``).

These functions rely only on ``textvae.vae.contracts``, so they work with your own models, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from textvae.vae.batch import Batch
from textvae.vae.contracts import LatentModel, Noise, Posterior
from textvae.vae.mixtures import MAX_PAIRS, exact_dtype, mixture_log_prob
from textvae.vae.posteriors import move, select

# Symbols decoded at once, K * B * T: more is no faster on a CPU, but a GPU needs large steps.
MAX_SYMBOLS, MAX_SYMBOLS_CUDA = 2**14, 2**16


class ImportanceEstimate(NamedTuple):
    """Three estimates from the same K draws of z, in nats per example."""

    rec: Tensor  # (B,) E_q[log p(x|z)]
    bound: Tensor  # (B,) the importance-weighted lower bound on log p(x)
    log_ratio: Tensor  # (B,) E_q[log q(z|x) - log p(z)]: the KL, if it has no closed form
    effective: Tensor  # (B,) effective sample size of the K weights, 1 to K (Kong 1992)


def importance_estimate(
    model: LatentModel,
    batch: Batch,
    samples: int = 200,
    *,
    posterior: Posterior | None = None,
    noise: Noise | None = None,
    max_symbols: int | None = None,
) -> ImportanceEstimate:
    """Estimate the reconstruction term, the importance-weighted bound, and the KL from K draws.

    Args:
        model: Any model with a posterior, a likelihood and a prior.
        batch: B examples on the model's device.
        samples: K; if z has no dimensions, a single draw is made, because it is exact.
        posterior: The proposal, such as a refined posterior; ``model.posterior(batch)`` by default.
        noise: Source of the draws; torch's global generator if None.
        max_symbols: Maximum number of symbols decoded at once (but at least one draw per example);
            limits memory and does not change the result. The default depends on the device.

    Raises:
        ValueError: K is below 1.
    """
    if samples < 1:
        raise ValueError(f"samples={samples}: the importance-weighted bound needs at least 1")
    q = model.posterior(batch) if posterior is None else posterior
    z = q.rsample(1 if q.center().size(-1) == 0 else samples, noise)  # (K, B, Z)
    log_px = decode_in_parts(model, batch, z, max_symbols)  # (K, B)
    log_ratio = q.log_prob(z) - model.prior.log_prob(z)  # (K, B)
    log_weight = log_px - log_ratio  # (K, B)
    bound = log_weight.logsumexp(0) - math.log(len(z))
    shares = log_weight.to(exact_dtype(log_weight)).softmax(0)
    effective = 1 / shares.square().sum(0)
    return ImportanceEstimate(log_px.mean(0), bound, log_ratio.mean(0), effective)


def importance_bound(
    model: LatentModel,
    batch: Batch,
    samples: int = 200,
    *,
    posterior: Posterior | None = None,
    noise: Noise | None = None,
    max_symbols: int | None = None,
) -> Tensor:
    """Log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) in nats per example: (B,).

    In expectation, a lower bound on log p(x); exactly log p(x) if there is no latent variable. The
    arguments are those of :func:`importance_estimate`.
    """
    return importance_estimate(
        model, batch, samples, posterior=posterior, noise=noise, max_symbols=max_symbols
    ).bound


def decode_in_parts(
    model: LatentModel, batch: Batch, z: Tensor, max_symbols: int | None = None
) -> Tensor:
    """Log p(x|z) in nats, (K, B), for z (K, B, Z), in parts that fit into memory.

    Args:
        model: Any model with a likelihood.
        batch: B examples on the model's device.
        z: (K, B, Z).
        max_symbols: As in ``importance_estimate``.
    """
    parts = z.split(draws_at_once(batch, max_symbols))
    return torch.cat([model.log_likelihood(batch, part).to(z.dtype) for part in parts])


def draws_at_once(batch: Batch, max_symbols: int | None) -> int:
    """How many draws of z per example fit into memory; see ``importance_estimate``."""
    if max_symbols is None:
        max_symbols = MAX_SYMBOLS_CUDA if batch.x.is_cuda else MAX_SYMBOLS
    per_draw = len(batch) * max(1, int(batch.lengths.max()))
    return max(1, max_symbols // per_draw)


class MutualInformation(NamedTuple):
    """Mutual information and what it is part of, in nats: ``kl = mi + marginal_kl``."""

    mi: float
    standard_error: float  # of mi, over examples
    ceiling: float  # ln N
    kl: float  # mean KL(q(z|x) || p)
    marginal_kl: float  # KL(q(z) || p): how far the aggregate posterior is from the prior
    upper: float  # an upper bound on the information about all possible examples, in expectation


class PointwiseInformation(NamedTuple):
    """Two estimates of E_q(z|x)[log q(z|x) - log q(z)] of N examples, (N,) nats in float64 each."""

    lower: Tensor  # with q(z) over all examples: at most ln N
    upper: Tensor  # with q(z) over the other examples; infinite if there are none


ACTIVE = 0.01  # variance of the posterior mean of an active unit (Burda et al. 2016)


def mutual_information(
    q: Posterior,
    kl: Tensor,
    samples: int = 1,
    *,
    noise: Noise | None = None,
    max_pairs: int = MAX_PAIRS,
) -> MutualInformation:
    """Estimate I(x; z) under q for a whole dataset of N examples.

    Args:
        q: Posteriors of all N examples (with a mini-batch, the result could not exceed ln B).
        kl: KL(q(z|x) || p(z)) of each example in nats, (N,) or by dimension (N, Z):
            ``textvae.kl(q, prior)``.
        samples: Draws of z per example.
        noise: Source of the draws; torch's global generator if None.
        max_pairs: Maximum number of pairs of a draw and a posterior held at once; limits memory and
            does not change the result.

    Raises:
        ValueError: There are not as many KLs as posteriors.
    """
    if len(kl) != len(q.center()):
        raise ValueError(f"{len(kl)} KLs of {len(q.center())} posteriors: give one for each")
    return summarize_information(
        pointwise_information(q, samples, noise=noise, max_pairs=max_pairs), kl
    )


def summarize_information(by_example: PointwiseInformation, kl: Tensor) -> MutualInformation:
    """Average what ``pointwise_information`` returns.

    Args:
        by_example: Of N examples.
        kl: As in ``mutual_information``.
    """
    lower, count, kl = by_example.lower, len(by_example.lower), kl.detach()
    mean_kl = float(kl.double().flatten(1).sum(1).mean() if kl.dim() > 1 else kl.double().mean())
    mi = float(lower.mean())
    upper = max(mi, 0.0, min(float(by_example.upper.mean()), mean_kl))
    error = float(lower.std()) / math.sqrt(count) if count > 1 else 0.0
    return MutualInformation(mi, error, math.log(count), mean_kl, mean_kl - mi, upper)


def pointwise_information(
    q: Posterior,
    samples: int = 1,
    *,
    noise: Noise | None = None,
    max_pairs: int = MAX_PAIRS,
) -> PointwiseInformation:
    """Estimate E_q(z|x)[log q(z|x) - log q(z)] of every example, whose mean is I(x; z).

    The arguments are those of :func:`mutual_information`.

    Returns:
        Both estimates; exactly 0 if all posteriors are equal.
    """
    count, latent_dim = q.center().shape
    if latent_dim == 0 or (count > 1 and _identical(q)):
        zeros = torch.zeros(count, dtype=torch.float64, device=q.center().device)
        return PointwiseInformation(zeros, zeros)
    q = _in_float64(q)
    return _log_ratios(q, q.rsample(samples, noise), max_pairs)


def minibatch_information(
    q: Posterior,
    batches: Iterable[Tensor],
    samples: int = 1,
    *,
    noise: Noise | None = None,
) -> float:
    """Estimate I(x; z) as vae-lagging-encoder does: within mini-batches, in nats.

    It is the mean over examples of log q(z|x) - log 1/B sum_b q(z|x_b), z ~ q(z|x), with the sum
    over the mini-batch of x: at most the logarithm of the largest batch size. Both terms use the
    same z; the original has E[log q(z|x)] in closed form, which is the same in expectation.

    Args:
        q: Posteriors of all N examples.
        batches: The rows of q in each mini-batch; every row is in one of them.
        samples: Draws of z per example.
        noise: Source of the draws; torch's global generator if None.
    """
    count, latent_dim = q.center().shape
    if latent_dim == 0:
        return 0.0
    q = _in_float64(q)
    draws, total = q.rsample(samples, noise), 0.0  # (S, N, Z)
    for rows in batches:
        rows = rows.to(q.center().device)
        total += float(_log_ratios(select(q, rows), draws[:, rows]).lower.sum())
    return total / count


def _in_float64(q: Any) -> Any:
    """MPS has no float64, and float32 would lose too many digits when squares cancel."""
    return move(q, "cpu" if q.center().device.type == "mps" else q.center().device, torch.float64)


def _log_ratios(q: Any, draws: Tensor, max_pairs: int = MAX_PAIRS) -> PointwiseInformation:
    """Average log q(z|x_n) - log q(z) over draws (S, N, Z), with x_n in the sum and without."""
    count = len(q.center())
    if count == 1:
        return PointwiseInformation(draws.new_zeros(1), draws.new_full((1,), math.inf))
    rows, lower, upper = torch.arange(count, device=draws.device), [], []
    for z in draws:
        own = q.log_prob(z)
        others = mixture_log_prob(q, z, without=rows, max_pairs=max_pairs)
        every = torch.logaddexp(own, others + math.log(count - 1)) - math.log(count)
        lower.append(own - every)
        upper.append(own - others)
    return PointwiseInformation(torch.stack(lower).mean(0), torch.stack(upper).mean(0))


def _identical(q: Any) -> bool:
    return all(bool((part == part[:1]).all()) for part in q)


def mean_variances(means: Tensor) -> Tensor:
    """Var_x(E_q[z_d]) over all N examples for means (N, Z): (Z,), in float64 on the CPU."""
    means = means.cpu().double()
    return (means - means.mean(0)).square().mean(0)


def active_units(means: Tensor, threshold: float = ACTIVE) -> int:
    """Number of latent dimensions whose posterior mean varies by ``threshold`` or more.

    Args:
        means: (N, Z) posterior means of the *whole* dataset; a batch gives a different answer.
        threshold: Minimum variance of an active unit (0.01: Burda et al. 2016).
    """
    return int((mean_variances(means) >= threshold).sum())
