"""How tight the lower bounds on log p(x) are: the inference gap, and what it consists of.

    log p(x) - ELBO(q) = [ELBO(q*) - ELBO(q)] + [log p(x) - ELBO(q*)]
                          amortization gap       approximation gap

where q is the encoder's output and q* the best posterior of the same family for this x alone
(Cremer, Li & Duvenaud 2018, "Inference Suboptimality in Variational Autoencoders"). q* is found as
for the likelihood regret; log p(x) is estimated by annealed importance sampling
(``textvae.vae.annealing``), or by the importance-weighted bound where that is higher.

Both are lower bounds in expectation. How far they can be from log p(x) is known for examples that
the model itself has generated: the same chains, walked backward from the z that an example came
from, give an upper bound.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textvae.config.arguments import check_integers
from textvae.config.inference import AMORTIZED, Inference, with_steps
from textvae.errors import UserError, quantity
from textvae.evaluation.bounds.result import Bounds
from textvae.evaluation.examination import check_model
from textvae.evaluation.per_example import ExampleStats, collect
from textvae.evaluation.scoring.regret import REGRET_STEPS, likelihood_regret
from textvae.vae.annealing import Annealed, anneal
from textvae.vae.batch import Batch, device_of, numbered
from textvae.vae.inference import infer, inference_of
from textvae.vae.modes import undisturbed
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.von_mises_fisher import UniformSphere

logger = logging.getLogger(__name__)


def bounds(
    model: Any,
    batches: Iterable[Any],
    *,
    samples: int = 200,
    chains: int = 5,
    steps: int = 25,
    leapfrogs: int = 5,
    regret_steps: int = REGRET_STEPS,
    simulated: int = 0,
    seed: int = 0,
    inference: Inference | None = None,
    progress: Callable[[int], None] | None = None,
    name: str = "",
    split: str = "",
) -> Bounds:
    """Compare four lower bounds on log p(x), and, for generated examples, an upper one.

    It works with any ``VAE``, or any module with the attributes of
    ``textvae.vae.contracts.LatentModel``, whose posterior has a density over all of R^Z.

    Args:
        model: The model.
        batches: Every example once, as ``Batch`` objects in any order, or as plain tensors.
        samples: K, draws of z for the ELBOs and the importance-weighted bound. With few draws, the
            best posterior seems better than it is, because it is chosen by them.
        chains: Chains of annealed importance sampling for every example.
        steps: Intermediate distributions; more of them are tighter and take longer.
        leapfrogs: Gradient steps between two of them.
        regret_steps: Gradient steps that look for a better posterior of the same family; 0 skips
            the search.
        simulated: Number of examples to generate, for the upper bound; 0 skips it. The model needs
            the method ``simulate``, as a ``TextVAE`` and an ``ImageVAE`` have it.
        seed: Seed of all noise.
        inference: How q(z|x) is found where IW and AIS start; by default, as the model was trained
            (``TextVAE``, ``ImageVAE``), or by the encoder alone.
        progress: Called with the number of examples done by annealed importance sampling.
        name: Name of the model, to be shown.
        split: What the examples are, to be shown.

    Raises:
        UserError: The model has no latent variable, z lies on a sphere, or a number is out of
            range.
        ValueError: There are no examples, or a row occurs twice.
    """
    _check(model, simulated)
    check_integers(1, samples=samples, chains=chains, steps=steps, leapfrogs=leapfrogs)
    check_integers(0, regret_steps=regret_steps, simulated=simulated)
    kept, chosen = list(numbered(batches)), inference_of(model, inference)
    walk = partial(anneal, model, chains=chains, steps=steps, leapfrogs=leapfrogs, seed=seed)

    def examine(some: Iterable[Batch], options: Inference) -> ExampleStats:
        return collect(model, some, samples, seed, options, own_draws=0)

    with undisturbed(model, seed), torch.no_grad():
        has_encoder = getattr(model, "has_encoder", True)
        is_refined = has_encoder and chosen.method != "amortized"
        own = examine(kept, AMORTIZED if has_encoder else chosen)
        stats = examine(kept, chosen) if is_refined else own
        best = None
        if regret_steps and has_encoder:
            logger.info("looking for the best q(z|x) of every example")
            steps_of = with_steps(chosen, regret_steps, has_encoder=True)
            best = own.elbo + likelihood_regret(examine, kept, own, steps_of)
            if stats.elbo.mean() > best.mean():
                best = stats.elbo
        logger.info("annealed importance sampling")
        annealed = _annealed(model, kept, chosen, seed, walk, progress)
        lower, upper = _simulated(model, simulated, chosen, seed, walk)
    return Bounds(
        elbo=own.elbo.numpy(),
        refined=stats.elbo.numpy() if is_refined else None,
        best=None if best is None else best.numpy(),
        iw=stats.bound.double().numpy(),
        ais=annealed.lower.double().numpy(),
        units=stats.units.numpy(),
        samples=samples,
        chains=chains,
        steps=steps,
        accepted=float(annealed.accepted.mean()) if steps > 1 else None,
        requested=simulated,
        lower=lower,
        upper=upper,
        name=name,
        split=split,
    )


def _check(model: Any, simulated: int) -> None:
    check_model(model)
    if simulated and not hasattr(model, "simulate"):
        raise UserError(
            f"simulated={simulated}: {type(model).__name__} has no method simulate, which returns "
            "generated examples with the z that they came from: add it, or set simulated=0"
        )
    if not model.prior.latent_dim:
        raise UserError("a language model needs no bounds: its log p(x) is known")
    if isinstance(model.prior, UniformSphere):
        raise UserError(
            "annealed importance sampling moves through all of the latent space, and the z of this "
            "model lies on a sphere"
        )


def _annealed(
    model: Any,
    batches: Sequence[Batch],
    inference: Inference,
    seed: int,
    walk: Callable[..., Annealed],
    progress: Callable[[int], None] | None,
) -> Annealed:
    """Return the chains of all examples, sorted by index."""
    parts, indices, done = [], [], 0
    for batch in batches:
        here = batch.to(device_of(model))
        noise = RowNoise(seed, Purpose.STEPS, batch.index)
        q = infer(model, here, inference, noise=noise).posterior
        found = walk(here, posterior=q)
        parts.append([part.cpu() for part in found])
        indices.append(batch.index.cpu())
        done += len(batch)
        if progress is not None:
            progress(done)
    order = torch.cat(indices).argsort()
    return Annealed(*(torch.cat(column, -1)[..., order] for column in zip(*parts, strict=True)))


def _simulated(
    model: Any, count: int, inference: Inference, seed: int, walk: Callable[..., Annealed]
) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bounds on log p(x) of examples that the model has generated, (M,)."""
    lower: list[Tensor] = []
    upper: list[Tensor] = []
    if count:
        logger.info("the same for %s", quantity(count, "generated example"))
    for batch, z in model.simulate(count, seed=seed) if count else ():
        here = batch.to(device_of(model))
        noise = RowNoise(seed, Purpose.STEPS, batch.index)
        q = infer(model, here, inference, noise=noise).posterior
        lower.append(walk(here, posterior=q).lower)
        upper.append(walk(here, posterior=q, exact=z.to(here.x.device)).upper)
    empty = torch.empty(0)
    found = (torch.cat([empty, *(part.cpu().double() for part in each)]) for each in (lower, upper))
    below, above = (each.double().numpy() for each in found)
    return below, above
