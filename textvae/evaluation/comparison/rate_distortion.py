"""The rate-distortion plane (Alemi et al. 2018): what z costs, and what it is worth.

The rate of a model is its KL, the distortion is -E_q[log p(x|z)], and their sum is -ELBO. On a line
of slope -1, all models have the same ELBO. A language model has rate 0, so the line through it
separates the models that gain more from z than they pay for it from those that do not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from textvae.errors import UserError
from textvae.evaluation.comparison.compare import gather
from textvae.evaluation.comparison.seeds import SPREAD
from textvae.evaluation.metrics.metric import MISSING
from textvae.evaluation.plot_file import COLORS, check_plot_file, save_plot

logger = logging.getLogger(__name__)
SHAPES = "osD^vPX*"  # repeat less often than the colors
DASHES = ("--", ":", "-.", (0, (1, 4)), (0, (8, 3)))  # of language models
MARGIN = 0.08  # of the range of the points, around them
SMALLEST_MARGIN = 0.05  # nats
LINES = 14  # iso-ELBO lines, about


class Style(NamedTuple):
    """How a model looks in pictures."""

    color: str
    shape: str | None = None  # of its marker; None for a language model, which is a line
    dashes: Any = "-"  # of its line in the plane


def draw_rate_distortion(
    runs_or_cards: Sequence[Path | str | Mapping[str, Any]],
    out: Path | str,
    split: str = "test",
    *,
    average_seeds: bool = False,
) -> None:
    """Draw KL against -rec, with a point for every run and lines of equal ELBO.

    Args:
        runs_or_cards: As for ``compare``. Published rows (cards with a ``source``) are hollow.
        out: The file to write: .svg, .png or .pdf.
        split: Which card of a run folder to read.
        average_seeds: Whether runs that differ only in their seed are one point, with bars for the
            standard deviation.

    Raises:
        UserError: There is no model with a latent variable, a card is missing or broken, or the
            file cannot be written.
    """
    check_plot_file(out)
    cards = gather(runs_or_cards, split, average_seeds=average_seeds)
    save_plot(rate_distortion(cards), out)


def rate_distortion(cards: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the picture of some cards.

    Args:
        cards: Of language models (``latent_dim`` 0) and of models with a latent variable. A card
            needs two of ``rec``, ``kl`` and ``elbo``; others are left out.

    Raises:
        UserError: No card of a model with a latent variable has them.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    draw_plane(axes, cards)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
    return figure


def styles(cards: Sequence[Mapping[str, Any]]) -> list[Style]:
    """Return how each model looks: a color and a shape, or a dashed line for a language model."""
    looks = (Style(COLORS[i % len(COLORS)], SHAPES[i % len(SHAPES)]) for i in count())
    lines = (Style("0.3", dashes=dashes) for dashes in cycle(DASHES))
    return [next(lines if card.get("latent_dim") == 0 else looks) for card in cards]


def draw_plane(axes: Axes, cards: Sequence[Mapping[str, Any]]) -> None:
    """Draw the plane with all cards into existing axes, without a legend.

    Raises:
        UserError: As for ``rate_distortion``.
    """
    points = [(card, point) for card in cards if (point := point_of(card)) is not None]
    if left_out := [_label(card) for card in cards if point_of(card) is None]:
        logger.warning("not drawn, because rec or KL is missing: %s", ", ".join(left_out))
    if all(card.get("latent_dim") == 0 for card, _ in points):
        raise UserError(
            "nothing to draw: a rate-distortion plot needs a model with a latent variable, and its "
            "KL and rec"
        )
    axes.set(xlabel="rate: KL (nats)", ylabel="distortion: −rec (nats)")
    axes.spines[["top", "right"]].set_visible(False)
    _set_limits(axes, points)
    _draw_equal_elbo(axes)
    for card, style in zip(cards, styles(cards), strict=True):
        if (point := point_of(card)) is None:
            continue
        if style.shape is not None:
            _draw_point(axes, card, point, style)
        else:
            line = {"color": style.color, "ls": style.dashes, "lw": 1.2, "label": _label(card)}
            axes.axline((0, point[1]), slope=-1, **line)


def point_of(card: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return (KL, -rec) of a card, of which either may follow from the ELBO; None without them."""
    kl, rec, elbo = (card.get(key) for key in ("kl", "rec", "elbo"))
    if card.get("latent_dim") == 0:
        kl = 0.0
    if elbo is not None and kl is not None and rec is None:
        rec = elbo + kl
    if elbo is not None and rec is not None and kl is None:
        kl = rec - elbo
    return None if kl is None or rec is None else (kl, -rec)


def _label(card: Mapping[str, Any]) -> str:
    """Return the name of a model as text that matplotlib shows as it is."""
    name = "".join(c if c.isprintable() else "?" for c in str(card.get("model") or MISSING))
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name  # an underscore would hide it


def _set_limits(
    axes: Axes, points: Sequence[tuple[Mapping[str, Any], tuple[float, float]]]
) -> None:
    """Make room for all points with their bars, and for a rate of 0."""
    setters: tuple[Any, Any] = (axes.set_xlim, axes.set_ylim)
    for i, (key, set_limits) in enumerate(zip(("kl", "rec"), setters, strict=True)):
        spreads = [card.get(key + SPREAD) or 0.0 for card, _ in points]
        ends = [(point[i] - s, point[i] + s) for (_, point), s in zip(points, spreads, strict=True)]
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        if key == "kl":
            low = min(low, 0.0)
        margin = max(MARGIN * (high - low), SMALLEST_MARGIN)
        set_limits(low - margin, high + margin)


def _draw_equal_elbo(axes: Axes) -> None:
    """Draw thin lines of equal ELBO at round numbers of nats, labeled at their lower ends."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    step = _round_step((right + top - left - bottom) / LINES)
    first = math.ceil((left + bottom) / step) * step
    for i in range(math.ceil((right + top - first) / step)):
        nll = first + i * step
        line = axes.axline((0, nll), slope=-1, color="0.88", linewidth=0.8, zorder=0)
        if not i:
            line.set_label("lines of equal ELBO")
        x = min(right, nll - bottom)  # where the line leaves the plot
        in_corner = x > right - 0.1 * (right - left) and nll - x < bottom + 0.1 * (top - bottom)
        if in_corner or x < left or nll - x > top - 0.05 * (top - bottom):
            continue  # no room
        text = f"{0 - nll:g}".replace("-", "−")  # 0 - 0 has no sign
        label = axes.annotate(text, (x, nll - x), color="0.55", fontsize="x-small", va="bottom")
        if x == right:  # the label is below the line, which falls to the right
            label.set(ha="right", va="top")


def _round_step(size: float) -> float:
    """Return the number 1, 2, or 5 times a power of ten that is closest above ``size``."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= size)


def _draw_point(
    axes: Axes, card: Mapping[str, Any], point: tuple[float, float], style: Style
) -> None:
    errors = [card.get(key + SPREAD) for key in ("kl", "rec")]
    axes.errorbar(
        *point,
        xerr=errors[0],
        yerr=errors[1],
        fmt=style.shape or "o",
        color=style.color,
        markerfacecolor="none" if "source" in card else style.color,
        markersize=6,
        elinewidth=1,
        label=_label(card),
    )
