"""Mixtures: log 1/N sum_n q(z|x_n) over a dataset, densities of Gaussians in pairs, components.

They are what the aggregate posterior, learned priors, and samplers have in common.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from textvae.vae.contracts import Noise, Posterior

LOG_2PI = math.log(2 * math.pi)
MAX_PAIRS = 2**22  # pairs of a draw and a posterior held at once, 8 bytes each
# Where the terms of the matrix product would cancel in float64.
NARROWEST = -20.0  # log variance
LARGEST = 1e10  # squared mean over variance


def pairwise_log_prob(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Log density of every z under every diagonal Gaussian, in nats: (M, N).

    The exponent is quadratic in z, so all pairs take one matrix product of [z^2, z] (M, 2Z) with
    (2Z, N). Use float64, because large terms cancel.

    Args:
        z: (M, Z).
        mean: (N, Z).
        logvar: (N, Z).
    """
    if logvar.numel() and float(logvar.detach().min()) < NARROWEST:
        return _by_dimension(z, mean, logvar)
    precision = torch.exp(-logvar)  # (N, Z)
    squared = mean.square() * precision
    if squared.numel() and float(squared.detach().max()) > LARGEST:
        return _by_dimension(z, mean, logvar)
    factors = torch.cat([-0.5 * precision, mean * precision], dim=1).t()  # (2Z, N)
    constant = -0.5 * (squared + logvar + LOG_2PI).sum(1)  # (N,)
    return torch.addmm(constant, torch.cat([z.square(), z], dim=1), factors)


def _by_dimension(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """``pairwise_log_prob`` without cancellation: slower, one dimension at a time."""
    total = -0.5 * (logvar + LOG_2PI).sum(1).expand(len(z), -1)  # (M, N)
    for d in range(z.size(1)):
        offsets = z[:, d, None] - mean[:, d]
        total = total - 0.5 * offsets.square() * torch.exp(-logvar[:, d])
    return total


def mixture_log_prob(
    q: Posterior, z: Tensor, *, without: Tensor | None = None, max_pairs: int = MAX_PAIRS
) -> Tensor:
    """Log q(z) = log 1/N sum_n q(z|x_n) in nats, (M,), for N posteriors and z (M, Z).

    Args:
        q: Posteriors of N examples.
        z: (M, Z).
        without: (M,) an example for every z that is left out of its sum, which is then over N - 1
            examples; none by default.
        max_pairs: Maximum number of pairs of a z and a posterior held at once; limits memory and
            does not change the result.
    """
    count, latent_dim = q.center().shape
    pairwise = getattr(q, "pairwise_log_prob", None)
    if pairwise is None:  # by broadcasting, which holds Z numbers per pair
        pairwise, max_pairs = lambda rows: q.log_prob(rows[:, None]), max_pairs // latent_dim
    size = max(1, max_pairs // count)
    # Preallocated: small results between large temporaries would fragment the heap, and every chunk
    # of pairs would then take new memory.
    found = z.new_empty(len(z), dtype=torch.promote_types(z.dtype, q.center().dtype))
    for start in range(0, len(z), size):
        here = slice(start, start + size)
        pairs = pairwise(z[here])  # (m, N)
        if without is not None:
            pairs = pairs.scatter(1, without[here, None], -math.inf)
        found[here] = pairs.logsumexp(1)
    return found - math.log(count if without is None else count - 1)


def exact_dtype(tensor: Tensor) -> torch.dtype:
    """float64, in which pairs are computed, or float32 on devices that have nothing better."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def draw_components(log_weights: Tensor, count: int, noise: Noise | None) -> Tensor:
    """Draw components of a mixture, (count,), on the CPU.

    Args:
        log_weights: (C,) logarithms of the weights, which do not have to add up to 1.
        count: Number of draws; each is the one of its row of the noise.
        noise: Source of the draws; torch's global generator if None.
    """
    if noise is None:
        uniforms = torch.rand(count, dtype=torch.float64)
    else:
        uniforms = noise.uniform(1, 1)[0, :, 0].double().cpu()
    shares = log_weights.detach().cpu().double().softmax(0).cumsum(0)
    return torch.searchsorted(shares[:-1], uniforms, right=True)
