"""The history of a collapse, from ``metrics.jsonl``: when KL, MI, and active units died."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from textvae.config.experiment import Config
from textvae.evaluation.judge import UNUSED, Training
from textvae.runs.files import read_record

ALIVE = {"kl": UNUSED, "mi": UNUSED, "au": 1}  # the least value of each that is alive
TRACKED = ("elbo", "kl", "mi", "au")


class Moment(NamedTuple):
    """An evaluation on the validation split during training; None: not logged."""

    epoch: float
    step: int
    beta: float | None  # the KL weight that was logged last
    elbo: float | None
    kl: float | None
    mi: float | None
    au: int | None


class Death(NamedTuple):
    """When a figure fell below the least value that is alive, for good.

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


def read_history(run: Path) -> History:
    """Read the history of a run; an empty one if it logged nothing.

    The KL is in every line, MI and active units only in those of the evaluations; all of them are
    those before refinement, if these were logged.
    """
    lines = _lines(run / "metrics.jsonl")
    betas = [line for line in lines if line.get("beta") is not None]
    moments = []
    for line in lines:
        if line["group"] == "valid":
            beta = [b["beta"] for b in betas if b["step"] <= line["step"]][-1:]
            figures = [_figure(line, key) for key in TRACKED]
            moments.append(Moment(line["epoch"], line["step"], *(beta or [None]), *figures))
    deaths = [_death(key, lines, betas) for key in ALIVE]
    return History(tuple(moments), tuple(death for death in deaths if death is not None))


def read_training(run: Path, config: Config, history: History) -> Training:
    """Say how far the training of a run's best model got.

    Args:
        run: The run folder.
        config: Its experiment.
        history: Its history.
    """
    path = run / "training.json"
    record: Mapping[str, Any] = read_record(path) if path.exists() else {}
    known = [moment for moment in history.moments if moment.elbo is not None]
    counted = [m for m in known if m.epoch > config.train.autoencode_epochs] or known
    best = max(counted, key=lambda moment: moment.elbo or 0.0, default=None)
    return Training(
        finished=not record or bool(record.get("finished")),
        epoch=best and best.epoch,
        beta=best and best.beta,
        final_beta=config.objective.beta,
        gain=_gain(counted, best),
        elbo=best and best.elbo,
    )


def _gain(moments: Sequence[Moment], best: Moment | None) -> float | None:
    """Return the nats of ELBO gained per epoch in the last epoch, if the last model is the best."""
    if best is None or best is not moments[-1]:
        return None
    before = [m for m in moments[:-1] if m.epoch <= best.epoch - 1] or moments[:-1]
    if not before:
        return None
    last = before[-1]
    return ((best.elbo or 0.0) - (last.elbo or 0.0)) / max(best.epoch - last.epoch, 1e-9)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # cut short when the process was killed
            continue
        if isinstance(line, dict) and {"step", "epoch", "group"} <= line.keys():
            found.append(line)
    return found


def _figure(line: Mapping[str, Any], key: str) -> Any:
    return line.get(f"encoder_{key}", line.get(key)) if key != "elbo" else line.get(key)


def _death(
    key: str, lines: Sequence[Mapping[str, Any]], betas: Sequence[Mapping[str, Any]]
) -> Death | None:
    known = [(line, value) for line in lines if (value := _figure(line, key)) is not None]
    alive = [i for i, (_, value) in enumerate(known) if value >= ALIVE[key]]
    last = alive[-1] if alive else -1
    if last == len(known) - 1:
        return None  # it lives, or it was never logged
    line, at = known[last + 1][0], known[last] if alive else None
    beta = [b["beta"] for b in betas if b["step"] <= line["step"]][-1:]
    return Death(
        key=key,
        epoch=line["epoch"],
        beta=beta[0] if beta else None,
        value=at and at[1],
        alive_at=at and at[0]["epoch"],
    )
