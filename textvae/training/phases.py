"""The phases of a run: autoencode first, if asked for, and then train with the KL."""

from __future__ import annotations

from dataclasses import replace

from textvae.config.experiment import Config, OptimConfig
from textvae.training.optim import LearningRate
from textvae.vae.objectives import kl_weight


class Phases:
    """The KL weight, the optimizer, and the learning rate of every step of a run.

    A run has one phase, or two (Li et al. 2019): in the first, the KL weight is 0 and the learning
    rate does not decay. The second starts like a new run whose encoder is already trained: all
    schedules, and the search for the best model, start there.

    Args:
        config: The experiment.
        epoch_steps: Training steps per epoch.

    Attributes:
        autoencode_steps: Steps of the first phase; 0 if there is none.
        total_steps: Steps of both phases.
        lr: The learning rate of the second phase.
    """

    def __init__(self, config: Config, epoch_steps: int) -> None:
        train = config.train
        self.objective, self.epoch_steps = config.objective, epoch_steps
        self.autoencode_steps = round(train.autoencode_epochs * epoch_steps)
        steps = self.autoencode_steps + train.epochs * epoch_steps
        self.total_steps = min(steps, train.max_steps or steps)
        self.lr = LearningRate(config.optim, self.total_steps - self.autoencode_steps)
        first = replace(config.optim, schedule="constant")
        if first.autoencode_name is not None:
            first = replace(
                first, name=first.autoencode_name, lr=first.autoencode_lr, encoder_name=None
            )
        self._autoencode_lr = LearningRate(first, self.autoencode_steps)

    def autoencoding(self, step: int) -> bool:
        """Return whether a step belongs to the first phase."""
        return step < self.autoencode_steps

    def optimizer(self, step: int) -> OptimConfig:
        """Return the options of the optimizer that makes a training step."""
        return self._autoencode_lr.config if self.autoencoding(step) else self.lr.config

    def beta(self, step: int) -> float:
        """Return the weight of the KL at a training step."""
        if self.autoencoding(step):
            return 0.0
        options = self.objective
        return kl_weight(
            step - self.autoencode_steps,
            options.kl_schedule,
            beta=options.beta,
            start=min(options.kl_start, options.beta),  # the weight never falls in warm-up
            steps=round(options.kl_epochs * self.epoch_steps),
            ramp=options.kl_ramp,
        )

    def learning_rate(self, step: int) -> float:
        """Return the learning rate at a training step."""
        if self.autoencoding(step):
            return self._autoencode_lr.at(step)
        return self.lr.at(step - self.autoencode_steps)

    def observe(self, elbo: float, step: int) -> bool:
        """Take a validation after ``step`` steps into account.

        Returns:
            Whether it reduced the learning rate.
        """
        return self.lr.observe(elbo, (step - self.autoencode_steps) / self.epoch_steps)
