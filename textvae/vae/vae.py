"""A variational autoencoder: p(z) = N(0, I), p(x|z) a decoder, q(z|x) an encoder.

Two contracts carry everything:

* encoder: ``forward(batch) -> DiagGaussian`` with mean and logvar ``(B, Z)``;
* decoder: ``log_prob(batch, z) -> (K, B)`` for z ``(K, B, Z)``, and ``sample(z, ...)``.

Without an encoder q is the prior and the KL is exactly 0: with ``latent_dim`` 0 that is the plain
language model, which so runs through the same lines as everything else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from textvae.config.inference import Inference
from textvae.vae.batch import Batch
from textvae.vae.inference import AMORTISED, infer
from textvae.vae.objectives import ElboTerms
from textvae.vae.posteriors import DiagGaussian


class VAE(nn.Module):
    """An encoder and a decoder around a standard normal latent variable."""

    def __init__(self, encoder: nn.Module | None, decoder: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.latent_dim = latent_dim

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def posterior(self, batch: Batch) -> DiagGaussian:
        """q(z|x), the encoder's; the prior where there is no encoder."""
        if self.encoder is None:
            return DiagGaussian.standard(len(batch), self.latent_dim, batch.x.device)
        return self.encoder(batch)

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """log p(x|z) in nats per example, (K, B), for z (K, B, Z)."""
        return self.decoder.log_prob(batch, z)

    def sample_prior(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """z ~ N(0, I): (N, Z). Drawn on the CPU, so that a seed means the same on every device."""
        return torch.randn(count, self.latent_dim, generator=generator).to(self.device)

    def forward(
        self,
        batch: Batch,
        samples: int = 1,
        beta: float = 1.0,
        inference: Inference = AMORTISED,
    ) -> ElboTerms:
        """The terms of the ELBO, estimated with K = ``samples`` draws of z from the q that
        ``inference`` finds; ``beta`` is the KL's weight in its steps."""
        q, encoder_loss, path = infer(self, batch, inference, beta)
        z = q.rsample(samples)  # (K, B, Z)
        rec = self.log_likelihood(batch, z).mean(0)
        return ElboTerms(rec, q.kl_to_prior(), encoder_loss, path)
