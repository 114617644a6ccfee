"""The one metrics card: what a model is worth and whether it uses its latent.

    rec  = E_q[log p(x|z)]     kl = KL(q(z|x) || p(z))     elbo = rec - kl <= iw <= log p(x)

``rec``, ``kl``, ``elbo``, ``iw`` are nats per example (``iw``: Burda et al. 2016, with K samples).
Only here they become something else:

    ppl_*            exp(-sum of bounds / sum of units), units = words + end of sentence
    ppl_token_*      the same per predicted token: not comparable between tokenizers
    bits_per_byte_*  -sum of bounds / (ln 2 * sum of bytes);  bits_per_dim_* per predicted symbol

As a bound lies below log p(x), each of these lies above its true value. Mutual information and
active units (``textvae.vae.estimators``) are over the whole set. ``shuffle_gap`` is the rise of
-log p(x|z) in nats per example when every example is decoded from the z of another one.

Where inference refines q(z|x) by steps on the ELBO, every figure is that of the refined posterior,
and the encoder's own stand beside it (``encoder_*``): refinement moves the mean of nearly every
dimension, so AU or MI after it say little alone. ``gap`` is what it adds to the ELBO, the
amortisation gap that it closes (Cremer et al. 2018), and ``elbo_by_step`` how.

A card changes neither with the batch size nor with the order of the batches, and two models are
compared under the same noise (``textvae.evaluation.per_example``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textvae.config.inference import Inference
from textvae.evaluation.per_example import CYCLE, DONOR, MIXTURE, Rows, collect, row_noise
from textvae.vae.batch import Batch
from textvae.vae.estimators import mean_variances, mutual_information
from textvae.vae.inference import AMORTISED
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.vae import VAE

Card = dict[str, Any]
Batches = Iterable[Batch] | Callable[[], Iterable[Batch]]

REMEDIES = (
    "model.injection=skip, objective.kl_schedule=linear, objective.free_bits=4, "
    "model.word_dropout=0.3"
)
IGNORED = 0.1  # nats: a KL or a shuffle gap below it is a latent that is not used


def evaluate(
    model: VAE,
    batches: Batches,
    *,
    samples: int = 200,
    elbo_samples: int = 1,
    mi_samples: int = 1,
    au_threshold: float = 0.01,
    shuffle: bool = True,
    seed: int = 0,
    inference: Inference = AMORTISED,
    generation: Callable[[], Mapping[str, Any]] | None = None,
    progress: Callable[[int], None] | None = None,
    max_symbols: int | None = None,
    remedies: str = REMEDIES,
) -> Card:
    """The metrics card of a model on a whole split; keys as in the module's docstring.

    Neither the global random state nor the train/eval mode of the model changes.

    Args:
        batches: every row of the split once, in any order; or a function that gives them.
        samples: K of the importance-weighted bound; 0 leaves ``iw`` out (None).
        elbo_samples: draws of z for ``rec`` where K is 0; else the K draws serve ``rec`` as well.
        mi_samples: draws of z per example for the mutual information.
        au_threshold: variance of a mean that makes a dimension active (``au_02`` is always 0.02).
        inference: how q(z|x) is found (``textvae.config.inference.for_evaluation`` makes its steps
            independent of the batch).
        generation: called last, for further keys (``textvae.text.quality.text_quality``).
        progress: called with the number of examples done.
        max_symbols: decoded at once; bounds memory; by default the device's.
        remedies: what ``collapse`` tells the user to try.

    Raises:
        ValueError: no example, or the same row twice.
    """
    started = time.perf_counter()
    source = _repeatable(batches)
    with undisturbed(model, seed), torch.no_grad():
        draws = samples or elbo_samples
        rows = collect(model, source(), draws, seed, inference, progress, max_symbols)
        card = _bounds(rows, samples)
        card |= _latent(rows.posterior, rows.index, mi_samples, au_threshold, seed)
        if rows.path.size(1):
            own = _latent(rows.own_posterior, rows.index, mi_samples, au_threshold, seed)
            card |= _refinement(rows, card["elbo"], None if model.encoder is None else own)
        card["shuffle_gap"] = _shuffle_gap(model, source(), rows, seed) if shuffle else None
        card |= generation() if generation is not None else {}
    card["collapse"] = verdict(card, remedies)
    card["seconds"] = time.perf_counter() - started
    return card


def evaluate_quick(model: VAE, batches: Batches, *, seed: int = 0, **options: Any) -> Card:
    """The same card for validation during training: without ``iw`` and ``shuffle_gap``."""
    return evaluate(model, batches, samples=0, shuffle=False, seed=seed, **options)


def _repeatable(batches: Batches) -> Callable[[], Iterable[Batch]]:
    if callable(batches):
        return batches
    kept = list(batches) if isinstance(batches, Iterator) else batches
    return lambda: kept


@contextmanager
def undisturbed(model: torch.nn.Module, seed: int = 0) -> Iterator[None]:
    """Evaluation mode and a seeded random state inside; both as they were afterwards."""
    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _bounds(rows: Rows, samples: int) -> Card:
    """Likelihood figures and what they are counted in."""
    rec = rows.rec.double()
    kl = rows.posterior.kl_to_prior().double().sum(-1)  # (N,)
    card: Card = {"rec": float(rec.mean()), "kl": float(kl.mean())}
    bounds = {"elbo": rec - kl, "iw": rows.bound.double() if samples else None}
    units, symbols, num_bytes = (
        int(column.sum()) for column in (rows.units, rows.lengths, rows.num_bytes)
    )
    for name, bound in bounds.items():
        nats = None if bound is None else -float(bound.sum())
        card[name] = None if bound is None else float(bound.mean())
        card[f"ppl_{name}"] = _perplexity(nats, units)
        card[f"ppl_token_{name}"] = _perplexity(nats, symbols)
        card[f"bits_per_byte_{name}"] = _per(nats, num_bytes, math.log(2))
        card[f"bits_per_dim_{name}"] = _per(nats, symbols, math.log(2))
    counts = {"count": len(rec), "units": units, "tokens": symbols, "bytes": num_bytes}
    return card | counts | {"samples": samples}


def _per(nats: float | None, count: int, scale: float = 1.0) -> float | None:
    return None if nats is None or not count else nats / (count * scale)


def _perplexity(nats: float | None, count: int) -> float | None:
    rate = _per(nats, count)
    return rate if rate is None else math.exp(rate) if rate < 700 else math.inf


def _latent(q: DiagGaussian, index: Tensor, mi_samples: int, threshold: float, seed: int) -> Card:
    """How much z knows of x, for q (N, Z)."""
    latent_dim = q.mean.size(1)
    noise = row_noise(seed, MIXTURE, index, mi_samples, latent_dim)
    information = mutual_information(q, noise=noise)
    variances = mean_variances(q.mean)
    return {
        "kl": information.kl,
        "kl_per_dim": q.kl_to_prior().double().mean(0).tolist(),
        "mi": information.mi,
        "mi_se": information.standard_error,
        "mi_max": information.ceiling,
        "marginal_kl": information.marginal_kl,
        "au": int((variances >= threshold).sum()),
        "au_02": int((variances >= 0.02).sum()),
        "au_threshold": threshold,
        "mean_variances": variances.tolist(),
        "latent_dim": latent_dim,
    }


def _refinement(rows: Rows, elbo: float, own: Card | None) -> Card:
    """How the steps moved the posterior; ``own`` is the encoder's card, None without one."""
    start = float((rows.own_rec - rows.own_posterior.kl_to_prior().sum(-1)).double().mean())
    card: Card = {
        "refine_steps": rows.path.size(1),
        "elbo_by_step": [*rows.path.double().mean(0).tolist(), elbo],
    }
    if own is not None:
        card |= {f"encoder_{key}": own[key] for key in ("kl", "mi", "au")}
        card |= {"encoder_elbo": start, "gap": elbo - start}
    return card


def _shuffle_gap(model: VAE, batches: Iterable[Batch], rows: Rows, seed: int) -> float | None:
    """Nats per example that log p(x|z) falls when z comes from another example of the set.

    The examples stand in one random ring and each passes its z on, so that none keeps its own.
    None without a latent, or with a single example.
    """
    count, latent_dim = rows.posterior.mean.shape
    if count < 2 or latent_dim == 0:
        return None
    ring = torch.from_numpy(np.random.default_rng([seed, CYCLE]).permutation(count))
    donors = torch.empty_like(ring)
    donors[ring] = ring.roll(1)
    device, total = next(model.parameters()).device, 0.0
    for batch in batches:
        places = torch.searchsorted(rows.index, batch.index.cpu())
        q = DiagGaussian(*(part[donors[places]] for part in rows.posterior))
        noise = row_noise(seed, DONOR, batch.index, 1, latent_dim).to(q.mean)
        z = (q.mean + torch.exp(0.5 * q.logvar) * noise).to(device)  # (1, B, Z)
        total += float(model.log_likelihood(batch.to(device), z).double().sum())
    return float(rows.rec.double().mean()) - total / count


def verdict(card: Card, remedies: str = REMEDIES) -> str | None:
    """One sentence if z is not used, with what to try; None if all is well or there is no z."""
    if not card["latent_dim"]:
        return None
    au = card.get("encoder_au", card["au"])
    facts = f"KL {card['kl']:.2f}, {au} of {card['latent_dim']} units active"
    gap = card["shuffle_gap"]
    if card["kl"] < IGNORED or au == 0:
        return f"the decoder ignores z: {facts}; try {remedies}"
    if gap is not None and gap < IGNORED:
        return (
            f"z is encoded ({facts}) but the decoder does not read it: the z of another example "
            f"costs {gap:.2f} nats; try {remedies}"
        )
    return None
