"""The rate-distortion plane (Alemi et al. 2018): what z costs, and what it is worth.

The rate of a model is its KL, the distortion is -E_q[log p(x|z)], and their sum is -ELBO. On a line
of slope -1, all models have the same ELBO. A language model has rate 0, so the line through it
separates the models that gain more from z than they pay for it from those that do not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from textvae.errors import UserError
from textvae.evaluation.comparison.compare import gather
from textvae.evaluation.comparison.marks import (
    draw_point,
    empty_axes,
    label_of,
    spread_of,
    styles,
    with_legend,
)
from textvae.evaluation.plot_file import check_plot_file, save_plot

logger = logging.getLogger(__name__)
MARGIN = 0.08  # of the range of the points, around them
SMALLEST_MARGIN = 0.05  # nats
LINES = 14  # iso-ELBO lines, about


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
    axes = empty_axes()
    draw_plane(axes, cards)
    return with_legend(axes)


def draw_plane(axes: Axes, cards: Sequence[Mapping[str, Any]]) -> None:
    """Draw the plane with all cards into existing axes, without a legend.

    Raises:
        UserError: As for ``rate_distortion``.
    """
    points = [(card, point) for card in cards if (point := point_of(card)) is not None]
    if left_out := [label_of(card) for card in cards if point_of(card) is None]:
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
            draw_point(axes, card, point, style, (spread_of(card, "kl"), spread_of(card, "rec")))
        else:
            line = {"color": style.color, "ls": style.dashes, "lw": 1.2, "label": label_of(card)}
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


def _set_limits(
    axes: Axes, points: Sequence[tuple[Mapping[str, Any], tuple[float, float]]]
) -> None:
    """Make room for all points with their bars, and for a rate of 0."""
    setters: tuple[Any, Any] = (axes.set_xlim, axes.set_ylim)
    for i, (key, set_limits) in enumerate(zip(("kl", "rec"), setters, strict=True)):
        spreads = [spread_of(card, key) or 0.0 for card, _ in points]
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
