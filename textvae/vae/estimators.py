"""What a trained model knows: the importance-weighted bound, mutual information, active units.

Importance-weighted bound (Burda, Grosse & Salakhutdinov 2016), z_k ~ q(z|x):

    log p(x) >= E[ log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) ] >= elbo

It rises with K and K = 1 is the ELBO. Mutual information of x and z under q (Hoffman & Johnson
2016; Dieng et al. 2019), with q(z) = 1/N sum_n q(z|x_n) over the *whole* set:

    I = E_x KL(q(z|x) || p(z)) - KL(q(z) || p(z)) = E_x E_q(z|x)[ log q(z|x) - log q(z) ]

The right-hand side is what is estimated, both logarithms at the same z: their errors cancel where
the posteriors coincide (every draw is 0) and where they are far apart (every draw is ln N, the
ceiling that no draw exceeds). Active units (Burda et al. 2016): A = #{d: Var_x(E_q[z_d]) >= 0.01}.

Models are seen through ``posterior(batch)`` and ``log_likelihood(batch, z)`` alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from textvae.vae.batch import Batch
from textvae.vae.posteriors import LOG_2PI, DiagGaussian, log_prior

# Symbols decoded at once, K * B * T: more gains nothing on a CPU, a GPU wants wide steps.
MAX_SYMBOLS, MAX_SYMBOLS_CUDA = 2**14, 2**16
MAX_PAIRS = 2**22  # of a draw and a posterior, 8 bytes each


class LatentModel(Protocol):
    """All that the estimators ask of a model."""

    def posterior(self, batch: Batch) -> DiagGaussian: ...

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor: ...


class ImportanceEstimate(NamedTuple):
    """Two estimates from the same K draws of z, in nats per example."""

    rec: Tensor  # (B,) E_q[log p(x|z)]
    bound: Tensor  # (B,) the importance-weighted lower bound of log p(x)


def importance_estimate(
    model: LatentModel,
    batch: Batch,
    samples: int = 200,
    *,
    posterior: DiagGaussian | None = None,
    noise: Tensor | None = None,
    max_symbols: int | None = None,
) -> ImportanceEstimate:
    """The reconstruction term and the importance-weighted bound with K draws of z.

    Args:
        samples: K; one draw is made where there is no latent, as it tells everything.
        posterior: the proposal, if it is not ``model.posterior(batch)`` (a refined one).
        noise: standard normal (K, B, Z) to use in place of fresh draws; its K counts.
        max_symbols: the decoder sees at most this many symbols at once (but at least one draw of
            every example), which bounds memory and changes no result; by default the device's.

    Raises:
        ValueError: K is below 1.
    """
    q = model.posterior(batch) if posterior is None else posterior
    if noise is None:
        noise = torch.randn(samples, *q.mean.shape, dtype=q.mean.dtype, device=q.mean.device)
    if q.mean.size(-1) == 0:
        noise = noise[:1]
    drawn = len(noise)
    if drawn < 1:
        raise ValueError("the importance-weighted bound needs samples of at least 1")
    rec = q.mean.new_zeros(len(batch))  # (B,)
    total = torch.full_like(rec, -math.inf)
    for eps in noise.split(_draws_at_once(batch, max_symbols)):
        z = q.mean + torch.exp(0.5 * q.logvar) * eps  # (k, B, Z)
        # log q from eps itself: (z - mean) / sd would lose digits where sd is small
        log_q = -0.5 * (eps.square() + q.logvar + LOG_2PI).sum(-1)  # (k, B)
        log_likelihood = model.log_likelihood(batch, z).to(rec.dtype)  # (k, B)
        log_weight = log_likelihood + log_prior(z) - log_q
        rec = rec + log_likelihood.sum(0)
        total = torch.logaddexp(total, log_weight.logsumexp(0))
    return ImportanceEstimate(rec=rec / drawn, bound=total - math.log(drawn))


def importance_bound(
    model: LatentModel,
    batch: Batch,
    samples: int = 200,
    *,
    posterior: DiagGaussian | None = None,
    noise: Tensor | None = None,
    max_symbols: int | None = None,
) -> Tensor:
    """log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) in nats per example: (B,).

    A lower bound of log p(x) in expectation, and log p(x) itself where there is no latent.
    Arguments as in :func:`importance_estimate`.
    """
    return importance_estimate(
        model, batch, samples, posterior=posterior, noise=noise, max_symbols=max_symbols
    ).bound


def _draws_at_once(batch: Batch, max_symbols: int | None) -> int:
    if max_symbols is None:
        max_symbols = MAX_SYMBOLS_CUDA if batch.x.is_cuda else MAX_SYMBOLS
    per_draw = len(batch) * max(1, int(batch.lengths.max()))
    return max(1, max_symbols // per_draw)


class MutualInformation(NamedTuple):
    """Nats. ``kl = mi + marginal_kl`` holds exactly."""

    mi: float
    standard_error: float  # of mi, over examples
    ceiling: float  # ln N
    kl: float  # mean KL(q(z|x) || p)
    marginal_kl: float  # KL(q(z) || p): how far the aggregated posterior is from the prior


def mutual_information(
    q: DiagGaussian, samples: int = 1, *, noise: Tensor | None = None, max_pairs: int = MAX_PAIRS
) -> MutualInformation:
    """I(x; z) under q for the whole set q (N, Z), with S draws of z per example.

    Args:
        samples: S.
        noise: standard normal (S, N, Z) to use in place of fresh draws; its S counts.
        max_pairs: draws times posteriors held at once; bounds memory and changes no result.
    """
    count, latent_dim = q.mean.shape
    kl = float(q.kl_to_prior().double().sum(-1).mean())
    if latent_dim == 0 or _identical(q):
        return MutualInformation(0.0, 0.0, math.log(count), kl, kl)
    # MPS has no float64, and the squares below cancel too many digits of a float32
    device = "cpu" if q.mean.device.type == "mps" else q.mean.device
    q = DiagGaussian(q.mean.to(device).double(), q.logvar.to(device).double())
    if noise is None:
        noise = torch.randn(samples, count, latent_dim, dtype=torch.float64, device=device)
    per_example = q.mean.new_zeros(count)
    for eps in noise.to(q.mean):
        z = q.mean + torch.exp(0.5 * q.logvar) * eps  # (N, Z)
        per_example += q.log_prob(z) - mixture_log_prob(q, z, max_pairs=max_pairs)
    per_example /= len(noise)
    mi = float(per_example.mean())
    error = float(per_example.std()) / math.sqrt(count)
    return MutualInformation(mi, error, math.log(count), kl, kl - mi)


def _identical(q: DiagGaussian) -> bool:
    return all(bool((part == part[:1]).all()) for part in q)


def mixture_log_prob(q: DiagGaussian, z: Tensor, *, max_pairs: int = MAX_PAIRS) -> Tensor:
    """log q(z) = log 1/N sum_n q(z|x_n) in nats, (M,), for q (N, Z) and z (M, Z).

    The exponent is quadratic in z, so all pairs come from one product of [z^2, z] (M, 2Z) with
    (2Z, N); give float64, as large terms cancel.
    """
    precision = torch.exp(-q.logvar)  # (N, Z)
    factors = torch.cat([-0.5 * precision, q.mean * precision], dim=1).t()  # (2Z, N)
    constant = -0.5 * (q.mean.square() * precision + q.logvar + LOG_2PI).sum(1)  # (N,)
    parts = [
        torch.addmm(constant, torch.cat([rows.square(), rows], dim=1), factors).logsumexp(1)
        for rows in z.split(max(1, max_pairs // len(constant)))
    ]
    return torch.cat(parts) - math.log(len(constant))


def mean_variances(means: Tensor) -> Tensor:
    """Var_x(E_q[z_d]) over all N examples for means (N, Z): (Z,), in float64 on the CPU."""
    means = means.cpu().double()
    return (means - means.mean(0)).square().mean(0)


def active_units(means: Tensor, threshold: float = 0.01) -> int:
    """Number of latent dimensions whose posterior mean varies by ``threshold`` or more.

    Args:
        means: (N, Z) posterior means of the *whole* set; of a batch the answer is another one.
    """
    return int((mean_variances(means) >= threshold).sum())
