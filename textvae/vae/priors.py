"""Priors p(z): the distribution of z before x is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from textvae.vae.contracts import Noise
from textvae.vae.noise import standard_normal

LOG_2PI = math.log(2 * math.pi)


class StandardNormal(nn.Module):
    """p(z) = N(0, I).

    Args:
        latent_dim: Z; 0 for a model without a latent variable.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def log_prob(self, z: Tensor) -> Tensor:
        """Log p(z) in nats, (...), for z (..., Z)."""
        return -0.5 * (z.square() + LOG_2PI).sum(-1)

    def sample(self, count: int, noise: Noise | None = None) -> Tensor:
        """Draws on the CPU, (count, Z), so that a seed gives the same z on every device."""
        return standard_normal(noise, 1, torch.empty(count, self.latent_dim))[0]


def make_prior(latent_dim: int) -> nn.Module:
    """The prior of a model with Z latent dimensions."""
    return StandardNormal(latent_dim)
