"""The optimizer and its learning-rate schedule.

The ``plateau`` schedule follows the reference implementations. SA-VAE: from epoch 15 on, halve the
learning rate after the first epoch without improvement and after every epoch from then on; stop
when it falls below 0.03. Lagging encoder: halve it after two epochs without improvement and return
to the best weights; stop at the fifth decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from textvae.config.experiment import OptimConfig
from textvae.errors import UserError

MOMENTS: tuple[set[str], ...] = (
    {"step", "exp_avg", "exp_avg_sq"},
    {"momentum_buffer"},
    set(),
)  # of Adam and of SGD
NOT_NEGATIVE = ("step", "exp_avg_sq")
SAVED = ("scale", "best", "bar", "stale", "since_decay", "decays")


def build_optimizer(
    config: OptimConfig, model: nn.Module, fused: bool | None = None
) -> torch.optim.Optimizer:
    """Build the optimizer for all trainable parameters of a model.

    If the encoder has an optimizer of its own, its groups have a key ``lr_ratio``: its learning
    rate relative to that of the rest.

    Args:
        config: The options.
        model: The model.
        fused: Whether Adam and AdamW update all parameters in one pass over memory, which is three
            times as fast on a CPU; None leaves it to torch. SGD does not gain from it, and on CUDA
            it would hide that fp16 skipped a step.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    encoder: nn.Module | None = getattr(model, "encoder", None)
    if config.encoder_name is None or encoder is None:
        return _optimizer(config.name, trained, config.lr, config, fused)
    aside = {id(p) for p in encoder.parameters()}
    rest = [p for p in trained if id(p) not in aside]
    own = [p for p in trained if id(p) in aside]
    first = _optimizer(config.name, rest, config.lr, config, fused)
    second = _optimizer(config.encoder_name, own, config.encoder_lr, config, fused)
    for group in second.param_groups:
        group["lr_ratio"] = config.encoder_lr / config.lr
    return OptimizerPair(first, second)


def _optimizer(
    name: str | None, parameters: list[nn.Parameter], lr: float, config: OptimConfig, fused: Any
) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": lr, "weight_decay": config.weight_decay}
    match name:
        case "sgd":
            return torch.optim.SGD(parameters, momentum=config.momentum, **options)
        case "adam":
            return torch.optim.Adam(parameters, fused=fused, **options)
        case "adamw":
            return torch.optim.AdamW(parameters, fused=fused, **options)
    raise ValueError(f"unknown optimizer {name!r}")


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Check what an optimizer remembers of each parameter, after it was read from a file.

    With a tensor of a wrong shape, torch's fused steps corrupt memory.

    Raises:
        UserError: Something is missing, has another type or shape, or is not finite.
    """
    for parameter, moments in optimizer.state.items():
        if not isinstance(moments, dict) or set(moments) not in MOMENTS:
            raise _unfit("its names")
        for name, value in moments.items():
            like = torch.empty(()) if name == "step" else parameter
            if not _is_moment(value, like, name in NOT_NEGATIVE):
                raise _unfit(name)


def _is_moment(value: Any, like: Tensor, not_negative: bool) -> bool:
    return (
        isinstance(value, Tensor)
        and value.shape == like.shape
        and value.layout == torch.strided
        and value.stride() == like.stride()
        and value.is_floating_point()
        and bool(value.isfinite().all())
        and not (not_negative and bool((value < 0).any()))
    )


def _unfit(what: str) -> UserError:
    return UserError(
        f"the checkpoint's optimizer state ({what}) does not fit the model: "
        "it is damaged, or was not written by textvae"
    )


class OptimizerPair(torch.optim.Optimizer):
    """Two optimizers for different parameters, with one step, one state, and one checkpoint.

    Args:
        first: An optimizer.
        second: Another one.
    """

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.pair = (first, second)
        super().__init__([*first.param_groups, *second.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let both use the state and the groups of this optimizer, which others read and set."""
        groups = iter(self.param_groups)
        for optimizer in self.pair:
            optimizer.state = self.state
            optimizer.param_groups = [next(groups) for _ in optimizer.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Let both make their step."""
        for optimizer in self.pair:
            optimizer.step()


@dataclass
class LearningRate:
    """The learning rate as a function of the step and of the validations so far.

    Attributes:
        config: The options.
        total_steps: Optimizer steps of the whole training.
        scale: The factor by which ``plateau`` has multiplied the learning rate.
        best: The best validation: the ELBO with the final KL weight, in nats per example.
        bar: What a validation has to exceed to count as an improvement for ``plateau``.
        stale: Evaluations since the best one.
        since_decay: Evaluations without improvement since the last improvement or decay.
        decays: How many times ``plateau`` has reduced the learning rate.
    """

    config: OptimConfig
    total_steps: int
    scale: float = 1.0
    best: float = -math.inf
    bar: float = -math.inf
    stale: int = 0
    since_decay: int = 0
    decays: int = 0

    def at(self, step: int) -> float:
        """Return the learning rate of an optimizer step, counted from 0."""
        lr = self.config.lr * self.scale
        if step < self.config.warmup_steps:
            return lr * (step + 1) / self.config.warmup_steps
        if self.config.schedule == "cosine":
            rest = max(1, self.total_steps - self.config.warmup_steps)
            share = min(1.0, (step - self.config.warmup_steps) / rest)
            return lr * 0.5 * (1 + math.cos(math.pi * share))
        return lr

    def observe(self, elbo: float, epoch: float) -> bool:
        """Take a validation into account.

        Args:
            elbo: With the final KL weight, in nats per example.
            epoch: Epochs done so far.

        Returns:
            Whether ``plateau`` reduced the learning rate.
        """
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
        if self.config.reload_best:  # the lagging encoder measures improvement from here on
            self.bar = elbo
        return True

    def exhausted(self) -> str | None:
        """Return why ``plateau`` stops the training now, or None."""
        if self.config.schedule != "plateau" or self.decays == 0:
            return None
        if self.config.max_decays is not None and self.decays >= self.config.max_decays:
            return f"the learning rate was reduced {self.decays} times"
        share = self.config.min_lr_share
        if self.scale < share:
            return f"the learning rate fell below {share:g} of {self.config.lr:g}"
        return None

    def forget(self) -> None:
        """Forget the validations so far, which do not compare with those that follow."""
        self.best = self.bar = -math.inf
        self.stale = self.since_decay = 0

    def state_dict(self) -> dict[str, float]:
        """Return what a checkpoint keeps."""
        return {name: getattr(self, name) for name in SAVED}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore a ``state_dict``."""
        for name in SAVED:
            setattr(self, name, state[name])
