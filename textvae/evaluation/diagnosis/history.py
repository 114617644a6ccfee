"""The history of a collapse, from ``metrics.jsonl``: when KL, MI, and active units died."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from textvae.config.experiment import Config
from textvae.evaluation.diagnosis.judge import UNUSED
from textvae.evaluation.diagnosis.training_state import REACHED, Training
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
    best = _selection(run, read_history(run), Config.load(config_path(run))).best
    found = (line for line in read_log(run) if line.get("group") == "valid")
    return next((x.get("collapse") for x in found if best and x["step"] == best.step), None)


def read_training(run: Path, config: Config, history: History) -> Training:
    """Say how far the training of a run's best model got.

    Args:
        run: The run folder.
        config: Its experiment.
        history: Its history.
    """
    record = read_if_there(run / SUMMARY)
    selection = _selection(run, history, config)
    best = selection.best
    return Training(
        finished=not record or bool(record.get("finished")),
        epoch=best and best.epoch,
        beta=best and best.beta,
        final_beta=config.objective.beta,
        gain=_gain(selection, config.objective.beta),
        elbo=best and best.elbo,
        goal="ELBO" if Goal.of(config).name == "elbo" else Goal.of(config).name,
    )


class _Selection(NamedTuple):
    """The evaluations among which the best model was searched, what was compared, the best."""

    moments: list[Moment]
    goals: list[float]
    best: Moment | None


def _selection(run: Path, history: History, config: Config) -> _Selection:
    known = [moment for moment in history.moments if moment.elbo is not None]
    record = read_if_there(run / SUMMARY)
    counted = [m for m in known if _counts(m, config, record.get("autoencode_steps"))] or known
    goals = [_goal(moment, Goal.of(config)) for moment in counted]
    step = record.get("best_step")  # not recorded by earlier releases
    saved = next((moment for moment in counted if moment.step == step), None)
    found = max(zip(goals, counted, strict=True), key=itemgetter(0), default=(0.0, None))[1]
    return _Selection(counted, goals, saved or found)


def _counts(moment: Moment, config: Config, autoencode_steps: int | None) -> bool:
    """Whether a model was compared with others; earlier releases did not record the steps."""
    if autoencode_steps is None:
        return moment.epoch > config.train.autoencode_epochs
    return moment.step > autoencode_steps


def _goal(moment: Moment, goal: Goal) -> float:
    """Return what the search for the best model compared; the ELBO if that is all that is known."""
    elbo = moment.elbo or 0.0
    return elbo if moment.rec is None else goal.reached(moment.rec, elbo)


def _gain(selection: _Selection, final_beta: float) -> float | None:
    """Return the nats gained per epoch in the last epoch, if the last model is the best.

    While the KL weight rises, the gain is that of the schedule, so that time does not count.
    """
    moments, goals, best = selection
    if best is None or best is not moments[-1]:
        return None
    end = moments[-1].epoch
    earlier = [
        i
        for i, moment in enumerate(moments[:-1])
        if moment.beta is None or moment.beta >= REACHED * final_beta
    ]
    if not earlier:
        return None
    last = max((i for i in earlier if moments[i].epoch <= end - 1), default=earlier[-1])
    return (goals[-1] - goals[last]) / max(end - moments[last].epoch, 1e-9)


def _moment(line: Line, lines: Sequence[Line]) -> Moment:
    by_dimension = line.get("encoder_kl_per_dim", line.get("kl_per_dim"))
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
