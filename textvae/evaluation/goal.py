"""What chooses the best model of a training."""

from __future__ import annotations

from typing import NamedTuple

from textvae.config.experiment import Config


class Goal(NamedTuple):
    """The ELBO on the validation split, with the KL weight that the training ends with.

    With any other weight, an early model would be chosen from a training that goes somewhere else.

    Attributes:
        beta: The KL weight after warm-up.
    """

    beta: float

    @classmethod
    def of(cls, config: Config) -> Goal:
        """Return the goal of an experiment."""
        return cls(config.objective.beta if config.model.latent_dim else 1.0)

    @property
    def name(self) -> str:
        """What log lines call it."""
        return "elbo" if self.beta == 1 else f"rec - {self.beta:g} kl"

    def reached(self, rec: float, elbo: float) -> float:
        """Return how far a model has come, in nats per example; its KL is rec - elbo."""
        return elbo if self.beta == 1 else rec - self.beta * (rec - elbo)
