"""The result of ``textvae diagnose``: one verdict on a latent variable, with its evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from textwrap import wrap
from typing import Any

from textvae.evaluation.diagnosis.history import ALIVE, Death, History, Moment
from textvae.evaluation.diagnosis.judge import SEVERITY, UNCLEAR, Finding
from textvae.evaluation.diagnosis.remedy import Remedy
from textvae.evaluation.metrics.card import SPLITS
from textvae.evaluation.metrics.metric import MISSING, decimals
from textvae.evaluation.metrics.table import BY_KEY
from textvae.evaluation.printed import Printed
from textvae.runs.files import finite

WIDTH = 100  # of a line of text
COLUMNS = 8  # evaluations shown, the first and the last among them
# Name, field of ``Moment``, decimals.
MOMENT_ROWS = (
    ("epoch", "epoch", 2),
    ("KL weight", "beta", 2),
    ("ELBO", "elbo", 2),
    ("KL", "kl", 2),
    ("MI", "mi", 2),
    ("AU", "au", 0),
)


@dataclass(frozen=True)
class Evidence:
    """One metric with its 95% interval.

    Attributes:
        key: Its name in JSON; that of the metrics card, if the card has it.
        name: Its name in a table.
        value: Its value.
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
        kl: Its KL(q(z_d|x) || p(z_d)) in nats, before any refinement; None if there is only one
            for all dimensions.
        variance: Variance of its posterior mean over the examples, before any refinement.
        shuffle_gap: Nats per example lost if it comes from another example; None if not measured.
        aggregate_kl: KL(p(z_d) || q(z_d)) in nats; None if there is no density of one dimension.
        died: The epoch at which a dead dimension had lost its KL; None if it never had one, or if
            that was not logged.
    """

    number: int
    state: str
    kl: float | None
    variance: float
    shuffle_gap: float | None
    aggregate_kl: float | None
    died: float | None = None

    @property
    def described(self) -> str:
        """Its state, and since when it is dead."""
        return self.state if self.died is None else f"{self.state} since epoch {self.died:g}"

    @property
    def cells(self) -> list[str]:
        """Its numbers for a table: KL, variance, shuffle gap, and KL of the aggregate."""
        numbers = (self.kl, self.variance, self.shuffle_gap, self.aggregate_kl)
        return [MISSING if number is None else decimals(number, 3) for number in numbers]


@dataclass(frozen=True)
class Diagnosis(Printed):
    """One verdict on a latent variable, with its evidence and what to do; ``print`` shows it.

    Attributes:
        verdict: ``healthy``, ``under-trained``, ``holes``, ``partly collapsed``, ``unread``,
            ``over-refined``, ``collapsed``, or ``too few examples to tell``.
        summary: The verdict in one sentence.
        model: The name of the run; empty for a model without one.
        split: The split that was examined; empty without a run.
        count: Number of examples.
        findings: Everything that is wrong, worst first; the first one gives the verdict.
        evidence: The metrics behind it.
        dimensions: The metrics of every dimension.
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

    def is_at_least(self, verdict: str) -> bool | None:
        """Return whether something is wrong that is at least as bad as a verdict.

        Args:
            verdict: Any verdict but ``too few examples to tell``.

        Returns:
            None if there are too few examples to tell, or it is too early.
        """
        least, possible = SEVERITY.index(verdict), self._about_at_least(verdict)
        certain = [f for f in possible if f.verdict != UNCLEAR]
        if any(SEVERITY.index(f.verdict) >= least for f in certain):
            return True
        return None if possible else False

    def why_undecided(self, verdict: str) -> str:
        """Say why ``is_at_least`` is None."""
        return self._about_at_least(verdict)[0].summary

    def _about_at_least(self, verdict: str) -> list[Finding]:
        least = SEVERITY.index(verdict)
        return [f for f in self.findings if SEVERITY.index(f.about) >= least]

    def __str__(self) -> str:
        """Return the diagnosis as lines of text."""
        blocks = [
            [f"{self._title()}{self.verdict}", *_wrapped(self.summary)],
            [line for finding in self.findings[1:] for line in _wrapped(further(finding))],
            _evidence_lines(self.evidence),
            _dimension_lines(self.dimensions),
            _history_lines(self.history),
            _remedy_lines(self.remedies),
        ]
        return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"

    def _title(self) -> str:
        split = f"{self.split} split" if self.split in SPLITS else self.split
        named = ", ".join(part for part in (self.model, split) if part)
        return f"{named}: " if self.model else ""


def further(finding: Finding) -> str:
    """Say what else is wrong, or is unclear, in a line."""
    unclear = finding.verdict == UNCLEAR
    return finding.summary if unclear else f"also {finding.verdict}: {finding.summary}"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _evidence_lines(evidence: Iterable[Evidence]) -> list[str]:
    rows = [(row.name, _digits(row), row) for row in evidence]
    width = max((len(name) for name, _, _ in rows), default=0)
    return [
        f"{name:{width}} {decimals(row.value, digits):>10}  {_interval(row, digits)}  {row.unit}"
        for name, digits, row in rows
    ]


def _interval(row: Evidence, digits: int) -> str:
    ends = (decimals(end, digits) if isfinite(end) else MISSING for end in (row.low, row.high))
    return f"[{', '.join(ends)}]".ljust(18)


def _digits(row: Evidence) -> int:
    key = row.key.removeprefix("encoder_")
    return BY_KEY[key].digits if key in BY_KEY else 2


def _dimension_lines(dimensions: Iterable[Dimension]) -> list[str]:
    lines = [f"{'dimension':>9} {'KL':>8} {'variance':>9} {'shuffle gap':>12} {'KL(p || q)':>11}"]
    for row in dimensions:
        kl, variance, gap, aggregate = row.cells
        numbers = f"{row.number:>9} {kl:>8} {variance:>9} {gap:>12} {aggregate:>11}"
        lines.append(f"{numbers}  {row.described}")
    return lines


def _history_lines(history: History) -> list[str]:
    if not history.deaths:
        return []
    return [*_moment_lines(history.moments), *map(death_line, history.deaths)]


def _moment_lines(moments: Sequence[Moment]) -> list[str]:
    """Return a row for each metric, with a column for some of the evaluations."""
    last = len(moments) - 1
    some = sorted({round(i * last / (COLUMNS - 1)) for i in range(COLUMNS)}) if moments else []
    lines = []
    for name, key, digits in MOMENT_ROWS:
        cells = (getattr(moments[i], key) for i in some)
        texts = (MISSING if cell is None else decimals(cell, digits) for cell in cells)
        lines.append(f"{name:<9} " + " ".join(f"{text:>8}" for text in texts))
    return lines if some else []


def death_line(death: Death) -> str:
    """Say in a sentence when a metric died."""
    metric, least = BY_KEY[death.key], ALIVE[death.key]
    beta = "" if death.beta is None else f", with a KL weight of {decimals(death.beta)}"
    if death.value is None:
        start = f"from the first evaluation, epoch {death.epoch:.2f}"
        return f"{metric.header} below {least:g} {start}{beta}"
    return (
        f"{metric.header} below {least:g} from epoch {death.epoch:.2f} on{beta}; at epoch "
        f"{death.alive_at:.2f}, it was {decimals(death.value, metric.digits)}"
    )


def _remedy_lines(remedies: Iterable[Remedy]) -> list[str]:
    lines = []
    for number, remedy in enumerate(remedies, 1):
        text = f"{remedy.title}: {remedy.reason}" if remedy.title else remedy.reason
        lines += _wrapped(f"{number}. {text}", "   ")
        lines += [f"   {remedy.command}"] if remedy.command else []  # in one line, to be pasted
    return lines
