"""Training procedures: what one training step does with the next batches.

A procedure is called once per training step. It may take any number of batches and make any number
of updates. Whatever it has to remember between steps belongs in ``state_dict``, so that a resumed
run is bit-for-bit identical to an uninterrupted one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from textvae.config.experiment import Config
from textvae.evaluation.metrics.metric import decimals
from textvae.training.devices import mean_of_processes
from textvae.training.update import Updater
from textvae.vae.batch import Batch

logger = logging.getLogger(__name__)
NextBatches = Callable[[], list[Batch]]


class Procedure(Protocol):
    """What the training loop requires of a procedure.

    One more method is called if it exists: ``observe(card)``, after every evaluation, with the
    metrics card of the validation split.
    """

    def update(self, step: int, next_batches: NextBatches, updater: Updater) -> None:
        """Do one training step.

        Args:
            step: Number of the step, from 0.
            next_batches: Returns the batches of the next update; never runs out.
            updater: Updates the whole model, or some of its modules.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be remembered: tensors, numbers, strings, lists, and dicts."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""


class Joint:
    """The standard procedure: one joint update of encoder, decoder, and prior per step."""

    def update(self, step: int, next_batches: NextBatches, updater: Updater) -> None:
        """Do one training step."""
        updater.update(next_batches(), step)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing: there is nothing to restore."""


class Aggressive(Joint):
    """Aggressive training of the encoder (He et al. 2019, arXiv:1901.05534).

    A step first updates the encoder alone, with batch after batch, until its loss stops falling:
    until the mean loss of a block of batches is above that of the block before. Then it updates
    decoder and prior with one more batch. Once the mutual information between x and z on the
    validation split no longer rises, every step is one joint update for the rest of the training.
    While the encoder is trained alone, the norm that is clipped is that of its own gradient: the
    authors' code also computes the decoder's, and clips both together.

    Args:
        patience: Evaluations without a rise in mutual information before the joint updates start.
        block: Batches whose mean loss is compared.
        most: Maximum number of updates of the encoder per step.
    """

    def __init__(self, patience: int = 1, block: int = 10, most: int = 100) -> None:
        self.patience, self.block, self.most = patience, block, most
        self.active = True
        self.best = -math.inf  # mutual information on the validation split, nats
        self.stale = 0  # evaluations since then

    def update(self, step: int, next_batches: NextBatches, updater: Updater) -> None:
        """Do one training step."""
        if not self.active:
            super().update(step, next_batches, updater)
            return
        self._train_encoder(step, next_batches, updater)
        # Not "decoder and prior alone": the encoder is part of some priors.
        updater.update(next_batches(), step, skip=[updater.model.encoder])

    def _train_encoder(self, step: int, next_batches: NextBatches, updater: Updater) -> None:
        before, losses = math.inf, []
        for turn in range(1, self.most + 1):
            batches = next_batches()
            loss = updater.update(batches, step, turn=turn, only=[updater.model.encoder])
            losses.append(_totals(loss, batches))
            if turn % self.block:
                continue
            # Per token, as in the authors' code: batches differ in the length of their sentences.
            nats, tokens = mean_of_processes(updater.accelerator, torch.stack(losses).sum(0))
            now = float(nats / tokens)
            if now > before:
                return
            before, losses = now, []

    def observe(self, card: Mapping[str, Any]) -> None:
        """Stop being aggressive once the mutual information no longer rises."""
        if not self.active:
            return
        rises = card["mi"] > self.best
        self.best, self.stale = (card["mi"], 0) if rises else (self.best, self.stale + 1)
        if self.stale >= self.patience:
            self.active = False
            logger.info(
                "the mutual information has stopped rising (%s nats, at best %s): "
                "from here on, all parts are trained jointly",
                decimals(card["mi"]),
                decimals(self.best),
            )

    def state_dict(self) -> dict[str, Any]:
        """Return whether training is still aggressive, and the mutual information so far."""
        return {"active": self.active, "best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""
        if state:  # else the run has been trained jointly so far
            active, best, stale = state["active"], float(state["best"]), state["stale"]
            if type(active) is not bool or type(stale) is not int or math.isnan(best):
                raise ValueError(f"not a state of aggressive training: {state}")
            self.active, self.best, self.stale = active, best, stale


def _totals(loss: Tensor, batches: list[Batch]) -> Tensor:
    """Return the total loss of all examples, and their number of tokens, (2,)."""
    lengths = torch.cat([batch.lengths for batch in batches]).to(loss.device)
    return torch.stack([loss * len(lengths), lengths.sum().to(loss.dtype)])


def build_procedure(config: Config) -> Procedure:
    """Build the procedure that the config asks for."""
    match config.train.procedure:
        case "joint":
            return Joint()
        case "aggressive":
            return Aggressive(config.train.aggressive_patience)
    raise ValueError(f"unknown procedure {config.train.procedure!r}")
