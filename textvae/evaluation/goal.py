"""What chooses the best model of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textvae.config.experiment import Config


def goal(config: Config) -> tuple[str, float]:
    """Return the goal by name, and the weight of the KL in it.

    It is the ELBO on the validation split with the KL weight after warm-up. With any other weight,
    an early model would be chosen from a training that goes somewhere else.
    """
    beta = config.objective.beta if config.model.latent_dim else 1.0
    return ("elbo" if beta == 1 else f"rec - {beta:g} kl"), beta


def reached(card: Mapping[str, Any], config: Config) -> float:
    """Return how far a model has come (nats per example), from its validation card."""
    _, beta = goal(config)
    return float(card["elbo"] if beta == 1 else card["rec"] - beta * card["kl"])
