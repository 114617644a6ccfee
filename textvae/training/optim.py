"""The optimiser, and how its learning rate moves.

``plateau`` is the references' rule. SA-VAE: from epoch 15 on, halve after the first epoch without
gain and at every epoch after that, stop below 0.03. Lagging encoder: halve after two epochs without
gain, go back to the best weights, stop at the fifth time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from textvae.config.experiment import OptimConfig

SAVED = ("scale", "best", "bar", "stale", "since_decay", "decays")


def build_optimizer(
    config: OptimConfig, model: nn.Module, fused: bool | None = None
) -> torch.optim.Optimizer:
    """The optimiser over every trainable parameter of the model.

    Args:
        fused: Adam and AdamW in one pass over memory: three times as fast on a CPU. None leaves
            it to torch. (SGD gains nothing; on CUDA it would hide that fp16 skipped a step.)
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    options = {"lr": config.lr, "weight_decay": config.weight_decay}
    match config.name:
        case "sgd":
            return torch.optim.SGD(parameters, momentum=config.momentum, **options)
        case "adam":
            return torch.optim.Adam(parameters, fused=fused, **options)
        case "adamw":
            return torch.optim.AdamW(parameters, fused=fused, **options)
    raise ValueError(f"unknown optimiser {config.name!r}")


@dataclass
class LearningRate:
    """The learning rate as a function of the step and of what the validation ELBO did so far."""

    config: OptimConfig
    total_steps: int
    scale: float = 1.0  # what plateau has multiplied the learning rate by
    best: float = -math.inf
    bar: float = -math.inf  # what an ELBO has to exceed to count as a gain for plateau
    stale: int = 0  # evaluations since the best one
    since_decay: int = 0  # evaluations without gain since the last gain or decay
    decays: int = 0

    def at(self, step: int) -> float:
        """The learning rate of an optimiser step, counted from 0."""
        lr = self.config.lr * self.scale
        if step < self.config.warmup_steps:
            return lr * (step + 1) / self.config.warmup_steps
        if self.config.schedule == "cosine":
            rest = max(1, self.total_steps - self.config.warmup_steps)
            share = min(1.0, (step - self.config.warmup_steps) / rest)
            return lr * 0.5 * (1 + math.cos(math.pi * share))
        return lr

    def observe(self, elbo: float, epoch: float) -> bool:
        """Takes a validation ELBO (nats per example, higher is better) after ``epoch`` epochs.
        Returns whether the learning rate was cut because of it."""
        self.best, self.stale = (elbo, 0) if elbo > self.best else (self.best, self.stale + 1)
        self.bar, self.since_decay = (
            (elbo, 0) if elbo > self.bar else (self.bar, self.since_decay + 1)
        )
        if self.config.schedule != "plateau" or epoch < self.config.decay_from:
            return False
        again = self.config.decay_every and self.decays > 0
        if self.since_decay < self.config.patience and not again:
            return False
        self.scale *= self.config.lr_decay
        self.decays += 1
        self.since_decay = 0
        if self.config.reload_best:  # the lagging encoder measures gains from here on
            self.bar = elbo
        return True

    def exhausted(self) -> str | None:
        """Why the references' rule stops the training now, or None."""
        if self.config.schedule != "plateau" or self.decays == 0:
            return None
        if self.config.max_decays is not None and self.decays >= self.config.max_decays:
            return f"the learning rate was cut {self.decays} times"
        share = self.config.min_lr_share
        if self.scale < share:
            return f"the learning rate fell below {share:g} of {self.config.lr:g}"
        return None

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps of it."""
        return {name: getattr(self, name) for name in SAVED}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Takes a ``state_dict`` back."""
        for name in SAVED:
            setattr(self, name, state[name])
