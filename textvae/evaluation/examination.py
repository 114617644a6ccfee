"""Everything that is measured on a dataset: the metrics of a card, and what a diagnosis needs.

``textvae.evaluation.evaluate`` describes the metrics.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from textvae.config.arguments import check_integers
from textvae.config.inference import AMORTIZED, Inference
from textvae.evaluation.per_example import ExampleStats, collect
from textvae.evaluation.shuffle import condition_gaps, shuffle_gaps
from textvae.evaluation.symptoms import Symptoms, symptoms_of
from textvae.vae.aggregate import DRAWS, Pool, consistent_units, hole_shares, marginal_kls
from textvae.vae.batch import Batch, numbered
from textvae.vae.estimators import (
    ACTIVE,
    PointwiseInformation,
    mean_variances,
    pointwise_information,
    summarize_information,
)
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.posteriors import closed_kl

logger = logging.getLogger(__name__)
ENOUGH = 10  # examples, for a standard error that can be relied on
Batches = Iterable[Batch | Tensor] | Callable[[], Iterable[Batch | Tensor]]


class Examination(NamedTuple):
    """Everything that was measured on a dataset."""

    card: dict[str, Any]
    stats: ExampleStats
    symptoms: Symptoms | None  # None without a latent variable
    marginal_kls: Tensor | None  # (Z,) KL(p(z_d) || q(z_d)), if it can be computed


def check_model(model: Any) -> None:
    """Check that a module has what an examination needs of ``LatentModel``.

    Raises:
        TypeError: The model is the name of a folder, or a part is missing.
    """
    if isinstance(model, str | Path):
        raise TypeError(f"{str(model)!r} is a name: pass the model, textvae.load({str(model)!r})")
    needed = ("prior", "posterior", "log_likelihood")
    if missing := [name for name in needed if not hasattr(model, name)]:
        raise TypeError(
            f"{type(model).__name__} has no {', no '.join(missing)}: put its encoder and "
            "decoder into a textvae.VAE, or add them (textvae.vae.contracts.LatentModel)"
        )


def _warn_of_inference(model: Any, inference: Inference) -> None:
    has_encoder = getattr(model, "has_encoder", True) or not model.prior.latent_dim
    if inference.method == "amortized" and not has_encoder:
        logger.warning(
            "this model has no encoder, so its posterior is the same for all examples: pass "
            "inference=Inference(method='svi') to find each by gradient steps"
        )


@torch.no_grad()
def examine(
    model: nn.Module,
    batches: Batches,
    *,
    samples: int = 200,
    elbo_samples: int = 1,
    mi_samples: int = 1,
    au_threshold: float = ACTIVE,
    shuffle: bool = True,
    seed: int = 0,
    inference: Inference = AMORTIZED,
    progress: Callable[[int], None] | None = None,
    max_symbols: int | None = None,
    pool: Pool | None = None,
) -> Examination:
    """Measure what ``evaluate`` does, and keep what is needed for a diagnosis.

    The arguments are those of ``evaluate``. The model must be in evaluation mode.
    """
    check_model(model)
    check_integers(0, samples=samples)  # 0: no importance-weighted bound
    check_integers(1, elbo_samples=elbo_samples, mi_samples=mi_samples)
    _warn_of_inference(model, inference)
    source = repeatable(batches)
    draws = samples or elbo_samples
    stats = collect(model, source(), draws, seed, inference, progress, max_symbols)
    noise = RowNoise(seed, Purpose.MIXTURE, stats.index)
    information = pointwise_information(stats.posterior, mi_samples, noise=noise)
    own_information = None
    if stats.path.size(1) and getattr(model, "has_encoder", True):
        own_information = pointwise_information(stats.own_posterior, mi_samples, noise=noise)
    card = _bounds(stats, samples)
    card |= _latent(stats.posterior, stats.kl, information, au_threshold)
    card["kl_estimated"] = closed_kl(stats.posterior, model.prior) is None
    if stats.path.size(1):
        card |= _refinement(stats, card["elbo"], own_information, au_threshold)
    pool = pool or Pool(stats.posterior, stats.index)
    kls = marginal_kls(pool.posterior, model.prior, seed=seed)
    card |= _aggregate(pool, model, kls, seed)
    gaps = shuffle_gaps(model, source(), stats, seed) if shuffle else None
    card["shuffle_gap"] = None if gaps is None else float(gaps.mean())
    if shuffle and (by_condition := condition_gaps(model, source, stats, seed)) is not None:
        card["condition_gap"] = float(by_condition.mean())
    symptoms = None
    if card["latent_dim"]:
        symptoms = symptoms_of(
            stats,
            information,
            own_information,
            gaps,
            card["hole_share"],
            hole_draws=min(DRAWS, len(pool.index)),
            au_threshold=au_threshold,
            seed=seed,
        )
    return Examination(card, stats, symptoms, kls)


def is_negative(kl: Tensor) -> bool:
    """Return whether the mean KL of N examples, (N,), is certainly below 0."""
    if len(kl) < ENOUGH:
        return False
    return float(kl.mean()) < -0.01 - 4 * float(kl.std()) / math.sqrt(len(kl))


def why_wrong(kl: float) -> str:
    """Say what a negative KL means."""
    return (
        f"the KL is negative ({kl:.2f} nats), which no KL can be: the log density of the prior or "
        "of the posterior is wrong"
    )


def repeatable(batches: Batches) -> Callable[[], Iterable[Batch]]:
    """Return a function that returns the same batches whenever it is called."""
    if callable(batches):
        return lambda: numbered(batches())
    # Listed once: a shuffling loader would number plain tensors differently each time.
    as_given = (list, tuple, Tensor, np.ndarray, Batch)  # of which ``numbered`` takes the first two
    kept = batches if isinstance(batches, as_given) else list(batches)
    return lambda: numbered(kept)


def _bounds(stats: ExampleStats, samples: int) -> dict[str, Any]:
    """Compute the bounds in all units, and the counts behind the units."""
    rec = stats.rec.double()  # (N,)
    card: dict[str, Any] = {"rec": float(rec.mean()), "kl": float(stats.total_kl.mean())}
    bounds = {"elbo": stats.elbo, "iw": stats.bound.double() if samples else None}
    units, symbols, num_bytes = (
        int(column.sum()) for column in (stats.units, stats.lengths, stats.num_bytes)
    )
    for name, bound in bounds.items():
        nats = None if bound is None else -float(bound.sum())
        card[name] = None if bound is None else float(bound.mean())
        card[f"ppl_{name}"] = _perplexity(nats, units)
        card[f"ppl_token_{name}"] = _perplexity(nats, symbols) if units else None
        card[f"bits_per_byte_{name}"] = _per(nats, num_bytes, math.log(2))
        card[f"bits_per_dim_{name}"] = None if units else _per(nats, symbols, math.log(2))
    counts = {"count": len(rec), "units": units, "tokens": symbols, "bytes": num_bytes}
    weights = float(stats.effective.double().mean()) if samples else None
    return card | counts | {"samples": samples, "effective_samples": weights}


def _per(nats: float | None, count: int, scale: float = 1.0) -> float | None:
    return None if nats is None or not count else nats / (count * scale)


def _perplexity(nats: float | None, count: int) -> float | None:
    rate = _per(nats, count)
    return rate if rate is None else math.inf if rate >= 700 else math.exp(rate)


def _latent(
    q: Any, kl: Tensor, by_example: PointwiseInformation, threshold: float
) -> dict[str, Any]:
    """Measure how much z knows about x, from the posteriors of all N examples and their KL."""
    information = summarize_information(by_example, kl)
    variances = mean_variances(q.center())
    by_dimension, size = kl.double().mean(0).tolist(), q.center().size(1)
    return {
        "kl": information.kl,
        # An estimate is one number for all dimensions.
        "kl_per_dim": by_dimension if len(by_dimension) == size else None,
        "mi": information.mi,
        "mi_se": information.standard_error,
        "mi_max": information.ceiling,
        "mi_upper": information.upper,
        "marginal_kl": information.marginal_kl,
        "au": int((variances >= threshold).sum()),
        "au_02": int((variances >= 0.02).sum()),
        "au_threshold": threshold,
        "mean_variances": variances.tolist(),
        "latent_dim": size,
    }


def _aggregate(pool: Pool, model: Any, kls: Tensor | None, seed: int) -> dict[str, Any]:
    """Compare the aggregate posterior with the prior, and with the fitted sampler if any."""
    sampler = getattr(model, "sampler", None)
    samplers = [model.prior] if sampler is None else [model.prior, sampler]
    shares = hole_shares(pool.posterior, samplers, pool.index, seed=seed)
    card: dict[str, Any] = {"hole_share": shares[0] if shares else None}
    if sampler is not None:
        card["hole_share_aggregate"] = shares[1] if shares else None
    return card | {"cu": None if kls is None else consistent_units(kls)}


def _refinement(
    stats: ExampleStats,
    elbo: float,
    own_information: PointwiseInformation | None,
    threshold: float,
) -> dict[str, Any]:
    """Measure what refinement changed, if there is an encoder that it started from."""
    start = float((stats.own_rec - stats.own_kl.sum(-1)).double().mean())
    card: dict[str, Any] = {
        "refine_steps": stats.path.size(1),
        "elbo_by_step": [*stats.path.double().mean(0).tolist(), elbo],
    }
    if own_information is not None:
        own = _latent(stats.own_posterior, stats.own_kl, own_information, threshold)
        card |= {f"encoder_{key}": own[key] for key in ("kl", "kl_per_dim", "mi", "au")}
        card |= {"encoder_elbo": start, "gap": elbo - start}
    return card
