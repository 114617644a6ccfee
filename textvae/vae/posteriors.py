"""Approximate posteriors q(z|x) and the KL.

Diagonal Gaussian (Kingma & Welling 2014, appendix B):

    q(z|x) = N(mean, diag(exp(logvar)))
    KL(q || N(0, I)) = 1/2 sum_d (mean_d^2 + var_d - 1 - log var_d)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from textvae.vae.batch import Batch
from textvae.vae.contracts import Noise, Posterior
from textvae.vae.mixtures import LOG_2PI, pairwise_log_prob
from textvae.vae.noise import Purpose, RowNoise, standard_normal
from textvae.vae.priors import StandardNormal

Q = TypeVar("Q", bound=Any)


class DiagGaussian(NamedTuple):
    """A batch of Gaussians with diagonal covariance."""

    mean: Tensor  # (B, Z)
    logvar: Tensor  # (B, Z)

    def rsample(self, samples: int = 1, noise: Noise | None = None) -> Tensor:
        """Reparameterized draws mean + sd * eps, (K, B, Z)."""
        eps = standard_normal(noise, samples, self.mean)
        return self.mean + torch.exp(0.5 * self.logvar) * eps

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z|x) in nats, (..., B), for z (..., B, Z)."""
        return self.marginal_log_prob(z).sum(-1)

    def center(self) -> Tensor:
        """The means, (B, Z)."""
        return self.mean

    def kl_to(self, other: Any) -> Tensor | None:
        """KL(q || other) in nats by example and dimension, (B, Z).

        ``other`` is N(0, I) or another batch of diagonal Gaussians; None for anything else.
        """
        if type(other) is StandardNormal:  # not a subclass, which may be anything
            return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar)
        if isinstance(other, DiagGaussian):
            squared = (self.mean - other.mean).square() + self.logvar.exp()
            return 0.5 * (other.logvar - self.logvar + squared * torch.exp(-other.logvar) - 1)
        return None

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """Log q(z_m|x_n) in nats, (M, B), for z (M, Z); see ``mixtures.pairwise_log_prob``."""
        return pairwise_log_prob(z, self.mean, self.logvar)

    def marginal_log_prob(self, z: Tensor) -> Tensor:
        """Log q(z_d|x) of every coordinate in nats, (..., B, Z), for z (..., B, Z)."""
        squared = (z - self.mean).square() * torch.exp(-self.logvar)
        return -0.5 * (squared + self.logvar + LOG_2PI)


class ConstantEncoder(nn.Module):
    """The encoder of models that have none: N(0, I) for every example.

    For language models (Z = 0) and stochastic variational inference, which starts its steps there.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self, batch: Batch) -> DiagGaussian:
        """q(z|x) with mean 0 and log variance 0."""
        zeros = torch.zeros(len(batch), self.latent_dim, device=batch.x.device)
        return DiagGaussian(zeros, zeros)


def closed_kl(q: Posterior, p: Any) -> Tensor | None:
    """KL(q || p) in nats, (B, Z) or (B, 1), if q has a closed form for p, else None.

    Raises:
        ValueError: q returned another shape, whose sums would be wrong.
    """
    kl_to = getattr(q, "kl_to", None)
    found: Tensor | None = None if kl_to is None else kl_to(p)
    if found is None:
        return None
    count, latent_dim = q.center().shape
    if found.shape not in ((count, latent_dim), (count, 1)):
        raise ValueError(
            f"the posterior's kl_to must return one number for every example and dimension, "
            f"({count}, {latent_dim}) or ({count}, 1), not {tuple(found.shape)}"
        )
    return found


def check_posterior(q: Any, latent_dim: int) -> None:
    """Check what a posterior of one's own returns, before it is trained.

    Args:
        q: Posterior of B examples.
        latent_dim: Z.

    Raises:
        ValueError: A method breaks the contract (``textvae.vae.contracts.Posterior``).
    """
    if not isinstance(q, tuple) or not all(isinstance(part, Tensor) for part in q):
        raise ValueError("a posterior must be a NamedTuple of tensors")
    count = len(q[0])
    noise = RowNoise(0, Purpose.LATENT, range(count))
    try:
        z = q.rsample(3, noise)  # type: ignore[attr-defined]
    except TypeError as error:
        raise ValueError(f"rsample must take samples and noise ({error})") from error
    _check(z, (3, count, latent_dim), "rsample(3, noise)")
    if any(part.requires_grad for part in q) and not z.requires_grad:
        raise ValueError("rsample must be reparameterized: its draws do not depend on the encoder")
    _check(q.center(), (count, latent_dim), "center")  # type: ignore[attr-defined]
    _check(q.log_prob(z), (3, count), "log_prob of z (K, B, Z)")  # type: ignore[attr-defined]
    spread = z[0, :, None]  # (B, 1, Z): every z with every example
    _check(q.log_prob(spread), (count, count), "log_prob of z (M, 1, Z)", finite=False)  # type: ignore[attr-defined]
    if hasattr(q, "pairwise_log_prob"):
        pairs = q.pairwise_log_prob(z[0])
        _check(pairs, (count, count), "pairwise_log_prob of z (M, Z)", finite=False)


def _check(found: Any, shape: tuple[int, ...], what: str, finite: bool = True) -> None:
    if not isinstance(found, Tensor):
        raise ValueError(f"{what} must return a tensor, not {type(found).__name__}")
    if found.shape != shape:
        raise ValueError(f"{what} must return {shape}, not {tuple(found.shape)}")
    if finite and not bool(found.isfinite().all()):
        raise ValueError(f"{what} returns numbers that are not finite")


def kl(q: Posterior, p: Any, z: Tensor | None = None) -> Tensor:
    """KL(q || p) in nats: by dimension, (B, Z), if there is a closed form, else estimated.

    Args:
        q: Posterior of B examples.
        p: A prior, or another posterior of the same examples.
        z: Draws from q (K, B, Z) for the estimate mean_k [log q(z_k) - log p(z_k)], (B, 1). One
            draw is made if there is neither a closed form nor ``z``.
    """
    closed = closed_kl(q, p)
    if closed is not None:
        return closed
    z = q.rsample(1) if z is None else z
    return (q.log_prob(z) - p.log_prob(z)).mean(0)[:, None]


def rebuild(q: Q, tensors: Sequence[Tensor]) -> Q:
    """A posterior of the same kind with other tensors."""
    return type(q)(*tensors)


def select(q: Q, rows: Tensor) -> Q:
    """The posteriors of the examples in ``rows``, in that order."""
    return rebuild(q, [part[rows.to(part.device)] for part in q])


def concatenate(posteriors: Sequence[Q]) -> Q:
    """The posteriors of several batches as one."""
    return rebuild(posteriors[0], [torch.cat(part) for part in zip(*posteriors, strict=True)])


def move(q: Q, *destination: Any) -> Q:
    """The posterior on another device or in another precision; arguments of ``Tensor.to``."""
    return rebuild(q, [part.to(*destination) for part in q])
