"""The phases of a run: autoencode first, if asked for, and then train with the KL."""

from __future__ import annotations

import math
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace

from textvae.builders.own_code import what_failed
from textvae.config.experiment import Config, OptimConfig
from textvae.errors import UserError
from textvae.training.optim import LearningRate
from textvae.vae.contracts import KLSchedule
from textvae.vae.objectives import kl_weight


def _check_share(share: object, step: int) -> float:
    """Return what a KL schedule of the user's own returned, as a number.

    Raises:
        UserError: It is no number, negative, infinite, or NaN.
    """
    kind = type(share).__name__
    if isinstance(share, str | bytes):  # which float would read
        raise UserError(f"the KL schedule returned a {kind} at step {step}, not a number")
    try:
        found = float(share)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(f"the KL schedule returned a {kind} at step {step}, not a number") from None
    except OverflowError:
        found = math.inf
    if not 0 <= found < math.inf:
        raise UserError(f"the KL schedule returned {found} at step {step}: it must be 0 or more")
    return found


class Phases:
    """The KL weight, the optimizer, and the learning rate of every step of a run.

    A run has one phase, or two (Li et al. 2019): in the first, the KL weight is 0 and the learning
    rate does not decay. The second starts like a new run whose encoder is already trained: all
    schedules, and the search for the best model, start there.

    Args:
        config: The experiment.
        epoch_steps: Training steps per epoch.
        kl_schedule: The user's own, instead of ``objective.kl_schedule``.

    Attributes:
        autoencode_steps: Steps of the first phase; 0 if there is none.
        total_steps: Steps of both phases.
        lr: The learning rate of the second phase.
    """

    def __init__(
        self, config: Config, epoch_steps: int, kl_schedule: KLSchedule | None = None
    ) -> None:
        train = config.train
        self.objective, self.epoch_steps = config.objective, epoch_steps
        self.kl_schedule = kl_schedule
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
        options, done = self.objective, step - self.autoencode_steps
        if self.kl_schedule is not None:
            return options.beta * self._own_share(self.kl_schedule, done)
        return kl_weight(
            done,
            options.kl_schedule,
            beta=options.beta,
            start=min(options.kl_start, options.beta),  # the weight never falls in warm-up
            steps=round(options.kl_epochs * self.epoch_steps),
            ramp=options.kl_ramp,
        )

    def try_kl_schedule(self) -> None:
        """Try the user's own KL schedule at every step, so that it does not fail in mid-training.

        Raises:
            UserError: It raises an error, or returns something else than a number of 0 or more.
        """
        schedule = self.kl_schedule
        if schedule is None:
            return
        with suppress(Exception):  # it holds what cannot be copied
            schedule = deepcopy(schedule)  # it may count its calls
        for done in range(self.total_steps - self.autoencode_steps):
            self._own_share(schedule, done)

    def _own_share(self, schedule: KLSchedule, done: int) -> float:
        try:
            share = schedule(done, self.total_steps - self.autoencode_steps)
        except Exception as error:  # anything can go wrong in the user's code
            raise UserError(f"the KL schedule at step {done}: {what_failed(error)}") from error
        return _check_share(share, done)

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
