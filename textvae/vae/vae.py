"""A variational autoencoder: a prior p(z), a decoder p(x|z) and an encoder q(z|x).

A language model is a VAE whose z has no dimensions: its posterior equals its prior, its KL is
exactly 0, and it runs through the same code as every other model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textvae.config.inference import AMORTIZED, Inference
from textvae.vae.batch import Batch, device_of
from textvae.vae.contracts import Posterior, Terms
from textvae.vae.inference import infer
from textvae.vae.posteriors import ConstantEncoder, closed_kl, move
from textvae.vae.priors import VampPrior, standard_prior


class VAE(nn.Module):
    """An encoder, a decoder and a prior; see ``textvae.vae.contracts`` for what each promises.

    Args:
        encoder: None for a model without one (a language model, or inference by SVI).
        decoder: Scores examples given z.
        prior: p(z), or an integer Z for a standard normal prior with Z dimensions.

    Example:
        >>> model = VAE(my_encoder, my_decoder, prior=16)
        >>> loss = elbo(model(batch), beta=1.0)
    """

    encoder: Any  # Encoder
    decoder: Any  # Decoder
    prior: Any  # Prior

    def __init__(
        self, encoder: nn.Module | None, decoder: nn.Module, prior: nn.Module | int
    ) -> None:
        super().__init__()
        _check_parts(encoder, decoder, prior)
        self.prior = standard_prior(int(prior)) if isinstance(prior, (int, np.integer)) else prior
        self.latent_dim = int(self.prior.latent_dim)
        self.encoder = ConstantEncoder(self.latent_dim) if encoder is None else encoder
        self.decoder = decoder
        if isinstance(self.prior, VampPrior):
            self.prior.encoder = self.encoder

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return device_of(self)

    @property
    def has_encoder(self) -> bool:
        """Whether q(z|x) depends on x before any refinement."""
        return not isinstance(self.encoder, ConstantEncoder)

    def posterior(self, batch: Batch) -> Posterior:
        """Return q(z|x) as computed by the encoder."""
        q = self.encoder(batch)
        _check_posterior(q)
        if (size := q.center().size(-1)) != self.latent_dim:
            raise ValueError(
                f"z has {size} dimensions in the encoder's posterior, but {self.latent_dim} in the "
                "prior"
            )
        if len(q.center()) != len(batch):
            raise ValueError(
                f"the encoder returned a posterior for {len(q.center())} examples, but "
                f"the batch has {len(batch)}"
            )
        if torch.is_autocast_enabled(batch.x.device.type) and any(part.itemsize < 4 for part in q):
            return move(q, torch.float32)  # a user-defined head that did not leave autocast
        weights = (p.dtype for p in self.decoder.parameters())
        return q if self.has_encoder else move(q, next(weights, torch.get_default_dtype()))

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(x|z) in nats, (K, B), for z (K, B, Z)."""
        log_px = self.decoder.log_prob(batch, z)
        check_shape("the decoder's log_prob", log_px, z)
        return log_px

    def forward(
        self,
        batch: Batch,
        samples: int = 1,
        beta: float = 1.0,
        inference: Inference = AMORTIZED,
    ) -> Terms:
        """Compute the terms of the objective from draws of z.

        Args:
            batch: B examples.
            samples: K, draws of z per example.
            beta: Weight of the KL in refinement steps.
            inference: How q(z|x) is found.

        Raises:
            ValueError: There are no draws.
        """
        if samples < 1:
            raise ValueError(f"samples={samples}: must be at least 1")
        q, encoder_loss, path = infer(self, batch, inference, beta)
        z = q.rsample(samples)  # (K, B, Z)
        if z.shape != (samples, len(batch), self.latent_dim):
            raise ValueError(
                f"the posterior's rsample({samples}) must return "
                f"{(samples, len(batch), self.latent_dim)}, not {tuple(z.shape)}"
            )
        log_pz, log_qz = self.prior.log_prob(z), q.log_prob(z)
        check_shape("the prior's log_prob", log_pz, z)
        check_shape("the posterior's log_prob", log_qz, z)
        kl = closed_kl(q, self.prior)  # else the estimate from the same draws
        return Terms(
            q=q,
            z=z,
            log_px=self.log_likelihood(batch, z),
            log_pz=log_pz,
            log_qz=log_qz,
            kl=(log_qz - log_pz).mean(0)[:, None] if kl is None else kl,
            encoder_loss=encoder_loss,
            path=path,
            prior=self.prior,
            log_bag=self.log_bag(batch, z),
        )

    def log_bag(self, batch: Batch, z: Tensor) -> Tensor | None:
        """Log-probability of an example's words in any order, (K, B); None without such a part."""
        return None


def _check_parts(encoder: Any, decoder: Any, prior: Any) -> None:
    for name, part in (("encoder", encoder), ("decoder", decoder), ("prior", prior)):
        if isinstance(part, type):
            raise TypeError(f"the {name} is a class: pass an object, {part.__name__}(...)")
    if decoder is None:
        raise TypeError("the decoder is None: pass a module with log_prob")
    if isinstance(prior, (int, np.integer)):
        if prior < 0:
            raise ValueError(f"the prior has {prior} dimensions: at least 0")
    elif not all(hasattr(prior, name) for name in ("latent_dim", "log_prob", "sample")):
        raise TypeError(
            f"the prior is {prior!r:.50}: pass the number of latent dimensions, or a module with "
            "latent_dim, log_prob, and sample"
        )


def _check_posterior(q: Any) -> None:
    if not isinstance(q, Posterior):
        raise TypeError(
            f"the encoder returned a {type(q).__name__}, not a posterior with rsample, log_prob, "
            "and center, such as DiagGaussian(mean, logvar)"
        )


def check_shape(what: str, log_density: Tensor, z: Tensor) -> None:
    """Check that a log density has one value for every draw: others would broadcast silently.

    Args:
        what: What computed it, for the message.
        log_density: (K, B).
        z: (K, B, Z).

    Raises:
        ValueError: It has another shape.
    """
    if not isinstance(log_density, Tensor):
        raise ValueError(f"{what} must return a tensor, not {type(log_density).__name__}")
    if not log_density.is_floating_point():
        raise ValueError(f"{what} must return real numbers, not {log_density.dtype}")
    if log_density.shape != z.shape[:-1]:
        raise ValueError(
            f"{what} must return one number for every z, {tuple(z.shape[:-1])}, "
            f"not {tuple(log_density.shape)}"
        )
