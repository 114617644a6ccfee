"""Training procedures: what one training step does with the next batches.

A procedure is called once per training step. It may take any number of batches and make any number
of updates. Whatever it has to remember between steps belongs in ``state_dict``, so that a resumed
run is bit-for-bit identical to an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from textvae.training.update import Updater
from textvae.vae.batch import Batch


class Procedure(Protocol):
    """What the training loop requires of a procedure."""

    def update(self, step: int, next_batches: Callable[[], list[Batch]], updater: Updater) -> None:
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

    def update(self, step: int, next_batches: Callable[[], list[Batch]], updater: Updater) -> None:
        """Do one training step."""
        updater.update(next_batches(), step)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing: there is nothing to restore."""
