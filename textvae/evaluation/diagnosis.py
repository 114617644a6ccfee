"""The result of ``textvae diagnose``: one verdict on a latent variable, with its evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from textvae.evaluation.card_files import finite
from textvae.evaluation.history import History
from textvae.evaluation.judge import SEVERITY, UNCLEAR, Finding
from textvae.evaluation.metrics import BY_KEY, MISSING, decimals
from textvae.evaluation.remedies import Remedy


@dataclass(frozen=True)
class Evidence:
    """One figure with its 95 % interval.

    Attributes:
        key: Its name in JSON; that of the metrics card, if the card has it.
        name: Its name in a table.
        value: The figure.
        low: Lower end of the interval.
        high: Upper end of the interval.
        unit: Its unit.
    """

    key: str
    name: str
    value: float
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Dimension:
    """One dimension of z.

    Attributes:
        number: Its number, from 0.
        state: ``alive``; ``dead``: the posterior mean does not move; ``unread``: it moves, but the
            decoder does not read it; ``unclear``: there are too few examples to tell.
        kl: Its KL(q(z_d|x) || p(z_d)) in nats; None if there is only one for all dimensions.
        variance: Variance of its posterior mean over the examples.
        shuffle_gap: Nats per example lost if it comes from another example; None if not measured.
        aggregate_kl: KL(p(z_d) || q(z_d)) in nats; None if there is no density of one dimension.
    """

    number: int
    state: str
    kl: float | None
    variance: float
    shuffle_gap: float | None
    aggregate_kl: float | None


@dataclass(frozen=True)
class Diagnosis:
    """One verdict on a latent variable, with its evidence and what to do; ``print`` shows it.

    Attributes:
        verdict: ``healthy``, ``under-trained``, ``holes``, ``partly collapsed``, ``unread``,
            ``over-refined``, ``collapsed``, or ``too few examples to tell``.
        summary: The verdict in one sentence.
        model: The name of the run; empty for a model without one.
        split: The split that was examined; empty without a run.
        count: Number of examples.
        findings: Everything that is wrong, the worst first: the verdict is the first one's.
        evidence: The figures behind it.
        dimensions: The figures of every dimension, before any refinement.
        history: How the training got there; empty for a model without a run.
        remedies: Up to three things to try, the best first.
    """

    verdict: str
    summary: str
    model: str
    split: str
    count: int
    findings: tuple[Finding, ...]
    evidence: tuple[Evidence, ...]
    dimensions: tuple[Dimension, ...]
    history: History
    remedies: tuple[Remedy, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dictionaries, lists, numbers, and strings, for JSON."""
        record = asdict(self)
        record["findings"] = [finding._asdict() for finding in self.findings]
        record["history"] = {
            name: [row._asdict() for row in rows] for name, rows in self.history._asdict().items()
        }
        return finite(record)

    def is_at_least(self, verdict: str) -> bool:
        """Return whether the verdict is at least as bad as another one; False if it is unclear."""
        if self.verdict == UNCLEAR:
            return False
        return SEVERITY.index(self.verdict) >= SEVERITY.index(verdict)

    def __str__(self) -> str:
        """Return the diagnosis as lines of text."""
        blocks = [
            [f"{self._title()}{self.verdict}", self.summary],
            [f"also: {finding.summary}" for finding in self.findings[1:]],
            _evidence_lines(self.evidence),
            _dimension_lines(self.dimensions),
            _history_lines(self.history),
            _remedy_lines(self.remedies),
        ]
        return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"

    def _title(self) -> str:
        named = ", ".join(part for part in (self.model, f"{self.split} split") if part.strip())
        return f"{named}: " if self.model else ""


def _evidence_lines(evidence: Iterable[Evidence]) -> list[str]:
    rows = [(row.name, _digits(row), row) for row in evidence]
    width = max((len(name) for name, _, _ in rows), default=0)
    return [
        f"{name:{width}} {decimals(row.value, digits):>10}  "
        f"[{decimals(row.low, digits)}, {decimals(row.high, digits)}]  {row.unit}"
        for name, digits, row in rows
    ]


def _digits(row: Evidence) -> int:
    return BY_KEY[row.key].digits if row.key in BY_KEY else 2


def _dimension_lines(dimensions: Iterable[Dimension]) -> list[str]:
    lines = [f"{'dimension':>9} {'KL':>8} {'variance':>9} {'shuffle gap':>12} {'KL(p || q)':>11}"]
    for row in dimensions:
        numbers = (row.kl, row.variance, row.shuffle_gap, row.aggregate_kl)
        kl, variance, gap, aggregate = (
            MISSING if number is None else decimals(number, 3) for number in numbers
        )
        lines.append(
            f"{row.number:>9} {kl:>8} {variance:>9} {gap:>12} {aggregate:>11}  {row.state}"
        )
    return lines


def _history_lines(history: History) -> list[str]:
    lines = []
    for death in history.deaths:
        metric = BY_KEY[death.key]
        beta = "" if death.beta is None else f", at a KL weight of {decimals(death.beta)}"
        lines.append(
            f"{metric.header} died between epoch {death.epoch:g} "
            f"({decimals(death.value, metric.digits)}) and epoch {death.by_epoch:g}{beta}"
        )
    return lines


def _remedy_lines(remedies: Iterable[Remedy]) -> list[str]:
    lines = []
    for number, remedy in enumerate(remedies, 1):
        names = " + ".join([*remedy.files, " ".join(remedy.options)]).removesuffix(" + ")
        lines.append(
            f"{number}. {names}: {remedy.reason}" if names else f"{number}. {remedy.reason}"
        )
        lines += [f"   {remedy.command}"] if remedy.command else []
    return lines
