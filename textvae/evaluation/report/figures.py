"""The pictures of a report: curves, the KL of every dimension, the plane, and the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from textvae.evaluation.comparison.marks import Style
from textvae.evaluation.comparison.rate_distortion import draw_plane
from textvae.evaluation.comparison.scatter import draw_scatter
from textvae.evaluation.diagnosis.kl_history import draw_kl_history
from textvae.evaluation.latent.map import draw_points, in_two_dimensions
from textvae.evaluation.report.svg import STYLE, inline

PANEL = (2.9, 1.95)  # inches
PLANE = (3.6, 3.0)
MAP = (3.4, 2.8)
SETTLED = 0.5  # of the training: what follows is in the middle of the picture
LINEAR = 0.1  # nats: above, the axis of the KL is logarithmic
MANY = 30  # evaluations: more of them are not marked one by one
Records = Sequence[Mapping[str, Any]]


class Curve(NamedTuple):
    """A quantity that training logs.

    Attributes:
        key: Its name in a record.
        title: Its name on the page.
        unit: Its unit.
        needs_latent: Whether it is meaningless for a language model.
        ceiling: The key of the largest value that it can take.
        from_zero: Whether the picture always includes 0.
        cut: Whether the start of the training, where it changes the most, may lie outside.
        logarithmic: Whether small and large values are of interest.
        scheduled: Whether training sets it, so that all records show the same curve.
    """

    key: str
    title: str
    unit: str = ""
    needs_latent: bool = True
    ceiling: str | None = None
    from_zero: bool = True
    cut: bool = False
    logarithmic: bool = False
    scheduled: bool = False


CURVES = (
    Curve("elbo", "ELBO", "nats per example", needs_latent=False, from_zero=False, cut=True),
    Curve("rec", "rec", "nats per example", from_zero=False, cut=True),
    Curve("kl", "KL", "nats per example", logarithmic=True),
    Curve("mi", "MI", "nats", ceiling="mi_max"),
    Curve("au", "Active units", "dimensions", ceiling="latent_dim"),
    Curve("beta", "KL weight β", scheduled=True),
    Curve("lr", "Learning rate", needs_latent=False, scheduled=True),
)


class Line(NamedTuple):
    """The curves of one run."""

    train: Records
    valid: Records
    style: Style
    has_latent: bool


class Picture(NamedTuple):
    """A picture with its title."""

    title: str
    unit: str
    svg: Markup


def draw_curves(lines: Sequence[Line]) -> list[Picture]:
    """Draw every quantity over the epochs of training, one picture each.

    Quantities that no run has logged are left out.
    """
    pictures = []
    for curve in CURVES:
        shown = [line for line in lines if line.has_latent or not curve.needs_latent]
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=PANEL, layout="constrained")
            axes = figure.add_subplot(xlabel="epoch")
            if not sum(_draw_line(axes, curve, line) for line in shown):
                continue
            _set_limits(axes, curve, shown)
        svg = inline(figure, f"curve-{curve.key}", f"{curve.title} over the epochs of training")
        pictures.append(Picture(curve.title, curve.unit, svg))
    return pictures


def _draw_line(axes: Axes, curve: Curve, line: Line) -> bool:
    """Draw the validation curve of a run, and the training curve as a thin line behind it."""
    color, drawn = line.style.color, False
    if curve.scheduled:
        everything = sorted([*line.train, *line.valid], key=lambda record: record["epoch"])
        line = line._replace(train=everything, valid=[])
    if points := _points(line.train, curve.key):
        alone = not _points(line.valid, curve.key)
        look: dict[str, Any] = {"lw": 1.3} if alone else {"lw": 0.8, "alpha": 0.45}
        if len(points[0]) == 1:  # has no length
            look |= {"marker": "o", "markersize": 3}
        axes.plot(*points, color=color, zorder=2, **look)
        drawn = True
    if points := _points(line.valid, curve.key):
        mark = (line.style.shape or "o") if len(points[0]) <= MANY else None
        axes.plot(*points, color=color, lw=1.3, marker=mark, markersize=3, zorder=3)
        drawn = True
    return drawn


def _points(records: Records, key: str) -> tuple[list[float], list[float]] | None:
    """Return epochs and values; None if there is no value."""
    pairs = [(record["epoch"], _value(record, key)) for record in records]
    known = [(epoch, value) for epoch, value in pairs if value is not None]
    return ([epoch for epoch, _ in known], [value for _, value in known]) if known else None


def _value(record: Mapping[str, Any], key: str) -> float | None:
    if key == "elbo" and key not in record:  # the training log has its two parts
        rec, kl = _value(record, "rec"), _value(record, "kl")
        return None if rec is None or kl is None else rec - kl
    value = record.get(key)
    return float(value) if isinstance(value, (int, float)) else None


def _set_limits(axes: Axes, curve: Curve, lines: Sequence[Line]) -> None:
    """Choose what the picture shows, and draw the largest possible values."""
    ceilings = {
        float(record[curve.ceiling])
        for line in lines
        for record in line.valid
        if curve.ceiling and record.get(curve.ceiling)
    }
    for ceiling in ceilings:
        axes.axhline(ceiling, color="0.55", lw=0.8, ls=(0, (3, 3)), zorder=1)
    values = [*ceilings, *([0.0] if curve.from_zero else [])]
    for line in lines:
        points = _points([*line.train, *line.valid], curve.key) or ([], [])
        start = SETTLED * max(points[0], default=0.0) if curve.cut else 0.0
        values += [v for epoch, v in zip(*points, strict=True) if epoch >= start]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    if curve.cut:
        low -= high - low  # as much again of what comes before
    elif curve.from_zero and low == 0:
        margin /= 2
    if curve.logarithmic:
        axes.set_yscale("symlog", linthresh=LINEAR, linscale=0.4)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_ylim(min(low, -LINEAR / 5), max(1.4 * high, 2 * LINEAR))
    else:
        axes.set_ylim(low - margin, high + margin)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=curve.key == "au"))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=axes.get_xlim()[1] >= 4))
    axes.grid(axis="y", color="0.9", lw=0.6)
    axes.set_axisbelow(True)


def draw_dimensions(name: str, valid: Records, highest: float) -> Markup:
    """Draw the KL of every dimension (rows) at every evaluation (columns) as a heat map.

    Args:
        name: Starts the ids of the picture.
        valid: Validation records with a ``kl_per_dim``.
        highest: The KL at the end of the color scale, in nats.
    """
    table = [record["kl_per_dim"] for record in valid]
    height = max(PANEL[1], min(4.2, 0.6 + 0.06 * len(table[0])))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PANEL[0], height), layout="constrained")
        axes = figure.add_subplot()
        epochs = [record["epoch"] for record in valid]
        mesh = draw_kl_history(axes, epochs, table, highest or 1.0)
        axes.set_yticks(range(0, len(table[0]), -(-len(table[0]) // 8)))
        bar = figure.colorbar(mesh, pad=0.02, aspect=30, label="nats")
        for part in (axes, bar.ax):
            part.spines[:].set_visible(False)
            part.tick_params(length=0)
        bar.outline.set_visible(False)
        for colors in bar.ax.collections:
            colors.set_rasterized(True)
    return inline(figure, name, "KL of every dimension of z over the epochs of training")


def draw_bars(name: str, kls: Sequence[float]) -> Markup:
    """Draw the KL of every dimension of a finished model as bars."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=PANEL, layout="constrained")
        axes = figure.add_subplot(xlabel="dimension of z", ylabel="KL (nats)")
        axes.bar(range(len(kls)), kls, color="#0072B2")
        axes.set_ylim(0, max(1.05 * max(kls), 0.01))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return inline(figure, name, "KL of every dimension of z")


def draw_models(cards: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw all models in the rate-distortion plane."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=PLANE, layout="constrained")
        draw_plane(figure.add_subplot(), cards)
    return inline(figure, "plane", "KL against reconstruction for every model")


def draw_information(
    cards: Sequence[Mapping[str, Any]],
) -> tuple[Markup | None, list[Mapping[str, Any]]]:
    """Draw mutual information against the importance-weighted bound.

    Returns:
        The picture, None if no model has both; and the cards that have a place in it.
    """
    bounds = [key for key in ("ppl_iw", "bits_per_dim_iw") if any(card.get(key) for card in cards)]
    if not bounds:
        return None, []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=PLANE, layout="constrained")
        axes = figure.add_subplot()
        left_out = draw_scatter(axes, cards, "mi", bounds[0])
    if not axes.containers:
        return None, []
    label = "mutual information against likelihood for every model"
    return inline(figure, "information", label), [c for c in cards if c not in left_out]


def draw_map(
    name: str,
    centers: np.ndarray,
    labels: np.ndarray | None,
    label_names: Sequence[str] | None,
    seed: int,
) -> tuple[Markup, list[tuple[str, str]]]:
    """Draw posterior centers in two dimensions.

    Args:
        name: Starts the ids of the picture.
        centers: (N, Z).
        labels: (N,) indices into ``label_names``; -1: unlabeled.
        label_names: Names of the labels.
        seed: Seed of t-SNE.

    Returns:
        The picture, and the name and the color of every label.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=MAP, layout="constrained")
        axes = figure.add_subplot()
        points = in_two_dimensions(centers, seed)
        colors = draw_points(axes, points, labels, label_names)
        axes.set_aspect("equal", "datalim")
        axes.spines[:].set_visible(False)
    return inline(figure, name, "Posterior centers in two dimensions"), colors
