"""What the template shows of each run: texts and pictures, ready for the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from textvae.evaluation.comparison.marks import Style
from textvae.evaluation.diagnosis.judge import (
    COLLAPSED,
    HEALTHY,
    OVER_REFINED,
    UNREAD,
)
from textvae.evaluation.diagnosis.remedy import Remedy
from textvae.evaluation.diagnosis.result import Diagnosis, Dimension, Evidence, death_line, further
from textvae.evaluation.latent.map import MIN_POINTS
from textvae.evaluation.metrics.card import SECTIONS, card_notes
from textvae.evaluation.metrics.metric import MISSING, Metric, decimals
from textvae.evaluation.metrics.own import metrics_of
from textvae.evaluation.metrics.table import BY_KEY, COMPANIONS
from textvae.evaluation.open_run import spaced
from textvae.evaluation.report.contents import Contents
from textvae.evaluation.report.exhibits import Latent
from textvae.evaluation.report.figures import draw_bars, draw_dimensions, draw_map

MAPPED = 500  # points on a map
TILES = ("ppl_iw", "bits_per_dim_iw", "elbo", "kl", "mi", "au", "shuffle_gap", "accuracy")
CEILINGS = {"mi": "mi_max", "au": "latent_dim"}
TONES = {HEALTHY: "good", COLLAPSED: "bad", UNREAD: "bad", OVER_REFINED: "bad"}  # others: fair


class Number(NamedTuple):
    """A metric on the metrics card or in the diagnosis, as text."""

    name: str
    value: str
    interval: str  # 95%
    encoder: str  # before refinement
    unit: str
    help: str
    is_main: bool


class Tile(NamedTuple):
    """One of the most important metrics."""

    name: str
    value: str
    more: str
    unit: str


class Verdict(NamedTuple):
    """What the diagnosis says, apart from its metrics."""

    word: str
    tone: str
    summary: str
    further: list[str]
    remedies: list[Remedy]


class Picture(NamedTuple):
    """A picture with what has to be said about it."""

    svg: Markup
    note: str


# What the posteriors of all N examples say together: fewer examples have another value.
OF_THE_WHOLE = {"mi", "encoder_mi", "marginal_kl", "hole_share"}


@dataclass(frozen=True)
class View:
    """One run on the page."""

    name: str
    style: Style
    contents: Contents
    has_latent: bool
    verdict: Verdict
    diagnosed: int  # examples
    tiles: list[Tile]
    numbers: list[Number]
    notes: list[str]
    dimensions: list[list[str]]  # the rows of a table: number, state, figures
    by_dimension: Picture | None
    bounds: list[str]  # the row of a table; empty if they were not measured
    positions: dict[str, str]  # what z gains at each position of a text; empty without words
    map: Markup | None
    labels: list[tuple[str, str]]  # the name and the color of each


def make_view(
    contents: Contents, place: int, name: str, style: Style, highest: float, seed: int
) -> View:
    """Prepare one run for the page.

    Args:
        contents: Everything about it.
        place: Its place among the runs, for the ids of its pictures.
        name: Its name on the page.
        style: How it looks in pictures.
        highest: The KL at the end of the color scale of all runs, in nats.
        seed: Seed of the map.
    """
    card, diagnosis = contents.card, contents.diagnosis
    picture, labels = _map(contents, place, seed)
    return View(
        name=name,
        style=style,
        contents=contents,
        has_latent=contents.exhibits.latent is not None,
        verdict=_verdict(diagnosis),
        diagnosed=0 if diagnosis is None else diagnosis.count,
        tiles=_tiles(card),
        numbers=_numbers(card, () if diagnosis is None else _comparable(diagnosis, card)),
        notes=card_notes(card),
        dimensions=[_row(each) for each in (() if diagnosis is None else diagnosis.dimensions)],
        by_dimension=_by_dimension(contents, place, highest),
        bounds=_bounds(contents.bounds),
        positions=_positions(contents.exhibits.latent),
        map=picture,
        labels=labels,
    )


def _map(contents: Contents, place: int, seed: int) -> tuple[Markup | None, list[tuple[str, str]]]:
    latent = contents.exhibits.latent
    if latent is None or len(latent.centers) < MIN_POINTS or not np.ptp(latent.centers, 0).any():
        return None, []
    shown = spaced(len(latent.centers), MAPPED)
    labels = None if latent.labels is None else latent.labels[shown]
    return draw_map(f"map-{place}", latent.centers[shown], labels, contents.label_names, seed)


def _verdict(diagnosis: Diagnosis | None) -> Verdict:
    if diagnosis is None:
        about = "A model without a latent variable: there is nothing to diagnose."
        return Verdict("language model", "plain", about, [], [])
    also = [f"{further(finding)}." for finding in diagnosis.findings[1:]]
    also = [line[0].upper() + line[1:] for line in also]
    also += [f"{death_line(death)}." for death in diagnosis.history.deaths]
    tone = TONES.get(diagnosis.verdict, "fair")
    remedies = list(diagnosis.remedies)
    return Verdict(diagnosis.verdict, tone, f"{diagnosis.summary}.", also, remedies)


def _comparable(diagnosis: Diagnosis, card: Mapping[str, Any]) -> tuple[Evidence, ...]:
    """Return the evidence of a diagnosis, without what depends on the number of examples.

    All of it if the diagnosis and the card are of the same number.
    """
    if diagnosis.count == card.get("count"):
        return diagnosis.evidence
    return tuple(row for row in diagnosis.evidence if row.key not in OF_THE_WHOLE)


def _numbers(card: Mapping[str, Any], evidence: tuple[Evidence, ...]) -> list[Number]:
    """Return the metrics of the card with their intervals, then those of the diagnosis alone."""
    intervals = {row.key: row for row in evidence}
    numbers = [
        Number(
            metric.header,
            metric.show(card).partition(" ± ")[0] if metric.key in intervals else metric.show(card),
            _interval(intervals.get(metric.key), metric.digits),
            metric.show_encoder(card),
            metric.unit,
            metric.help,
            metric.column != "never",
        )
        for metric in metrics_of([card])
        if metric.section in SECTIONS and metric.show(card) != MISSING
    ]
    known = BY_KEY.keys() | COMPANIONS
    return numbers + [
        Number(row.name, decimals(row.value), _interval(row, 2), MISSING, row.unit, "", False)
        for row in evidence
        if row.key not in known
    ]


def _interval(row: Evidence | None, digits: int) -> str:
    if row is None or not (math.isfinite(row.low) and math.isfinite(row.high)):
        return ""
    return f"[{decimals(row.low, digits)}, {decimals(row.high, digits)}]"


def _bounds(record: Mapping[str, Any]) -> list[str]:
    """Return the bounds on log p(x) and the gaps between them, in the order of the columns."""
    if not record:
        return []
    names = ("elbo", "best", "iw", "ais")
    values = [decimals(record[key]) if key in record else MISSING for key in names]
    values[2] += f" (K = {record['samples']})"
    for gap in ("amortization_gap", "approximation_gap", "iw_gap", "unknown_gap"):
        value, ends = record.get(gap), record.get(f"{gap}_interval") or [None]
        shown = MISSING if value is None else decimals(value)
        if None not in ends:  # JSON has no infinite ends of an interval
            shown += f" [{', '.join(map(decimals, ends))}]"
        values.append(shown)
    return [str(record["count"]), *values]


def _positions(latent: Latent | None) -> dict[str, str]:
    if latent is None or latent.words is None:
        return {}
    return {part.name: decimals(part.gain) for part in latent.words.explanation.by_position()}


def _tiles(card: Mapping[str, Any]) -> list[Tile]:
    return [_tile(BY_KEY[key], card) for key in TILES if BY_KEY[key].show(card) != MISSING]


def _tile(metric: Metric, card: Mapping[str, Any]) -> Tile:
    value, _, error = metric.show(card).partition(" ± ")
    more = f"± {error}" if error else ""
    if metric.key in CEILINGS:
        more = f"of {BY_KEY[CEILINGS[metric.key]].show(card)}"
    return Tile(metric.header, value, more, metric.unit.partition(",")[0])


def _row(each: Dimension) -> list[str]:
    return [str(each.number), each.described, *each.cells]


def kl_records(contents: Contents) -> list[dict[str, Any]]:
    """Return the validation records that have the KL of every dimension of z."""
    size = contents.card.get("latent_dim") or -1
    return [record for record in contents.valid if len(record.get("kl_per_dim") or ()) == size]


def _by_dimension(contents: Contents, place: int, highest: float) -> Picture | None:
    if records := kl_records(contents):
        return Picture(draw_dimensions(f"kl-{place}", records, highest), "")
    kls = contents.card.get("kl_per_dim") or ()
    if not kls or len(kls) != contents.card.get("latent_dim"):
        return None  # no latent variable; or estimated from draws of z, for all dimensions together
    note = f"On the {contents.card.get('split')} split: this run did not log it during training."
    return Picture(draw_bars(f"kl-{place}", kls), note)
