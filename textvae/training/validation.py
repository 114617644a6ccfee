"""Evaluation on the validation split during training, and what it logs."""

from __future__ import annotations

import logging
from typing import Any

from textvae.builders.data import build_buckets
from textvae.config.experiment import Config
from textvae.evaluation.diagnosis.advice import overshoot
from textvae.evaluation.diagnosis.training_state import too_early
from textvae.evaluation.evaluate import evaluate_quick
from textvae.evaluation.labels import label_of
from textvae.evaluation.metrics.metric import decimals
from textvae.evaluation.open_run import spaced
from textvae.evaluation.per_example import posteriors
from textvae.training.monitor import Monitor
from textvae.vae.batch import Split
from textvae.vae.model import Model
from textvae.vae.modes import undisturbed

logger = logging.getLogger(__name__)


def validate(
    model: Model,
    split: Split,
    config: Config,
    monitor: Monitor,
    step: int,
    epoch: float,
    beta: float,
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate the model, log its metrics card, and warn if the model ignores z.

    Args:
        model: The model being trained.
        split: The validation split.
        config: The experiment.
        monitor: Training logs.
        step: Training steps done.
        epoch: Epochs done, including the fraction of the current one.
        beta: KL weight of the last update.
        before: Card of the previous evaluation, so that a collapse is reported only once.
    """
    rows = build_buckets(config, split).sequential()
    card = evaluate_quick(
        model,
        lambda: (split.batch(r) for r in rows),
        seed=config.train.seed,
        inference=model.inference,
        config=config,
    )
    _log(card, epoch)
    if too_early(epoch, beta, config.objective.beta) or _has_new_decoder(config, epoch):
        card["collapse"] = None
    if card["collapse"] and not (before or {}).get("collapse"):
        logger.warning(card["collapse"])
    if round(card.get("gap", 0), 2) < 0:
        logger.warning(overshoot(card["gap"], config))
    monitor.validation(step, epoch, card, beta if card["latent_dim"] else None)
    show_examples(model, split, config.train.samples, monitor, step)
    return card


def _has_new_decoder(config: Config, epoch: float) -> bool:
    """Return whether the decoder was reset after autoencoding and has had an epoch at most."""
    options = config.train
    is_reset = options.autoencode_epochs > 0 and options.autoencode_decoder == "reset"
    return is_reset and epoch <= options.autoencode_epochs + 1


def _log(card: dict[str, Any], epoch: float) -> None:
    text = f"epoch {epoch:.2f} valid: elbo {decimals(card['elbo'])}"
    if card["latent_dim"]:
        text += f" = rec {decimals(card['rec'])} - kl {decimals(card['kl'])}"
    if card["ppl_elbo"] is not None:
        text += f", ppl_elbo {decimals(card['ppl_elbo'])}"
    if card["latent_dim"]:
        text += f", mi {decimals(card['mi'])}, au {card['au']} of {card['latent_dim']}"
    logger.info(text)
    if "gap" in card:
        logger.info(
            "before refinement: elbo %s (gap %s), kl %s, mi %s, au %d",
            *(decimals(card[key]) for key in ("encoder_elbo", "gap", "encoder_kl", "encoder_mi")),
            card["encoder_au"],
        )


def show_examples(model: Model, split: Split, count: int, monitor: Monitor, step: int) -> None:
    """Write samples and reconstructions to TensorBoard."""
    if not count:
        return
    with undisturbed(model):
        previews = model.previews(split, count)
    for title, shown in previews.items():
        monitor.show(step, title, shown)


def show_latent_space(model: Model, split: Split, count: int, monitor: Monitor) -> None:
    """Write the posterior means and labels of some examples to TensorBoard's projector."""
    count = min(count, len(split))
    if not model.latent_dim or count < 2:
        return
    rows = spaced(len(split), count)
    with undisturbed(model):
        q = posteriors(model, split, rows)
    table = [(label_of(split, row) or "", split.caption(row)) for row in rows.tolist()]
    monitor.projector(q.center(), table, split.thumbnails(rows))
