"""What a checkpoint holds: everything that the rest of a run depends on."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from textvae.builders.data import Splits
from textvae.config.experiment import Config, option_names, options_read
from textvae.errors import UserError, quantity
from textvae.evaluation.goal import Goal
from textvae.runs.model_folder import written_by
from textvae.training.devices import peak_memory_mb
from textvae.training.own_parts import check_same_parts, warn_of_other_code
from textvae.training.phases import Phases
from textvae.training.procedures import Procedure
from textvae.training.update import Updater
from textvae.vae.batching import BatchLoader

logger = logging.getLogger(__name__)
COUNT, REAL = False, True
NUMBERS: dict[str, tuple[bool, float]] = {  # by path: whether it may be a fraction, lowest value
    **dict.fromkeys(("step", "best_step", "loader.epoch", "loader.next_batch"), (COUNT, 0)),
    "autoencode_steps": (COUNT, 0),
    "epoch_steps": (COUNT, 1),
    **dict.fromkeys(("seconds", "logged_at", "kl_weight", "free_nats"), (REAL, 0)),
    "lr.scale": (REAL, 0),
    **dict.fromkeys(("lr.best", "lr.bar"), (REAL, -math.inf)),
    **dict.fromkeys(("lr.stale", "lr.since_decay", "lr.decays"), (COUNT, 0)),
}
# Not in every checkpoint:
OPTIONAL = {"best_step", "autoencode_steps", "kl_weight", "free_nats", "logged_at"}


def check_state(state: Mapping[str, Any]) -> None:
    """Check the numbers in a checkpoint, before any of them is used.

    Raises:
        ValueError: One is missing, or has another type or range than textvae writes.
    """
    for path, (real, lowest) in NUMBERS.items():
        value: Any = state
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None and path in OPTIONAL:
            continue
        if not isinstance(value, (int, float) if real else int) or isinstance(value, bool):
            raise ValueError(f"{path} is {str(value)[:40]!r}, not a number")
        if not lowest <= value < math.inf:  # nan is neither
            raise ValueError(f"{path} is {value}")


def _check_fits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    shapes = [{name: (w.shape, w.dtype) for name, w in side.items()} for side in (found, expected)]
    if shapes[0] != shapes[1] or not all(bool(w.isfinite().all()) for w in found.values()):
        raise ValueError("first_decoder is not the decoder of this model")


class TrainingState:
    """How far a training run has progressed, as a checkpoint keeps it."""

    config: Config
    run: Path
    splits: Splits
    accelerator: Any
    loader: BatchLoader
    own_parts: dict[str, str]  # the names of user-defined ones, at the start
    own_code: dict[str, str]  # hashes of their source
    epoch_steps: int
    total_steps: int
    phases: Phases
    updater: Updater
    procedure: Procedure
    step: int
    best_step: int | None  # of the model in the run folder
    seconds: float  # of training, without evaluations and checkpoints
    logged_at: float  # the seconds at the last log line
    first_decoder: dict[str, Tensor]  # before autoencoding, after which it may be needed again

    @property
    def epoch(self) -> float:
        """Epochs done, including the fraction of the current one."""
        return self.step / self.epoch_steps

    def why_done(self) -> str | None:
        """Return why the training stops now; None if it continues."""
        if reason := self.phases.lr.exhausted():
            return f"stopped by the learning-rate rule: {reason}"
        patience, stale = self.config.train.early_stopping, self.phases.lr.stale
        if patience is not None and stale >= patience:
            return f"stopped early: no improvement in {quantity(stale, 'evaluation')}"
        if self.step == self.total_steps:
            return f"all {quantity(self.step, 'step')} done"
        if self.step > self.total_steps:
            return f"{quantity(self.step, 'step')} done, more than the {self.total_steps} asked for"
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the state; every process has to call this at the same step."""
        return {
            "corpus_hash": self.splits["train"].content_hash,
            "valid_hash": self.splits["valid"].content_hash,
            "step": self.step,
            "best_step": self.best_step,
            "epoch_steps": self.epoch_steps,
            "autoencode_steps": self.phases.autoencode_steps,
            "loader": self.loader.state_dict(),
            "lr": self.phases.lr.state_dict(),
            "kl_weight": Goal.of(self.config).beta,  # in lr.best, as are the free nats
            "free_nats": Goal.of(self.config).free,
            "seconds": self.seconds,
            "logged_at": self.logged_at,
            "procedure": self.procedure.state_dict(),
            "options": option_names(options_read(self.config)),
            "own_parts": self.own_parts,
            "own_code": self.own_code,
            **self.updater.state_dict(),
            **({"first_decoder": self.first_decoder} if self._decoder_is_needed(self.step) else {}),
        }

    def _decoder_is_needed(self, step: int) -> bool:
        return 0 < self.phases.autoencode_steps >= step

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a ``state_dict``.

        Raises:
            UserError: It belongs to a different model, or to different batches.
        """
        try:
            check_state(state)
            self._check_steps(state)
            check_same_parts(self.run, state.get("own_parts", self.own_parts), self.own_parts)
            warn_of_other_code(self.run, state.get("own_code", {}), self.own_code)
            self.updater.use_optimizer(self.phases.optimizer(max(0, int(state["step"]) - 1)))
            self.updater.load_state_dict(state)
            self.loader.load_state_dict(state["loader"])
            self.phases.lr.load_state_dict(state["lr"])
            before = Goal(state.get("kl_weight", 1.0), state.get("free_nats", 0.0))
            if before != Goal.of(self.config):
                self.phases.lr.forget()
                logger.info(
                    "the weight or the free nats of the KL changed: model selection starts over"
                )
            self.procedure.load_state_dict(state.get("procedure", {}))
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self.best_step = state.get("best_step")
            self.logged_at = float(state.get("logged_at", self.seconds))
            if (first := state.get("first_decoder")) is not None:
                _check_fits(first, self.first_decoder)
                self.first_decoder = first
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the checkpoint in {self.run} does not fit the config: {reason}"
                f"{written_by(self.run)}"
            ) from error

    def _check_steps(self, state: dict[str, Any]) -> None:
        if state["epoch_steps"] != self.epoch_steps:
            raise UserError(
                f"{self.run} had {state['epoch_steps']} steps per epoch and would now have "
                f"{self.epoch_steps}: resume with the same --data.batch_size or --data.max_tokens, "
                "--data.equal_length, --train.accumulate, and number of processes"
            )
        steps = (state.get("autoencode_steps", 0), self.phases.autoencode_steps)
        if steps[0] != steps[1] and int(state["step"]) > min(steps):
            raise UserError(
                f"{self.run} is past the end of its autoencoding: resume with the same "
                "--train.autoencode_epochs"
            )

    def summary(self) -> dict[str, Any]:
        """Return how far the training got and what it cost, for tables."""
        best = self.phases.lr.best
        is_elbo = Goal.of(self.config) == Goal(1.0)
        return {
            "epochs": round(self.epoch, 2),
            "steps": self.step,
            "best_step": self.best_step,
            "autoencode_steps": self.phases.autoencode_steps,
            "hours": round(self.seconds / 3600, 3),
            "best_valid_elbo": best if is_elbo and math.isfinite(best) else None,
            "learning_rate": self.phases.learning_rate(self.step),
            "finished": self.why_done(),
            "peak_memory_mb": peak_memory_mb(self.accelerator.device),
            "processes": self.accelerator.num_processes,
            "own_parts": self.own_parts,
            "own_code": self.own_code,
        }
