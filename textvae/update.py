"""One optimiser step: noise, objective, gradients, and their sums for the next log line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from textvae.config import Config
from textvae.core.batch import Batch
from textvae.core.objectives import objective
from textvae.core.vae import VAE
from textvae.optim import build_optimizer
from textvae.tally import Tally


class Updater:
    """A model and its optimiser, on one or several processes."""

    def __init__(self, config: Config, model: VAE, accelerator: Any) -> None:
        self.config, self.model, self.accelerator = config, model, accelerator
        fused = True if accelerator.device.type == "cpu" else None
        self.wrapped, self.optimizer = accelerator.prepare(
            model, build_optimizer(config.optim, model, fused)
        )
        self.tally = Tally(accelerator.device)

    def update(self, batches: Sequence[Batch], step: int, beta: float, lr: float) -> None:
        """Makes optimiser step ``step`` with the mean gradient of the batches."""
        accelerator, config = self.accelerator, self.config
        self.model.train()
        torch.manual_seed(self._noise_seed(step))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        for i, batch in enumerate(batches):
            batch = batch.to(accelerator.device)
            last = i == len(batches) - 1
            with nullcontext() if last else accelerator.no_sync(self.wrapped):
                terms = self.wrapped(batch, config.objective.samples, beta, config.inference)
                loss = objective(
                    terms, beta, config.objective.free_bits, config.objective.free_bits_per
                )
                accelerator.backward(loss / len(batches))
            self.tally.count(loss, terms, batch.lengths)
        norm = accelerator.clip_grad_norm_(self.wrapped.parameters(), config.optim.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not self.optimizer.step_was_skipped:  # fp16 skips an overflow, and that is no error
            self.tally.update(norm)

    def _noise_seed(self, step: int) -> int:
        rank, size = self.accelerator.process_index, self.accelerator.num_processes
        return (self.config.train.seed * 1_000_003 + step * size + rank) % 2**63

    def is_finite(self) -> bool:
        """Whether every loss, gradient and weight is a number."""
        weights = (bool(p.isfinite().all()) for p in self.model.parameters())
        return self.tally.is_finite() and all(weights)

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Goes on from other weights, with an optimiser that remembers nothing."""
        self.model.load_state_dict(weights)
        self.optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it. To be called on every process at the same step."""
        scaler = self.accelerator.scaler
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "tally": self.tally.total(self.accelerator),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes a ``state_dict`` back; the optimiser's options stay those of the config."""
        options = [dict(group, params=None) for group in self.optimizer.param_groups]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, options, strict=True):
            group.update({name: value for name, value in own.items() if name != "params"})
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.accelerator.is_main_process:  # it holds what all processes have summed
            self.tally.sums.copy_(state["tally"])
