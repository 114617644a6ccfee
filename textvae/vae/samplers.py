"""Samplers: distributions of z fitted to the posteriors of a trained model.

Free bits and KL annealing leave holes: places where the prior has mass but no training example has
its posterior, so the decoder never learned what belongs there. A sampler that was fitted to the
aggregate posterior q(z) = 1/N sum_n q(z|x_n) draws z from where the decoder was trained (Ghosh et
al. 2020 fit a mixture of Gaussians).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributions import MultivariateNormal

from textvae.errors import UserError, first_line
from textvae.runs.files import replace_file
from textvae.vae.contracts import Noise
from textvae.vae.mixtures import draw_components
from textvae.vae.noise import second_stream, standard_normal

AT_ONCE = 1024  # draws, each of which takes a matrix


class MixtureSampler(NamedTuple):
    """A mixture of C Gaussians, which can be used like a prior.

    A tuple of float64 tensors instead of a module, because it is not part of a model's weights.
    """

    weights: Tensor  # (C,), adding up to 1
    means: Tensor  # (C, Z)
    factors: Tensor  # (C, Z, Z) Cholesky factors of the covariances, lower triangular

    @property
    def latent_dim(self) -> int:
        """Z."""
        return self.means.size(1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density in nats, (...), for z (..., Z)."""
        weights, means, factors = (part.to(z) for part in self)
        gaussians = MultivariateNormal(means, scale_tril=factors)
        return (gaussians.log_prob(z[..., None, :]) + weights.log()).logsumexp(-1)

    def sample(self, count: int, noise: Noise | None = None) -> Tensor:
        """Draws on the CPU, (count, Z): a component, then z."""
        chosen = draw_components(self.weights.log(), count, noise)
        means = self.means[chosen]
        eps = standard_normal(second_stream(noise), 1, means)[0]
        pairs = zip(chosen.split(AT_ONCE), eps.split(AT_ONCE), strict=True)
        steps = [torch.einsum("nij,nj->ni", self.factors[c], e) for c, e in pairs]
        return (means + torch.cat(steps)).float()

    def save(self, path: Path) -> None:
        """Write the numbers as safetensors."""
        tensors = {name: part.contiguous() for name, part in self._asdict().items()}
        replace_file(path, lambda temporary: save_file(tensors, str(temporary)))

    @classmethod
    def load(cls, path: Path, latent_dim: int) -> MixtureSampler | None:
        """Read what ``save`` wrote; None if there is no such file.

        Args:
            path: The file.
            latent_dim: Z of the model.

        Raises:
            UserError: The file is broken, or does not fit the model.
        """
        if not path.exists():
            return None
        try:
            stored = load_file(str(path))
            sampler = cls(**{name: part.double() for name, part in stored.items()})
        except (SafetensorError, OSError, TypeError) as error:
            reason = first_line(error)
            raise UserError(f"{path} is not a fitted sampler ({reason}): delete it") from None
        if wrong := sampler._mistake(latent_dim):
            raise UserError(f"{path} is not a sampler for this model ({wrong}): delete it")
        return sampler

    def _mistake(self, latent_dim: int) -> str | None:
        """Return what is wrong with the numbers, if anything."""
        count, size = self.weights.numel(), latent_dim
        shapes = {"weights": (count,), "means": (count, size), "factors": (count, size, size)}
        for name, part in self._asdict().items():
            if part.shape != shapes[name] or not count:
                return f"{name} is {tuple(part.shape)} where {shapes[name]} is expected"
            if not part.isfinite().all():
                return f"{name} is not finite"
        if (self.weights <= 0).any() or abs(float(self.weights.sum()) - 1) > 1e-6:
            return "the weights are not positive numbers that add up to 1"
        if (self.factors.diagonal(dim1=1, dim2=2) <= 0).any() or self.factors.triu(1).any():
            return "the factors are not lower triangular with a positive diagonal"
        return None
