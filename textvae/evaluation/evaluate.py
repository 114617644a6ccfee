"""The metrics card: how good a model is, and whether it uses its latent variable.

    rec  = E_q[log p(x|z)]     kl = KL(q(z|x) || p(z))     elbo = rec - kl <= iw <= log p(x)

``rec``, ``kl``, ``elbo``, ``iw`` are nats per example (``iw``: Burda et al. 2016, with K samples).
They are converted to other units only here:

    ppl_*            exp(-sum of bounds / sum of units), units = words + end of sentence
    ppl_token_*      the same per predicted token: not comparable between tokenizers
    bits_per_byte_*  -sum of bounds / (ln 2 * sum of bytes)
    bits_per_dim_*   the same per predicted symbol, for data without words

Since a bound is at most log p(x), each of these is at least its true value. Mutual information and
active units (``textvae.vae.estimators``) are computed over the whole dataset. ``shuffle_gap`` is
the increase of -log p(x|z) in nats per example when every example is decoded from the z of another
one. If the KL has no closed form, it is estimated from the draws of z (``kl_estimated``).

If inference refines q(z|x) by gradient steps on the ELBO, all metrics are those of the refined
posterior, and those of the encoder's output are given next to them (``encoder_*``): refinement
moves the mean of nearly every dimension, so AU or MI after refinement mean little without them.
``gap`` is what refinement adds to the ELBO, the amortization gap that it closes (Cremer et al.
2018), and ``elbo_by_step`` is the ELBO along the way.

A card does not depend on the batch size or on the order of the batches, and two models are compared
under the same noise (``textvae.evaluation.per_example``).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from textvae.config.experiment import Config
from textvae.config.inference import Inference
from textvae.evaluation.diagnosis.remedies import warning
from textvae.evaluation.diagnosis.remedy import as_read
from textvae.evaluation.diagnosis.training_state import Training
from textvae.evaluation.examination import (
    Batches,
    check_model,
    examine,
    is_negative,
    repeatable,
    why_wrong,
)
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.own_metrics import OwnMetric, check_own_metrics, measure_own
from textvae.runs.model_folder import is_built_in
from textvae.vae.aggregate import Pool
from textvae.vae.estimators import ACTIVE
from textvae.vae.inference import inference_of
from textvae.vae.modes import undisturbed

logger = logging.getLogger(__name__)


def evaluate(
    model: nn.Module,
    batches: Batches,
    *,
    samples: int = 200,
    elbo_samples: int = 1,
    mi_samples: int = 1,
    au_threshold: float = ACTIVE,
    shuffle: bool = True,
    seed: int = 0,
    inference: Inference | None = None,
    generation: Callable[[], Mapping[str, Any]] | None = None,
    progress: Callable[[int], None] | None = None,
    max_symbols: int | None = None,
    pool: Pool | None = None,
    config: Config | None = None,
    training: Training | None = None,
    own_metrics: Sequence[OwnMetric] = (),
) -> Card:
    """Compute the metrics card of a model on a whole dataset.

    It works with any ``VAE``, or any module with the attributes of
    ``textvae.vae.contracts.LatentModel``. The global random state and the train/eval mode of the
    model do not change.

    Args:
        model: The model.
        batches: Every row of the dataset once, in any order, as ``Batch`` objects, or as plain
            tensors x, whose rows are numbered in the order given; or a function that returns them.
        samples: K of the importance-weighted bound; 0 skips it (``iw`` is None).
        elbo_samples: Draws of z for ``rec`` if K is 0; otherwise ``rec`` uses the K draws.
        mi_samples: Draws of z per example for the mutual information.
        au_threshold: Variance of a mean that makes a dimension active (``au_02`` is always 0.02).
        shuffle: Whether to decode every example from the z of another one.
        seed: Seed of all noise.
        inference: How q(z|x) is found; by default, as the model was trained (``TextVAE``,
            ``ImageVAE``), or by the encoder alone. ``textvae.config.inference.for_evaluation``
            makes steps independent of the batch.
        generation: Called last, for additional keys (``textvae.text.quality.text_quality``).
        progress: Called with the number of examples done.
        max_symbols: Maximum number of symbols decoded at once; limits memory. The default depends
            on the device.
        pool: Posteriors of more examples, to compute holes and CU from: a few examples hide holes.
        config: The experiment, so that ``collapse`` does not suggest what the model already has.
        training: How far the training got, so that no model is called collapsed too early.
        own_metrics: Functions of your own that are called with (model, batches) before anything
            else is computed. Each returns a number, which has the name of the function on the card,
            or numbers by name, or None for a model for which it has no meaning.

    Returns:
        The metrics; their keys are described in the module's docstring and in
        ``textvae.evaluation.metrics.table``.

    Raises:
        ValueError: There are no examples, or a row occurs twice.
        UserError: A metric of your own failed.
    """
    started = time.perf_counter()
    check_own_metrics(own_metrics)
    check_model(model)
    with undisturbed(model, seed), torch.no_grad():
        batches = repeatable(batches)
        own = measure_own(own_metrics, model, batches, seed)
    with undisturbed(model, seed), torch.no_grad():
        found = examine(
            model,
            batches,
            samples=samples,
            elbo_samples=elbo_samples,
            mi_samples=mi_samples,
            au_threshold=au_threshold,
            shuffle=shuffle,
            seed=seed,
            inference=inference_of(model, inference),
            progress=progress,
            max_symbols=max_symbols,
            pool=pool,
        )
        card = found.card | dict(generation() if generation is not None else {}) | own
    symptoms = found.symptoms
    if config is not None:
        config = as_read(config, model)
    impossible = is_negative(found.stats.total_kl)
    card["collapse"] = None
    if symptoms is not None and not impossible:
        card["collapse"] = warning(symptoms, config, training, own=not is_built_in(type(model)))
    if not math.isfinite(card["elbo"]):
        logger.warning(
            "the ELBO of the model is %s: its weights or its data are not finite", card["elbo"]
        )
    if impossible:
        logger.warning("%s, and so are the ELBO, IW, and MI", why_wrong(card["kl"]))
    card["seconds"] = time.perf_counter() - started
    described = Card(card)
    described.iw_by_example = found.stats.bound if samples else None
    return described


def evaluate_quick(model: nn.Module, batches: Batches, *, seed: int = 0, **options: Any) -> Card:
    """Compute the card for validation during training: without ``iw`` and ``shuffle_gap``."""
    return evaluate(model, batches, samples=0, shuffle=False, seed=seed, **options)
