"""One optimizer step: noise, objective, gradients, and sums of metrics for the next log line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from textvae.config.experiment import Config, OptimConfig
from textvae.errors import UserError
from textvae.training.devices import mean_of_processes
from textvae.training.metric_sums import MetricSums
from textvae.training.optim import build_optimizer, check_moments
from textvae.training.own_checks import check_loss
from textvae.training.phases import Phases
from textvae.vae.batch import Batch
from textvae.vae.contracts import AdaptiveObjective, Objective, Terms
from textvae.vae.modes import frozen
from textvae.vae.vae import VAE


class Updater:
    """A model and its optimizer, on one or several processes.

    Args:
        config: The experiment.
        model: The model to train.
        objective: Turns the terms of a batch into its loss.
        accelerator: accelerate's ``Accelerator``.
        phases: The KL weight, the optimizer, and the learning rate of every step.
    """

    def __init__(
        self,
        config: Config,
        model: VAE,
        objective: Objective,
        accelerator: Any,
        phases: Phases,
    ) -> None:
        self.config, self.model, self.accelerator = config, model, accelerator
        self.objective, self.phases = objective, phases
        self.wrapped = accelerator.prepare(model)
        self.use_optimizer(phases.optimizer(0))
        self.sums = MetricSums(accelerator.device)

    def update(
        self,
        batches: Sequence[Batch],
        step: int,
        *,
        turn: int = 0,
        only: Iterable[nn.Module] | None = None,
        skip: Iterable[nn.Module] = (),
    ) -> Tensor:
        """Make one optimizer step with the mean gradient of the batches' examples.

        Args:
            batches: The batches to learn from.
            step: Number of the training step, from 0; sets the noise, beta, and learning rate.
            turn: Number of the update within the training step, if a procedure makes several.
            only: The modules to update; the whole model by default.
            skip: Modules not to update, even if they are part of a module in ``only``.

        Returns:
            The mean loss of their examples on this process, a scalar.
        """
        accelerator, config = self.accelerator, self.config
        total = torch.zeros((), device=accelerator.device)
        self.model.train()
        torch.manual_seed(self._noise_seed(step, turn))
        for group in self.optimizer.param_groups:
            group["lr"] = self.phases.learning_rate(step) * group.get("lr_ratio", 1.0)
        beta = self.phases.beta(step)
        others = self._others(only, skip)
        count = sum(len(batch.lengths) for batch in batches)
        scale = self._share_of_examples(count)
        with frozen(others if self._parts_are_separable() else ()):
            for i, batch in enumerate(batches):
                batch = batch.to(accelerator.device)
                last = i == len(batches) - 1
                with nullcontext() if last else accelerator.no_sync(self.wrapped):
                    terms = self.wrapped(batch, config.objective.samples, beta, config.inference)
                    loss = self._loss(terms, beta)
                    share = len(batch.lengths) / count
                    accelerator.backward(loss * (share * scale))
                self.sums.add_batch(loss, terms, batch.lengths)
                total = total + loss.detach() * share
        for parameter in others:
            parameter.grad = None  # the optimizer skips it
        norm = accelerator.clip_grad_norm_(self.wrapped.parameters(), config.optim.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not self.optimizer.step_was_skipped:  # fp16 skips steps that overflow, which is normal
            self.sums.add_update(norm)
        if isinstance(self.objective, AdaptiveObjective):
            self.objective.after_update(partial(mean_of_processes, accelerator))
        return total

    def _share_of_examples(self, count: int) -> Tensor | float:
        """Return this process's share of all examples of an update, relative to an equal share.

        Gradients are averaged over processes, whose batches may differ in size.
        """
        if self.accelerator.num_processes == 1:
            return 1.0
        mine = torch.tensor(float(count), device=self.accelerator.device)
        return mine / mean_of_processes(self.accelerator, mine)

    def _loss(self, terms: Terms, beta: float) -> Tensor:
        """Return the objective, and the loss that trains only the encoder, if there is one.

        It is added here so that user-defined objectives do not have to know about it.
        """
        loss = self.objective(terms._replace(encoder_loss=None), beta)
        check_loss(loss, trains_encoder=terms.encoder_loss is not None)
        return loss if terms.encoder_loss is None else loss + terms.encoder_loss.mean()

    def _others(
        self, only: Iterable[nn.Module] | None, skip: Iterable[nn.Module]
    ) -> list[nn.Parameter]:
        wanted = [self.model] if only is None else only
        kept = {id(p) for module in wanted for p in module.parameters()}
        kept -= {id(p) for module in skip for p in module.parameters()}
        return [p for p in self.model.parameters() if p.requires_grad and id(p) not in kept]

    def _parts_are_separable(self) -> bool:
        """Return whether gradients of some parts can be computed without those of the others.

        Several processes wait for the gradients of all parameters, and the gradient through
        refinement steps is one computation.
        """
        alone = self.accelerator.num_processes == 1
        return alone and self.config.inference.method == "amortized"

    def _noise_seed(self, step: int, turn: int) -> int:
        rank, size = self.accelerator.process_index, self.accelerator.num_processes
        seed = self.config.train.seed * 1_000_003 + step * size + rank
        return (seed + turn * 0x9E3779B97F4A7C15) % 2**63

    def is_finite(self) -> bool:
        """Return whether every loss, gradient, and weight is finite."""
        finite = torch.stack([p.isfinite().all() for p in self.model.parameters()])
        return self.sums.is_finite() and bool(finite.all())

    def use_optimizer(self, options: OptimConfig) -> None:
        """Make all further steps with a new optimizer, whose state is empty."""
        fused = True if self.accelerator.device.type == "cpu" else None
        # accelerate keeps all optimizers, and fp16 would unscale the gradients once for each.
        self.accelerator._optimizers.clear()
        self.optimizer = self.accelerator.prepare(build_optimizer(options, self.model, fused))

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Load other weights and reset the optimizer's state."""
        self.model.load_state_dict(weights)
        self.optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; every process has to call this at the same step."""
        scaler, objective = self.accelerator.scaler, self.objective
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "objective": (
                objective.state_dict() if isinstance(objective, AdaptiveObjective) else {}
            ),
            "tally": self.sums.total(self.accelerator),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``, except the optimizer's options, which the config determines.

        Raises:
            UserError: The optimizer's tensors do not fit this model.
        """
        options = [dict(group, params=None) for group in self.optimizer.param_groups]
        self.model.load_state_dict(state["model"])
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except KeyError as missing:
            raise UserError(
                f"the checkpoint has the state of another optimizer, without {missing}: resume "
                "with the same --optim.name"
            ) from missing
        check_moments(self.optimizer)
        for group, own in zip(self.optimizer.param_groups, options, strict=True):
            group.update({name: value for name, value in own.items() if name != "params"})
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if isinstance(self.objective, AdaptiveObjective):
            if not state["objective"]:
                raise UserError(
                    "the run was trained without --objective.min_kl, with an objective that has "
                    "no state: resume it with the same objective, or start a new run from it with "
                    "--train.init"
                )
            self.objective.load_state_dict(state["objective"])
        if self.accelerator.is_main_process:  # it holds the sums of all processes
            self.sums.values.copy_(state["tally"])
        if not self.is_finite():
            raise ValueError("it has weights or sums that are not finite")
