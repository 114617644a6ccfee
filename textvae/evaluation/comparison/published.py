"""Measured and published metrics compared: reproduced, better, worse, or not comparable.

A published row is a card with some metrics (``textvae.evaluation.metrics.card_files``), and with

    source      where it was published
    stack       the methods of the recipe that reproduce it
    tolerance   by metric, how far from the published value still counts as reproduced
    differs     by metric, how its published estimator differs from ours: then neither value says
                anything about the other
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from textvae.evaluation.comparison.seeds import SPREAD
from textvae.evaluation.metrics.metric import MISSING, Metric
from textvae.evaluation.metrics.table import BY_KEY, METRICS
from textvae.runs.markdown import markdown_table

Outcome = Literal["reproduced", "better", "worse", "different", "not comparable"]
FAILURES: tuple[Outcome, ...] = ("worse", "different")
MUST_AGREE = ("latent_dim", "count", "units")  # or no metric is comparable
HEADER = ("model", "metric", "published", "here", "tolerance", "verdict", "why")


class Verdict(NamedTuple):
    """What became of one published metric."""

    model: str
    metric: Metric
    published: Mapping[str, Any]  # the row
    card: Mapping[str, Any]  # what was measured; empty if nothing was
    outcome: Outcome
    why: str


def judge(published: Mapping[str, Any], card: Mapping[str, Any]) -> list[Verdict]:
    """Judge every metric of a published row.

    A metric within its tolerance is reproduced. Outside of it, it is better or worse, or different
    if neither direction is better, as for the KL.

    Args:
        published: The published row.
        card: What was measured; empty if nothing was.

    Returns:
        One verdict for every metric, in the order of the metrics table.
    """
    found = []
    for metric in METRICS:
        if metric.section != "setup" and published.get(metric.key) is not None:
            outcome, why = _judge(metric, published, card)
            model = str(published["model"])
            found.append(Verdict(model, metric, published, card, outcome, why))
    return found


def _judge(
    metric: Metric, published: Mapping[str, Any], card: Mapping[str, Any]
) -> tuple[Outcome, str]:
    key, tolerances = metric.key, published.get("tolerance") or {}
    if why := (published.get("differs") or {}).get(key):
        return "not comparable", why
    if not card:
        return "not comparable", "there is no finished run"
    for setting in MUST_AGREE:
        values = [each.get(setting) for each in (published, card)]
        if None not in values and values[0] != values[1]:
            name = BY_KEY[setting].header
            return "not comparable", f"{name}: {values[0]} there, {values[1]} here"
    if card.get(key) is None:
        return "not comparable", "not measured here"
    if key not in tolerances:
        return "not comparable", "the row gives no tolerance"
    difference = card[key] - published[key]
    if abs(difference) <= tolerances[key]:
        return "reproduced", ""
    if metric.better == "neither":
        return "different", "neither direction is better"
    return ("better" if (difference > 0) == (metric.better == "higher") else "worse"), ""


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Return verdicts as a Markdown table, with the sources and how many there are of each."""
    counts = dict.fromkeys(Outcome.__args__, 0)  # type: ignore[attr-defined]
    for verdict in verdicts:
        counts[verdict.outcome] += 1
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    sources = dict.fromkeys(str(v.published["source"]) for v in verdicts if "source" in v.published)
    notes = [f"Published in {'; '.join(sources)}."] if sources else []
    table = markdown_table([HEADER, *map(_row, verdicts)])
    return "\n".join([table, "", *notes, f"{summary}."]) + "\n"


def _row(verdict: Verdict) -> tuple[str, ...]:
    metric, key = verdict.metric, verdict.metric.key
    bare = metric._replace(error=key + SPREAD)  # seeds, not examples
    tolerance = (verdict.published.get("tolerance") or {}).get(key)
    return (
        verdict.model,
        metric.header,
        bare.show(verdict.published),
        bare.show(verdict.card) if verdict.card else MISSING,
        MISSING if tolerance is None else f"{metric.scale * tolerance:g}",
        verdict.outcome,
        verdict.why,
    )
