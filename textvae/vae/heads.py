"""Heads: the last layers of encoders, which turn features into a posterior.

The heads with normalized means keep the KL above 0 because the means have to differ between the
examples of a batch. In training, they normalize by the batch, and in evaluation by running
averages of its statistics, so that no result depends on the batch. A batch of one example has no
statistics: it is normalized by the running averages in training, too. With several processes, each
normalizes its batches separately, and the running averages are those of the first process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.config.choices import HeadKind, PosteriorKind
from textvae.errors import UserError
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.von_mises_fisher import VonMisesFisher

SMALLEST_VARIANCE = 1e-8  # of a mean over the batch; below it, normalization would amplify noise


class GaussianHead(nn.Linear):
    """A linear map from features (B, H) to the mean and log variance of a diagonal Gaussian.

    Args:
        features: H.
        latent_dim: Z.
        bias: Whether the map has a bias.
    """

    def __init__(self, features: int, latent_dim: int, bias: bool = True) -> None:
        super().__init__(features, 2 * latent_dim, bias=bias)

    def forward(self, features: Tensor) -> DiagGaussian:  # type: ignore[override]
        """q(z|x), computed in full precision, even if the features have a lower one."""
        with torch.autocast(features.device.type, enabled=False):
            mean, logvar = super().forward(features.to(self.weight.dtype)).chunk(2, dim=-1)
            return self.posterior(mean, logvar)

    def posterior(self, mean: Tensor, logvar: Tensor) -> DiagGaussian:
        """The posterior, given the output of the linear map, (B, Z) each."""
        return DiagGaussian(mean, logvar)


class _Normalization(nn.BatchNorm1d):
    """Zero mean and unit variance of every dimension over the batch."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim, eps=SMALLEST_VARIANCE, affine=False)

    def forward(self, mean: Tensor) -> Tensor:  # type: ignore[override]
        if self.training and len(mean) == 1:
            return F.batch_norm(mean, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(mean)


class BatchNormHead(GaussianHead):
    """Batch-normalized means (BN-VAE: Zhu et al. 2020), with bias b.

        mean <- gamma * (mean - batch mean) / batch deviation + b

    Over a batch, E[KL] >= sum_d (gamma^2 + b_d^2) / 2.

    Args:
        features: H.
        latent_dim: Z.
        bias: Whether the linear map has a bias.
        gamma: Standard deviation of the means; fixed.
    """

    def __init__(
        self, features: int, latent_dim: int, bias: bool = True, gamma: float = 0.6
    ) -> None:
        super().__init__(features, latent_dim, bias)
        self.gamma = gamma
        self.normalize = _Normalization(latent_dim)
        self.mean_bias = nn.Parameter(torch.zeros(latent_dim))

    def posterior(self, mean: Tensor, logvar: Tensor) -> DiagGaussian:
        """The posterior with normalized means."""
        return DiagGaussian(self.gamma * self.normalize(mean) + self.mean_bias, logvar)


class DUHead(GaussianHead):
    """Diverse means and less certain variances (DU-VAE: Shen et al. 2021).

        mean <- s * (mean - batch mean) / batch deviation + b,   sqrt(mean_d s_d^2) = gamma
        variance <- dropout(variance) + alpha / (2 pi e)

    The scale s is trained, with its root mean square held at gamma. Shen et al. change the variance
    only while the weight of the KL is 1; here it is always changed, so that training and evaluation
    have the same posterior.

    Args:
        features: H.
        latent_dim: Z.
        bias: Whether the linear map has a bias.
        gamma: Root mean square of the scale.
        dropout: Probability with which a variance is dropped in training.
        alpha: Minimum variance, in units of 1 / (2 pi e), below which the entropy is negative.
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        bias: bool = True,
        gamma: float = 0.5,
        dropout: float = 0.2,
        alpha: float = 1.0,
    ) -> None:
        super().__init__(features, latent_dim, bias)
        self.gamma, self.dropout = gamma, dropout
        self.floor = alpha / (2 * math.pi * math.e)
        self.normalize = _Normalization(latent_dim)
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))
        self.mean_bias = nn.Parameter(torch.zeros(latent_dim))

    def posterior(self, mean: Tensor, logvar: Tensor) -> DiagGaussian:
        """The posterior with normalized means and raised variances."""
        relative = self.log_scale.exp()
        scale = self.gamma * relative / relative.square().mean().sqrt()
        variance = F.dropout(logvar.exp(), self.dropout, self.training) + self.floor
        return DiagGaussian(scale * self.normalize(mean) + self.mean_bias, variance.log())


class ScaleHead(GaussianHead):
    """Scaled means with standard deviation s in every dimension (Scale-VAE: Song et al. 2024).

        mean <- c + f * (mean - c),   f_d = s / (deviation of mean_d over the batch)

    with the batch mean c, so that the factor spreads the means but does not move them. Song et al.
    multiply the mean itself by the factor and compute the KL from the means before scaling. Here
    every term is computed from the posterior that z is drawn from, so that the ELBO is a bound on
    log p(x); with c = 0, it would start at thousands of nats, because before training the means
    differ much less from one another than from 0.

    Args:
        features: H.
        latent_dim: Z.
        bias: Whether the linear map has a bias.
        deviation: s.
    """

    def __init__(
        self, features: int, latent_dim: int, bias: bool = True, deviation: float = 1.1
    ) -> None:
        super().__init__(features, latent_dim, bias)
        self.deviation = deviation
        self.normalize = _Normalization(latent_dim)

    def posterior(self, mean: Tensor, logvar: Tensor) -> DiagGaussian:
        """The posterior with scaled means."""
        by_batch = self.training and len(mean) > 1
        center = mean.mean(0) if by_batch else self.normalize.running_mean
        return DiagGaussian(center + self.deviation * self.normalize(mean), logvar)


class VonMisesFisherHead(nn.Linear):
    """A linear map from features (B, H) to a direction on the unit sphere.

    Args:
        features: H.
        latent_dim: Z, at least 2.
        bias: Whether the map has a bias.
        kappa: Concentration of every posterior.
    """

    def __init__(
        self, features: int, latent_dim: int, bias: bool = True, kappa: float = 13.0
    ) -> None:
        super().__init__(features, latent_dim, bias=bias)
        self.kappa = kappa

    def forward(self, features: Tensor) -> VonMisesFisher:  # type: ignore[override]
        """q(z|x), computed in full precision, even if the features have a lower one."""
        with torch.autocast(features.device.type, enabled=False):
            direction = F.normalize(super().forward(features.to(self.weight.dtype)), dim=-1)
        return VonMisesFisher(direction, direction.new_full((len(direction), 1), self.kappa))


# The head of each kind, and the default of its scale: gamma, gamma, and s.
_NORMALIZED: dict[str, tuple[type[BatchNormHead | DUHead | ScaleHead], float]] = {
    "batch_norm": (BatchNormHead, 0.6),
    "du": (DUHead, 0.5),
    "scale": (ScaleHead, 1.1),
}


def make_head(
    features: int,
    latent_dim: int,
    bias: bool = True,
    *,
    kind: HeadKind = "linear",
    scale: float | None = None,
    posterior: PosteriorKind = "gaussian",
    kappa: float = 13.0,
) -> nn.Module:
    """The head of an encoder, which maps features (B, H) to a posterior over Z dimensions.

    Args:
        features: H.
        latent_dim: Z.
        bias: Whether the linear map has a bias.
        kind: How the means of a Gaussian are made.
        scale: gamma of ``batch_norm`` and ``du``, s of ``scale``; None for the published value.
        posterior: The family of q(z|x).
        kappa: Concentration of the von Mises-Fisher posteriors.
    """
    if posterior == "vmf":
        return VonMisesFisherHead(features, latent_dim, bias, kappa)
    if posterior != "gaussian":
        raise ValueError(f"unknown posterior {posterior!r}")
    if kind == "linear":
        return GaussianHead(features, latent_dim, bias)
    if kind not in _NORMALIZED:
        raise ValueError(f"unknown head {kind!r}: choose linear, {', '.join(_NORMALIZED)}")
    make, default = _NORMALIZED[kind]
    return make(features, latent_dim, bias, default if scale is None else scale)


def head_maker(arguments: Mapping[str, Any]) -> Callable[[int], nn.Module]:
    """Return the function from features to the head that a model's arguments ask for."""
    return partial(
        make_head,
        latent_dim=arguments["latent_dim"],
        bias=arguments.get("head_bias", True),
        kind=arguments["head"],
        scale=arguments["head_scale"],
        posterior=arguments["posterior"],
        kappa=arguments["kappa"],
    )


def check_head(arguments: Mapping[str, Any]) -> None:
    """Check a model's arguments about its encoder's head and its posterior.

    Raises:
        UserError: Two of them are incompatible.
    """
    head, vmf = arguments["head"], arguments["posterior"] == "vmf"
    if arguments["head_scale"] is not None and head == "linear":
        raise UserError(
            "model: head_scale has no effect with head linear: choose batch_norm, du or scale"
        )
    if vmf and head != "linear":
        raise UserError(
            f"model: head {head} normalizes the means of a Gaussian, but the posterior is vmf: "
            "choose head linear"
        )
    if vmf and arguments["latent_dim"] == 1:
        raise UserError(
            "model: posterior vmf needs a latent_dim of at least 2, because z lies on a sphere"
        )
    if not vmf and head == "linear":
        return
    option = "posterior vmf" if vmf else f"head {head}"
    if not arguments["latent_dim"]:
        raise UserError(f"model: {option} needs a latent variable, but latent_dim is 0")
    if not arguments["encoder_layers"]:
        raise UserError(f"model: {option} needs an encoder, but encoder_layers is 0")
