"""The criterion by which a training run selects its best model."""

from __future__ import annotations

from typing import NamedTuple

from textvae.config.experiment import Config


class Goal(NamedTuple):
    """What a run keeps its best model by, on the validation split: rec - beta max(KL, free nats).

    By its ELBO, a run with a small KL weight or many free nats would keep an early model: the best
    at something it is not trained for. Terms of the objective that a validation does not compute
    are left out: the MMD, and what IWAE's bound adds to the ELBO.

    Attributes:
        beta: The KL weight after warm-up.
        free: Nats of KL that are not penalized, or that training demands (``min_kl``). The KL of
            each dimension of each example may be free, but only their mean sum counts here, so the
            goal is the ELBO wherever that exceeds the free nats.
    """

    beta: float
    free: float = 0.0

    @classmethod
    def of(cls, config: Config) -> Goal:
        """Return the goal of an experiment."""
        if not config.model.latent_dim:
            return cls(1.0)
        objective = config.objective
        return cls(objective.beta, max(objective.free_bits, objective.min_kl))

    @property
    def name(self) -> str:
        """The name of the criterion in log messages."""
        kl = f"max(kl, {self.free:g})" if self.free else "kl"
        if self.beta == 1:
            return f"rec - {kl}" if self.free else "elbo"
        return f"rec - {self.beta:g} {kl}" if self.beta else "rec"

    def reached(self, rec: float, elbo: float) -> float:
        """Return the criterion for a model, in nats per example; its KL is rec - elbo."""
        kl = rec - elbo
        if self.beta == 1 and kl >= self.free:
            return elbo
        return rec - self.beta * max(kl, self.free)
