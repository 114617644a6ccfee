"""One optimiser step: noise, objective, gradients, and their sums for the next log line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from textvae.config.experiment import Config
from textvae.training.optim import build_optimizer
from textvae.vae.batch import Batch
from textvae.vae.objectives import ElboTerms, objective
from textvae.vae.vae import VAE


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


NAMES = ("loss", "rec", "kl", "gap", "examples", "tokens", "grad_norm", "updates")
PER_EXAMPLE = NAMES[:4]


class Tally:
    """Loss, rec, KL and what refinement adds to the ELBO in nats, summed over examples; gradient
    norms, summed over updates."""

    def __init__(self, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.sums = torch.zeros(len(NAMES), dtype=dtype, device=device)

    def count(self, loss: Tensor, terms: ElboTerms, lengths: Tensor) -> None:
        """One batch: its mean loss, its terms and its predicted tokens (B,)."""
        size, start = len(lengths), terms.elbo if terms.path is None else terms.path[0]
        sums = [loss * size, terms.rec.sum(), terms.kl.sum(), (terms.elbo - start).sum()]
        self.sums[:4] += torch.stack(sums).detach().to(self.sums.dtype)
        self.sums[4] += size
        self.sums[5] += lengths.sum()

    def update(self, grad_norm: Tensor) -> None:
        """One optimiser step."""
        self.sums[6] += grad_norm.detach()
        self.sums[7] += 1

    def is_finite(self) -> bool:
        """Whether every loss and gradient was a number."""
        return bool(self.sums.isfinite().all())

    def total(self, accelerator: Any) -> Tensor:
        """The sums over all processes; every one of them has to ask."""
        return self.sums if accelerator.num_processes == 1 else accelerator.reduce(self.sums, "sum")

    def means(self, accelerator: Any) -> dict[str, float]:
        """Of all processes: loss, rec, kl, gap in nats per example; grad_norm per update; and the
        tokens in all."""
        sums = dict(zip(NAMES, self.total(accelerator).tolist(), strict=True))
        examples, updates = max(1.0, sums["examples"]), max(1.0, sums["updates"])
        return {
            **{name: sums[name] / examples for name in PER_EXAMPLE},
            "grad_norm": sums["grad_norm"] / updates,
            "tokens": sums["tokens"],
        }
