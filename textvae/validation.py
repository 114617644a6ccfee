"""The card of the validation split during training, and what the user gets to see of it."""

from __future__ import annotations

import logging
from typing import Any

from textvae.build import build_buckets
from textvae.config import Config
from textvae.evaluate import evaluate_quick
from textvae.monitor import Monitor
from textvae.remedies import remedies
from textvae.text.batching import collate
from textvae.text.encoded import EncodedSplit
from textvae.text.model import TextVAE

logger = logging.getLogger(__name__)


def validate(
    model: TextVAE,
    split: EncodedSplit,
    config: Config,
    monitor: Monitor,
    step: int,
    epoch: float,
    beta: float,
) -> dict[str, Any]:
    """Evaluates the model, logs the card and warns where z is not used; ``beta`` is the KL's
    weight by now."""
    rows = build_buckets(config, split).sequential()
    card = evaluate_quick(
        model,
        lambda: (collate(split, r) for r in rows),
        seed=config.train.seed,
        inference=model.inference,
        remedies=remedies(config),
    )
    logger.info(
        "epoch %.2f valid: elbo %.2f = rec %.2f - kl %.2f, ppl_elbo %.2f, mi %.2f, au %d of %d",
        epoch,
        *(card[key] for key in ("elbo", "rec", "kl", "ppl_elbo", "mi", "au", "latent_dim")),
    )
    if "gap" in card:
        logger.info(
            "without the refinement: elbo %.2f lower, kl %.2f, mi %.2f, au %d",
            *(card[key] for key in ("gap", "encoder_kl", "encoder_mi", "encoder_au")),
        )
    just_begun = epoch <= 1 and beta < config.objective.beta  # the encoder has hardly learnt yet
    if card["collapse"] and not just_begun:
        logger.warning(card["collapse"])
    monitor.validation(step, epoch, card)
    show_sentences(model, split, config.train.samples, monitor, step)
    return card


def show_sentences(
    model: TextVAE, split: EncodedSplit, count: int, monitor: Monitor, step: int
) -> None:
    """Samples and reconstructions for TensorBoard."""
    if not count:
        return
    monitor.texts(step, "samples", model.sample(count))
    if model.latent_dim:
        texts = [split.text(i) for i in range(min(count, len(split)))]
        pairs = zip(texts, model.reconstruct(texts), strict=True)
        monitor.texts(step, "reconstructions", [f"{a} → {b}" for a, b in pairs])


def show_latent_space(
    model: TextVAE, split: EncodedSplit, count: int, monitor: Monitor, step: int
) -> None:
    """Posterior means of some sentences, with their labels, for TensorBoard's projector."""
    count = min(count, len(split))
    if not model.latent_dim or count < 2:
        return
    texts = [split.text(i) for i in range(count)]
    labels = [""] * count
    if split.labels is not None:
        labels = [split.label_names[label] for label in split.labels[:count]]
    monitor.projector(step, model.encode(texts).mean, list(zip(labels, texts, strict=True)))
