"""How models look in pictures: a color and a marker for each, and a line for a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, cycle
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from textvae.evaluation.comparison.seeds import SPREAD
from textvae.evaluation.metrics.metric import MISSING
from textvae.evaluation.plot_file import COLORS

SHAPES = "osD^vPX*"  # repeat less often than the colors
DASHES = ("--", ":", "-.", (0, (1, 4)), (0, (8, 3)))  # of language models


class Style(NamedTuple):
    """How a model looks in pictures."""

    color: str
    shape: str | None = None  # of its marker; None for a language model, which is a line
    dashes: Any = "-"  # of its line


def styles(cards: Sequence[Mapping[str, Any]]) -> list[Style]:
    """Return how each model looks: a color and a shape, or a dashed line for a language model."""
    looks = (Style(COLORS[i % len(COLORS)], SHAPES[i % len(SHAPES)]) for i in count())
    lines = (Style("0.3", dashes=dashes) for dashes in cycle(DASHES))
    return [next(lines if card.get("latent_dim") == 0 else looks) for card in cards]


def empty_axes() -> Axes:
    """Return the axes of a new figure, whose legend is outside, so that it takes no room."""
    axes = Figure(figsize=(5.6, 4.6)).add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def with_legend(axes: Axes) -> Figure:
    """Name the models beside the axes, and return the figure."""
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
    figure = axes.figure
    assert isinstance(figure, Figure)  # not a part of one
    return figure


def label_of(card: Mapping[str, Any]) -> str:
    """Return the name of a model as text that matplotlib shows as it is."""
    name = "".join(c if c.isprintable() else "?" for c in str(card.get("model") or MISSING))
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name  # an underscore would hide it


def spread_of(card: Mapping[str, Any], key: str) -> float | None:
    """Return the standard deviation of a metric over seeds, if there are several."""
    spread: float | None = card.get(key + SPREAD)
    return spread


def draw_point(
    axes: Axes,
    card: Mapping[str, Any],
    point: tuple[float, float],
    style: Style,
    spreads: tuple[float | None, float | None],
) -> None:
    """Draw the marker of a model, with bars; that of a published result is hollow."""
    axes.errorbar(
        *point,
        xerr=spreads[0],
        yerr=spreads[1],
        fmt=style.shape or "o",
        color=style.color,
        markerfacecolor="none" if "source" in card else style.color,
        markersize=6,
        elinewidth=1,
        label=label_of(card),
    )
