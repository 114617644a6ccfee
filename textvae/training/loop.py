"""The training loop, shared by language models, VAEs, and all their variations.

A run is a pure function of its config and corpus. The order of the batches depends on (seed, epoch)
and the noise of an update on (seed, step, rank), so a checkpoint needs no random state. On a CPU, a
resumed run is bit-for-bit identical to an uninterrupted one.
"""

from __future__ import annotations

import logging
import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from textvae.builders.data import Splits, build_buckets
from textvae.config.experiment import Config
from textvae.errors import UserError, quantity
from textvae.evaluation.diagnosis.advice import steadier
from textvae.evaluation.goal import Goal
from textvae.evaluation.metrics.metric import clock
from textvae.runs import run_folder
from textvae.runs.files import quoted, read_if_there, write_json
from textvae.runs.model_folder import is_built_in
from textvae.training.checkpoint import TrainingState
from textvae.training.devices import of_main_process, on_any_process
from textvae.training.interrupt import Interrupted, StopRequest
from textvae.training.monitor import Monitor
from textvae.training.own_parts import place_of
from textvae.training.phases import Phases
from textvae.training.procedures import Joint, Procedure
from textvae.training.progress import Progress
from textvae.training.update import Updater
from textvae.training.validation import show_latent_space, validate
from textvae.vae.batch import Batch
from textvae.vae.batching import BatchLoader
from textvae.vae.contracts import KLSchedule, Objective
from textvae.vae.model import Model

logger = logging.getLogger(__name__)
PROJECTED = 1000  # posterior means in TensorBoard's projector


class Trainer(TrainingState):
    """Everything that makes up a run, and how far it has progressed.

    Args:
        config: The experiment.
        run: The run folder.
        splits: The corpus.
        model: The model to train.
        accelerator: accelerate's ``Accelerator``.
        objective: Turns the terms of a batch into its loss.
        procedure: What a training step does, once the KL counts.
        kl_schedule: The user's own schedule of the KL weight; None: that of the config.
        own_parts: The names of the user's own parts.
        own_code: Hashes of their source.
    """

    def __init__(
        self,
        config: Config,
        run: Path,
        splits: Splits,
        model: Model,
        accelerator: Any,
        objective: Objective,
        procedure: Procedure,
        kl_schedule: KLSchedule | None,
        own_parts: dict[str, str],
        own_code: dict[str, str],
    ) -> None:
        self.config, self.run, self.splits, self.accelerator = config, run, splits, accelerator
        self.model, self.procedure = model, procedure
        buckets = build_buckets(
            config, splits["train"], accelerator.num_processes, accelerator.process_index
        )
        self.loader = BatchLoader(splits["train"], buckets)
        self.epoch_steps = math.ceil(len(self.loader) / config.train.accumulate)
        self.phases = Phases(config, self.epoch_steps, kl_schedule)
        self.total_steps, self.lr = self.phases.total_steps, self.phases.lr
        self.updater = Updater(config, model, objective, accelerator, self.phases)
        self.own_parts, self.own_code = own_parts, own_code
        self.step, self.best_step = 0, None
        self.seconds = self.logged_at = 0.0
        self.first_decoder: dict[str, Tensor] = {}
        if self.phases.autoencode_steps:
            weights = model.decoder.state_dict()
            self.first_decoder = {name: weight.cpu().clone() for name, weight in weights.items()}
        self.card: dict[str, Any] | None = None  # from the last evaluation
        self.is_main = accelerator.is_main_process
        self.monitor: Monitor | None = None  # on the main process, once training starts

    def fit(self, stop: StopRequest) -> None:
        """Run the loop: updates, with logging, evaluation, and checkpoints in between."""
        if (reason := self.why_done()) is not None:
            logger.info("%s is finished (%s): nothing to do", self.run, reason)
            if self.is_main:
                self._complete_summary()
            return
        train, accelerator = self.config.train, self.accelerator
        evaluate_every = max(1, round(train.evaluate_every * self.epoch_steps))
        if self.is_main:
            self.monitor = Monitor(self.run, self.step, has_log=self._has_logged())
        self._announce()
        self._batches = iter(self.loader)
        self._clock = time.perf_counter()
        try:
            with Progress(self.total_steps, self.step, live=self.is_main) as progress:
                while self.why_done() is None and not on_any_process(accelerator, stop.requested):
                    self._train_step()
                    if self.step % train.log_every == 0:
                        self.log(progress)
                    if self.step % evaluate_every == 0 or self.step == self.total_steps:
                        self.evaluate()
                        self.save()
                    elif self.step % train.save_every == 0:
                        self.save()
            self._finish()
            if on_any_process(accelerator, stop.requested):
                raise Interrupted(f"{self.run} is complete: it was interrupted after its last step")
        finally:
            if self.monitor is not None:
                self.monitor.board.close()

    def _has_logged(self) -> bool:
        """Whether there is anything in the training log already."""
        return self.logged_at > 0 or self.best_step is not None

    def _train_step(self) -> None:
        if self.step == self.phases.autoencode_steps > 0:
            self._end_autoencoding()
        autoencoding = self.phases.autoencoding(self.step)
        procedure = Joint() if autoencoding else self.procedure
        procedure.update(self.step, self._next_batches, self.updater)
        self.step += 1
        if self.step == 1:
            self._check_finite()

    def _end_autoencoding(self) -> None:
        """Keep the encoder; start a new optimizer and, unless it is kept, the decoder."""
        if self.config.train.autoencode_decoder == "reset":
            self.model.decoder.load_state_dict(self.first_decoder)
        self.updater.use_optimizer(self.phases.optimizer(self.step))
        logger.info(
            "end of autoencoding: the KL counts from here on, and the decoder is %s",
            "reset" if self.config.train.autoencode_decoder == "reset" else "kept",
        )

    def _next_batches(self) -> list[Batch]:
        """Return the batches of one update; there may be fewer at the end of an epoch."""
        if batches := list(islice(self._batches, self.config.train.accumulate)):
            return batches
        self._batches = iter(self.loader)
        return self._next_batches()

    def log(self, progress: Progress) -> None:
        """Log means over the updates since the last log line."""
        self._check_finite()
        sums = self.updater.sums
        means = sums.means(self.accelerator)
        tokens = means.pop("tokens")
        self._count_time()
        seconds, self.logged_at = self.seconds - self.logged_at, self.seconds
        values = {
            **means,
            "beta": self.phases.beta(self.step - 1),  # of the last update
            "lr": self.phases.learning_rate(self.step - 1),
            "tokens_per_second": tokens / max(seconds, 1e-9),
        }
        if self.monitor is not None:
            values = self._applicable(values) | self._objective_values()
            progress.show(self.step, self.epoch, values)
            self.monitor.scalars("train", self.step, self.epoch, values)
        sums.values.zero_()

    def _applicable(self, values: dict[str, float]) -> dict[str, float]:
        """Leave out what means nothing without a latent variable or without refinement."""
        unused = {"gap"} if self.config.inference.method == "amortized" else set()
        if not self.model.latent_dim:
            unused |= {"kl", "beta", "gap"}
        return {name: value for name, value in values.items() if name not in unused}

    def _objective_values(self) -> dict[str, float]:
        """Return what the objective wants to be logged, such as a multiplier."""
        log_values = getattr(self.updater.objective, "log_values", None)
        values: dict[str, float] = {} if log_values is None else log_values()
        return {f"objective_{name}": float(value) for name, value in values.items()}

    def _check_finite(self) -> None:
        """Check the model before every log line, evaluation, and checkpoint."""
        if self.updater.is_finite():
            return
        # After more than one update, everything is NaN, whatever was first.
        first = self.step == 1
        wrong = self.updater.sums.not_finite() if first else "the loss, its gradient, or a weight"
        advice = steadier(self.config)
        if self._is_own():
            advice = f"if it does not come from your own parts, {advice}"
        raise UserError(
            f"{wrong} is not finite at or before step {self.step}: {advice}; "
            f"{run_folder.last_good(self.run)}"
        )

    def _count_time(self) -> None:
        """Count the time since the last call, evaluation, or checkpoint as training."""
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now

    def evaluate(self) -> None:
        """Evaluate on the validation split; update the best model and the learning rate."""
        self._check_finite()
        self._count_time()
        found = self._validate()
        self._clock = time.perf_counter()
        autoencoded = self.step <= self.phases.autoencode_steps
        if autoencoded or self.config.train.keep == "last" or found > self.lr.best:
            self.best_step = self.step
            if self.is_main:
                self.model.save_pretrained(self.run)
        if autoencoded:  # what a model trained without the KL reaches decides nothing
            return
        if observe := getattr(self.procedure, "observe", None):
            observe(of_main_process(self.accelerator, self.card))
        if self.phases.observe(found, self.step):
            logger.info("learning rate cut to %g", self.phases.learning_rate(self.step))
            if self.config.optim.reload_best:
                self.accelerator.wait_for_everyone()
                best = type(self.model).from_pretrained(self.run)
                self.updater.load_weights(best.state_dict())

    def _validate(self) -> float:
        """Return the criterion that selects the best model, the same number on every process.

        Raises:
            UserError: It is not finite.
        """
        found = math.nan
        if self.monitor is not None:
            split, at = self.splits["valid"], (self.step, self.epoch)
            with self.accelerator.autocast():
                self.card = validate(
                    self.model,
                    split,
                    self.config,
                    self.monitor,
                    *at,
                    self.phases.beta(self.step - 1),
                    self.card,
                )
            found = Goal.of(self.config).reached(self.card["rec"], self.card["elbo"])
        found = of_main_process(self.accelerator, found)
        if not math.isfinite(found):
            raise UserError(
                f"the validation {Goal.of(self.config).name} is {found} at step {self.step}: "
                f"{steadier(self.config)}; {run_folder.last_good(self.run)}"
            )
        return found

    def _is_own(self) -> bool:
        """Whether a part is user-defined, which no command can train."""
        return bool(self.own_parts) or not is_built_in(type(self.model.decoder))

    def _complete_summary(self) -> None:
        """Record that the run is finished, if it was killed after its last checkpoint."""
        if read_if_there(self.run / run_folder.SUMMARY).get("finished") is None:
            self.save_summary()

    def save_summary(self) -> None:
        """Record how far the training got."""
        write_json(self.run / run_folder.SUMMARY, self.summary())

    def _announce(self) -> None:
        logger.info(
            "%s parameters on %s in %s, %s, %s per epoch, %s in total",
            f"{sum(p.numel() for p in self.model.parameters()):,}",
            self.accelerator.device,
            self.config.train.precision,
            quantity(len(self.splits["train"]), "example"),
            quantity(self.epoch_steps, "step"),
            f"{self.total_steps:,}",
        )
        if 0 < self.total_steps <= self.phases.autoencode_steps:
            logger.warning(
                "all %s steps are part of the autoencoding phase (%s steps): the KL has no effect",
                f"{self.total_steps:,}",
                f"{self.phases.autoencode_steps:,}",
            )

    def _finish(self) -> None:
        reason = self.why_done()
        if reason is None:
            self.save()
            again = f"--resume {quoted(self.run)}"
            if self._is_own():
                again += " and the same own parts"
            raise Interrupted(f"saved at step {self.step}: continue with {again}")
        if self.monitor is None:
            return
        show_latent_space(self.model, self.splits["valid"], PROJECTED, self.monitor)
        self.monitor.finish(self.step, self.config, self.card)
        best = ""
        if math.isfinite(self.lr.best):
            best = f": best validation {Goal.of(self.config).name} {self.lr.best:.2f}"
            if self.best_step != self.step:
                best += f" at step {self.best_step:,}, whose model is kept"
        has_test = "test" in self.splits
        following = f"textvae evaluate {quoted(self.run)}" + ("" if has_test else " --split valid")
        if not is_built_in(type(self.model)):
            following += f" --own-model {place_of(type(self.model))}"
        if self.config.data.dir == "-":
            following += ", with the same text on standard input"
        logger.info(
            "%s after %s of training%s; next: %s", reason, clock(self.seconds), best, following
        )

    def save(self) -> None:
        """Save a checkpoint of everything that the rest of the run depends on."""
        self._check_finite()
        self._count_time()
        state = self.state_dict()
        if self.is_main:
            run_folder.save_state(self.run, state)
            self.save_summary()
        self._clock = time.perf_counter()
