"""The approximate posterior q(z|x) = N(mean, diag(exp(logvar))) and its divergence from the prior.

KL(q || N(0, I)) = 1/2 sum_d (mean_d^2 + var_d - 1 - log var_d)      (Kingma & Welling 2014, app. B)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


class DiagGaussian(NamedTuple):
    """A batch of Gaussians with diagonal covariance, over the last dimension."""

    mean: Tensor  # (B, Z)
    logvar: Tensor  # (B, Z)

    @classmethod
    def standard(
        cls,
        batch_size: int,
        latent_dim: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> DiagGaussian:
        """The prior N(0, I), once per example."""
        zeros = torch.zeros(batch_size, latent_dim, device=device, dtype=dtype)
        return cls(zeros, zeros)

    def rsample(self, samples: int = 1) -> Tensor:
        """Reparameterised draws (K, B, Z): mean + sd * eps."""
        eps = torch.randn(samples, *self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + torch.exp(0.5 * self.logvar) * eps

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z) in nats for z (..., B, Z), summed over the latent dimensions: (..., B)."""
        squared = (z - self.mean).square() * torch.exp(-self.logvar)
        return -0.5 * (squared + self.logvar + LOG_2PI).sum(-1)

    def kl_to_prior(self) -> Tensor:
        """KL(q || N(0, I)) in nats per example and dimension: (B, Z)."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar)

    def kl_to(self, other: DiagGaussian) -> Tensor:
        """KL(q || other) in nats per example and dimension: (B, Z)."""
        squared = (self.mean - other.mean).square() + self.logvar.exp()
        return 0.5 * (other.logvar - self.logvar + squared * torch.exp(-other.logvar) - 1)


def log_prior(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats, summed over the last dimension."""
    return -0.5 * (z.square() + LOG_2PI).sum(-1)
