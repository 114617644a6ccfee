"""Training procedures: what one training step does with the batches that come next.

A procedure is called once per training step. It takes as many batches as it wants, makes as many
updates as it wants, and keeps in ``state_dict`` whatever it has to remember between steps, so that
a resumed run repeats an undisturbed one bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from textvae.training.update import Updater
from textvae.vae.batch import Batch


class Procedure(Protocol):
    """What the training loop asks of a procedure."""

    def update(self, step: int, next_batches: Callable[[], list[Batch]], updater: Updater) -> None:
        """Does one training step.

        Args:
            step: Number of the step, from 0.
            next_batches: Returns the batches of the next update; never runs out.
            updater: Makes updates: of the whole model, or of some of its modules.
        """

    def state_dict(self) -> dict[str, Any]:
        """What has to be remembered between steps: tensors, numbers, strings, lists and dicts."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a ``state_dict``."""


class Joint:
    """One update of encoder, decoder and prior together: the usual way."""

    def update(self, step: int, next_batches: Callable[[], list[Batch]], updater: Updater) -> None:
        """Does one training step."""
        updater.update(next_batches(), step)

    def state_dict(self) -> dict[str, Any]:
        """Nothing has to be remembered."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
