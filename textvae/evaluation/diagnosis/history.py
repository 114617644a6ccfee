"""The history of a collapse, from ``metrics.jsonl``: when KL, MI, and active units died."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from textvae.config.experiment import Config
from textvae.evaluation.diagnosis.judge import UNUSED
from textvae.evaluation.diagnosis.training_state import Training
from textvae.evaluation.goal import Goal
from textvae.runs.files import read_if_there
from textvae.runs.model_folder import is_number, read_metrics, weights_hash
from textvae.runs.run_folder import SUMMARY, config_path, read_log

ALIVE = {"kl": UNUSED, "mi": UNUSED, "au": 1}  # the least value of each that is alive
ALIVE_DIMENSION = 0.01  # nats of KL of one dimension
TRACKED = ("rec", "elbo", "kl", "mi", "au")

Line = Mapping[str, Any]  # of metrics.jsonl


class Moment(NamedTuple):
    """An evaluation on the validation split during training; None: not logged."""

    epoch: float
    step: int
    beta: float | None  # the KL weight that was logged last
    rec: float | None
    elbo: float | None
    kl: float | None
    mi: float | None
    au: int | None
    kl_per_dim: tuple[float, ...] | None


class Death(NamedTuple):
    """When a metric fell below the least value that is alive, for good.

    Attributes:
        key: ``kl``, ``mi``, or ``au``.
        epoch: The first epoch at which it was dead.
        beta: The KL weight at that time, if it was logged.
        value: The last value that was alive; None if there is none.
        alive_at: The epoch of that value.
    """

    key: str
    epoch: float
    beta: float | None
    value: float | None
    alive_at: float | None


class History(NamedTuple):
    """The evaluations during training, and what died."""

    moments: tuple[Moment, ...] = ()
    deaths: tuple[Death, ...] = ()

    def died(self, dimension: int) -> float | None:
        """Return the epoch from which on a dimension had no KL.

        None if it has one at the end, never had one, or if that was not logged.
        """
        known = [(m.epoch, m.kl_per_dim[dimension]) for m in self.moments if m.kl_per_dim]
        alive = [i for i, (_, kl) in enumerate(known) if kl >= ALIVE_DIMENSION]
        return known[alive[-1] + 1][0] if alive and alive[-1] + 1 < len(known) else None


def read_history(run: Path) -> History:
    """Read the history of a run; an empty one if it logged nothing.

    Only evaluations count, because the KL of a line of training is a mean over the steps since the
    line before. If posteriors are refined, the metrics are those before refinement.
    """
    lines = read_log(run)
    evaluations = [line for line in lines if line.get("group") == "valid"]
    moments = tuple(_moment(line, lines) for line in evaluations)
    deaths = (_death(key, moments) for key in ALIVE)
    return History(moments, tuple(death for death in deaths if death is not None))


def recorded_collapse(run: Path) -> str | None:
    """Return the warning that z is not used, from an evaluation of the run's best model.

    It comes from the metrics card of the test split if that belongs to the weights in the folder,
    otherwise from the training log. None if z is used, or if nothing is known.

    Raises:
        UserError: A record of the run cannot be read.
    """
    card = read_metrics(run)
    if card and card.get("weights") == weights_hash(run):
        return card.get("collapse")
    counted, goals = _selection(read_history(run), Config.load(config_path(run)))
    if not counted:
        return None
    step = counted[goals.index(max(goals))].step
    found = (line for line in read_log(run) if line.get("group") == "valid")
    return next(line.get("collapse") for line in found if line["step"] == step)


def read_training(run: Path, config: Config, history: History) -> Training:
    """Say how far the training of a run's best model got.

    Args:
        run: The run folder.
        config: Its experiment.
        history: Its history.
    """
    record = read_if_there(run / SUMMARY)
    counted, goals = _selection(history, config)
    best = counted[goals.index(max(goals))] if counted else None
    return Training(
        finished=not record or bool(record.get("finished")),
        epoch=best and best.epoch,
        beta=best and best.beta,
        final_beta=config.objective.beta,
        gain=_gain(counted, goals),
        elbo=best and best.elbo,
    )


def _selection(history: History, config: Config) -> tuple[list[Moment], list[float]]:
    """Return the evaluations among which the best model was searched, and what was compared."""
    known = [moment for moment in history.moments if moment.elbo is not None]
    counted = [m for m in known if m.epoch > config.train.autoencode_epochs] or known
    return counted, [_goal(moment, Goal.of(config)) for moment in counted]


def _goal(moment: Moment, goal: Goal) -> float:
    """Return what the search for the best model compared; the ELBO if that is all that is known."""
    elbo = moment.elbo or 0.0
    return elbo if moment.rec is None else goal.reached(moment.rec, elbo)


def _gain(moments: Sequence[Moment], goals: Sequence[float]) -> float | None:
    """Return the nats gained per epoch in the last epoch, if the last model is the best."""
    if not goals or goals.index(max(goals)) != len(goals) - 1:
        return None
    end = moments[-1].epoch
    earlier = range(len(moments) - 1)
    last = max((i for i in earlier if moments[i].epoch <= end - 1), default=len(earlier) - 1)
    if last < 0:
        return None
    return (goals[-1] - goals[last]) / max(end - moments[last].epoch, 1e-9)


def _moment(line: Line, lines: Sequence[Line]) -> Moment:
    by_dimension = line.get("kl_per_dim")
    logged = isinstance(by_dimension, list) and all(map(is_number, by_dimension))
    return Moment(
        epoch=line["epoch"],
        step=line["step"],
        beta=_beta(line, lines),
        **{key: _figure(line, key) for key in TRACKED},
        kl_per_dim=tuple(by_dimension) if logged and by_dimension else None,
    )


def _beta(line: Line, lines: Sequence[Line]) -> float | None:
    """Return the KL weight of an evaluation, or the one that was logged last before it."""
    if is_number(line.get("beta")):
        return line["beta"]
    known = [x["beta"] for x in lines if x["step"] <= line["step"] and is_number(x.get("beta"))]
    return known[-1] if known else None


def _figure(line: Line, key: str) -> Any:
    value = line.get(key) if key in ("rec", "elbo") else line.get(f"encoder_{key}", line.get(key))
    return value if is_number(value) else None


def _death(key: str, moments: Sequence[Moment]) -> Death | None:
    known = [(moment, getattr(moment, key)) for moment in moments]
    known = [(moment, value) for moment, value in known if value is not None]
    alive = [i for i, (_, value) in enumerate(known) if value >= ALIVE[key]]
    last = alive[-1] if alive else -1
    if last == len(known) - 1:
        return None  # it lives, or it was never logged
    dead, before = known[last + 1][0], known[last] if alive else None
    return Death(
        key=key,
        epoch=dead.epoch,
        beta=dead.beta,
        value=None if before is None else before[1],
        alive_at=None if before is None else before[0].epoch,
    )
