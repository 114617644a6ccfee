"""The card of the validation split during training, and what the user gets to see of it."""

from __future__ import annotations

import logging
from typing import Any

from textvae.build import build_buckets
from textvae.config import Config
from textvae.evaluate import evaluate_quick
from textvae.monitor import Monitor
from textvae.progress import decimals
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
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluates the model, logs the card and warns where z is used no longer.

    Args:
        beta: the KL's weight by now.
        before: the card of the evaluation before, so that a collapse is told once.
    """
    rows = build_buckets(config, split).sequential()
    card = evaluate_quick(
        model,
        lambda: (collate(split, r) for r in rows),
        seed=config.train.seed,
        inference=model.inference,
        remedies=remedies(config),
    )
    logger.info(
        "epoch %.2f valid: elbo %s = rec %s - kl %s, ppl_elbo %s, mi %s, au %d of %d",
        epoch,
        *(decimals(card[key]) for key in ("elbo", "rec", "kl", "ppl_elbo", "mi")),
        *(card[key] for key in ("au", "latent_dim")),
    )
    if "gap" in card:
        logger.info(
            "without the refinement: elbo %s lower, kl %s, mi %s, au %d",
            *(decimals(card[key]) for key in ("gap", "encoder_kl", "encoder_mi")),
            card["encoder_au"],
        )
    if epoch <= 1 and beta < config.objective.beta:
        card["collapse"] = None  # too early to tell: the encoder has hardly learnt yet
    if card["collapse"] and not (before or {}).get("collapse"):
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
