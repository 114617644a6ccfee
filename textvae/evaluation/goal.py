"""The criterion by which a training run selects its best model."""

from __future__ import annotations

from typing import NamedTuple

from textvae.config.experiment import Config


class Goal(NamedTuple):
    """The ELBO on the validation split, with the KL weight that the training ends with.

    With any other weight, a run would keep an early model: the best at something it is not trained
    for.

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
        """The name of the criterion in log messages."""
        return "elbo" if self.beta == 1 else f"rec - {self.beta:g} kl"

    def reached(self, rec: float, elbo: float) -> float:
        """Return the criterion for a model, in nats per example; its KL is rec - elbo."""
        return elbo if self.beta == 1 else rec - self.beta * (rec - elbo)
