"""Inference of z: amortised, stochastic variational (SVI), and semi-amortised.

* ``amortised``: q(z|x) is what the encoder says (Kingma & Welling 2014).
* ``svi``: K gradient steps on the ELBO from N(0, I), no encoder (Hoffman et al. 2013).
* ``semi_amortised``: the steps start from the encoder's output (Kim et al. 2018). The encoder
  learns through all steps from the refined ELBO (``unrolled``: SA-VAE), from its own ELBO
  (``elbo``: VAE+SVI), or by nearing the refined posterior (``kl``: VAE+SVI+KL).

The gradients through the steps stand behind ``loss.backward()`` (``textvae.vae.refinement``).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from textvae.config.inference import Inference
from textvae.vae.batch import Batch
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.refinement import Likelihood, Path, Unrolled, descend

AMORTISED = Inference()


class InferredModel(Protocol):
    """All that inference asks of a model."""

    encoder: nn.Module | None
    decoder: nn.Module
    latent_dim: int

    def posterior(self, batch: Batch) -> DiagGaussian: ...


class Inferred(NamedTuple):
    """q(z|x) of a batch, and what became of it on the way."""

    posterior: DiagGaussian
    encoder_loss: Tensor | None = None  # (B,) nats that the encoder alone minimises
    elbo: Tensor | None = None  # (K, B) estimates of the ELBO before each step, nats


def infer(
    model: InferredModel,
    batch: Batch,
    options: Inference = AMORTISED,
    beta: float = 1.0,
    noise: Tensor | None = None,
) -> Inferred:
    """q(z|x) by the method that the options name; differentiable where it is to be trained.

    Args:
        beta: the KL's weight in what the steps minimise.
        noise: standard normal (K, B, Z) for the steps, in place of fresh draws; its K counts.
    """
    match options.method:
        case "amortised":
            return Inferred(model.posterior(batch))
        case "svi":
            weight = next(model.decoder.parameters())
            shape = (len(batch), model.latent_dim)
            start = DiagGaussian.standard(*shape, weight.device, weight.dtype)
        case "semi_amortised":
            start = model.posterior(batch)
        case _:
            raise ValueError(f"unknown inference method {options.method!r}")
    if noise is None:
        shape = (options.steps, *start.mean.shape)
        noise = torch.randn(shape, dtype=start.mean.dtype, device=start.mean.device)
    if len(noise) == 0:
        return Inferred(start)
    return _refined(model, batch, start, noise, options, beta)


def _refined(
    model: InferredModel,
    batch: Batch,
    start: DiagGaussian,
    noise: Tensor,
    options: Inference,
    beta: float,
) -> Inferred:
    log_prob = partial(model.decoder.log_prob, batch)
    if options.token_share < 1:
        log_prob = partial(model.decoder.log_prob, batch, share=options.token_share)
    likelihood = Likelihood(log_prob, model.decoder, len(noise))
    point = torch.stack(tuple(start))  # (2, B, Z)
    if point.requires_grad and options.encoder == "unrolled":
        point, elbo = Unrolled.apply(point, likelihood, noise, options, beta, *likelihood.weights)
        return Inferred(DiagGaussian(*point), elbo=elbo)
    path = descend(likelihood, point, noise, options, beta)
    refined = DiagGaussian(*path.points[-1])
    loss = _encoder_loss(point, refined, path, options, beta) if point.requires_grad else None
    return Inferred(refined, loss, path.elbo)


def _encoder_loss(
    start: Tensor, refined: DiagGaussian, path: Path, options: Inference, beta: float
) -> Tensor:
    """(B,) for start (2, B, Z): KL(start || refined); or the start's own beta KL - log p, whose
    gradient the first step has computed already."""
    own = DiagGaussian(*start)
    if options.encoder == "kl":
        return own.kl_to(refined).sum(-1)
    value = (beta - 1) * own.kl_to_prior().sum(-1) - path.elbo[0]
    slope = path.d_point(0, beta)  # (2, B, Z)
    return value.detach() + ((start - start.detach()) * slope).sum((0, 2))
