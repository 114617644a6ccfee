"""Inference of z: amortized, stochastic variational (SVI), and semi-amortized.

* ``amortized``: q(z|x) is the encoder's output (Kingma & Welling 2014).
* ``svi``: K gradient steps on the ELBO from N(0, I), without an encoder (Hoffman et al. 2013).
* ``semi_amortized``: the steps start from the encoder's output (Kim et al. 2018). The encoder
  learns through all steps from the refined ELBO (``unrolled``: SA-VAE), from its own ELBO
  (``elbo``: VAE+SVI), or by moving toward the refined posterior (``kl``: VAE+SVI+KL).

The gradients through the steps are part of ``loss.backward()`` (``textvae.vae.refinement``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from textvae.config.inference import AMORTIZED, DEFAULT_INFERENCE, Inference
from textvae.vae.batch import Batch
from textvae.vae.contracts import LatentModel, Noise
from textvae.vae.likelihood import Likelihood
from textvae.vae.modes import undisturbed
from textvae.vae.noise import Purpose, RowNoise, SeededNoise
from textvae.vae.posteriors import concatenate, kl, move, rebuild, select
from textvae.vae.refinement import Path, Problem, Unrolled, descend


class Inferred(NamedTuple):
    """q(z|x) of a batch, with the encoder's loss and the ELBO at each step."""

    posterior: Any  # Posterior
    encoder_loss: Tensor | None = None  # (B,) additional loss of the encoder only, nats
    elbo: Tensor | None = None  # (K, B) estimated ELBO before each step, nats


def inference_of(model: Any, given: Inference | None = None) -> Inference:
    """Return how q(z|x) of a model is found: as given, or else as it was trained.

    A ``TextVAE`` or an ``ImageVAE`` knows how; other models use their encoder alone.
    """
    return getattr(model, "inference", DEFAULT_INFERENCE) if given is None else given


def infer(
    model: LatentModel,
    batch: Batch,
    options: Inference = AMORTIZED,
    beta: float = 1.0,
    noise: RowNoise | Sequence[Noise] | None = None,
) -> Inferred:
    """Infer q(z|x) of a batch with the chosen method; differentiable, for training.

    Args:
        model: Any model with a posterior, a decoder and a prior.
        batch: B examples on the model's device.
        options: The method and its steps.
        beta: Weight of the KL in the loss that the steps minimize.
        noise: Source of the draws: one stream per row, or one source per step; torch's global
            generator if None.

    Raises:
        TypeError: The batch is not a ``Batch``, or the options are not an ``Inference``.
        ValueError: Unknown method, or ``svi`` for a model with an encoder.
    """
    if not isinstance(batch, Batch):
        kind = type(batch).__name__
        raise TypeError(f"the batch is a {kind}: wrap a tensor, as in textvae.Batch(x)")
    if not isinstance(options, Inference):
        raise TypeError(f"inference must be a textvae.Inference(...), not {options!r}")
    if options.method == "svi" and getattr(model, "has_encoder", False) and model.prior.latent_dim:
        raise ValueError(
            "svi starts from the prior, and this model has an encoder: choose semi_amortized, or "
            "build the model with the encoder None"
        )
    start: Any = model.posterior(batch)
    match options.method:
        case "amortized":
            return Inferred(start)
        case "svi" | "semi_amortized":
            pass
        case _:
            raise ValueError(f"unknown inference method {options.method!r}")
    problem = _problem(model, batch, options, beta, _step_noise(start, options.steps, noise))
    trained = any(part.requires_grad for part in start)
    if options.encoder == "unrolled" and (trained or _has_decoder_terms(problem)):
        parameters = (*problem.likelihood.weights, *problem.prior_weights)
        *refined, elbo = Unrolled.apply(problem, start, *start, *parameters)
        return Inferred(rebuild(start, refined), elbo=elbo)
    path = descend(problem, start)
    refined = path.points[-1]
    loss = _encoder_loss(start, refined, path, problem) if trained else None
    return Inferred(refined, loss, path.elbo)


def _step_noise(
    start: Any, steps: int, noise: RowNoise | Sequence[Noise] | None
) -> Sequence[Noise]:
    if isinstance(noise, RowNoise):
        return [noise._replace(turn=step) for step in range(steps)]
    if noise is not None:
        return noise
    seeds = torch.randint(2**62, (steps,)).tolist()
    return [SeededNoise(seed, len(start[0]), start[0].device, start[0].dtype) for seed in seeds]


def _has_decoder_terms(problem: Problem) -> bool:
    """Whether the decoder learns through the steps, even if the encoder does not learn.

    The steps of SVI are not differentiated.
    """
    options, trainable = problem.options, problem.likelihood.weights or problem.prior_weights
    through = options.method == "semi_amortized" and options.decoder_terms != "none"
    return through and bool(trainable) and torch.is_grad_enabled()


def _problem(
    model: Any, batch: Batch, options: Inference, beta: float, noise: Sequence[Noise]
) -> Problem:
    log_prob = partial(model.log_likelihood, batch)
    if options.token_share < 1:
        log_prob = partial(model.decoder.log_prob, batch, share=options.token_share)
    decoder = getattr(model, "decoder", model)  # some models cannot be taken apart
    likelihood = Likelihood(log_prob, decoder, len(noise))
    return Problem(likelihood, model.prior, noise, options, beta)


def _encoder_loss(start: Any, refined: Any, path: Path, problem: Problem) -> Tensor:
    """The encoder's loss, (B,) nats.

    It is KL(start || refined), or beta KL - log p at the start, whose gradient the first step has
    already computed.
    """
    if problem.options.encoder == "kl":
        return kl(start, refined).sum(-1)
    value = (problem.beta - 1) * path.kl[0] - path.elbo[0]
    for part, slope in zip(start, path.first_slope, strict=True):
        value = value + ((part - part.detach()) * slope).reshape(len(part), -1).sum(1)
    return value


@torch.no_grad()
def infer_all(
    model: Any, batches: Iterable[Batch], options: Inference = AMORTIZED, seed: int = 0
) -> Any:
    """Infer q(z|x) of every example in some batches, sorted by ``index``, on the CPU.

    All code that needs the posteriors of a dataset calls this function or uses the same noise, so
    that with a given seed an example has the same posterior everywhere.

    Args:
        model: A model; it is in evaluation mode meanwhile.
        batches: Batches in which no index occurs twice. Examples with a negative index only stand
            in where there are none: they show what kind of posterior the model has.
        options: How q(z|x) is found.
        seed: Seed of the refinement steps' noise.
    """
    parts, indices = [], []
    with undisturbed(model, seed):
        for batch in batches:
            noise = RowNoise(seed, Purpose.STEPS, batch.index)
            q = infer(model, batch.to(model.device), options, noise=noise).posterior
            parts.append(move(q, "cpu"))
            indices.append(batch.index.cpu())
    index = torch.cat(indices)
    order = index.argsort()
    return select(concatenate(parts), order[index[order] >= 0])
