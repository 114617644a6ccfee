"""Any two metrics against each other, such as mutual information and perplexity."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from textvae.errors import UserError
from textvae.evaluation.comparison.compare import check_columns, gather
from textvae.evaluation.comparison.gains import GAIN
from textvae.evaluation.comparison.marks import (
    Style,
    draw_point,
    empty_axes,
    label_of,
    spread_of,
    styles,
    with_legend,
)
from textvae.evaluation.metrics.metric import Metric
from textvae.evaluation.metrics.own import metrics_of
from textvae.evaluation.plot_file import check_plot_file, save_plot

logger = logging.getLogger(__name__)


def draw_metrics(
    runs_or_cards: Sequence[Path | str | Mapping[str, Any]],
    out: Path | str,
    x: str,
    y: str,
    split: str = "test",
    *,
    average_seeds: bool = False,
    baseline: Path | str | Mapping[str, Any] | None = None,
) -> None:
    """Draw two metrics against each other, with a point for every run.

    Args:
        runs_or_cards: As for ``compare``. Published rows (cards with a ``source``) are hollow.
        out: The file to write: .svg, .png or .pdf.
        x: The key of the metric on the horizontal axis, such as ``mi``.
        y: The key of the metric on the vertical axis, such as ``ppl_iw``.
        split: Which card of a run folder to read.
        average_seeds: Whether runs that differ only in their seed are one point, with bars for the
            standard deviation.
        baseline: As for ``compare``; needed for the gain over it.

    Raises:
        UserError: There is no such metric, or no model with both; a card is missing or broken; or
            the file cannot be written.
    """
    check_plot_file(out)
    cards = gather(runs_or_cards, split, average_seeds=average_seeds, baseline=baseline)
    save_plot(scatter(cards, x, y), out)


def scatter(cards: Sequence[Mapping[str, Any]], x: str, y: str) -> Figure:
    """Return the picture of some cards.

    A language model that has only one of the metrics, because the other is about z, is a line.

    Args:
        cards: Of any models; those without the metrics are left out.
        x: The key of the metric on the horizontal axis.
        y: The key of the metric on the vertical axis.

    Raises:
        UserError: There is no such metric, or no card has both.
    """
    check_columns((x, y), cards)
    axes = empty_axes()
    if left_out := [label_of(card) for card in draw_scatter(axes, cards, x, y)]:
        names = ", ".join(left_out)
        logger.warning("not drawn, because %s or %s is missing: %s", x, y, names)
    if not axes.containers:
        lacks_gain = GAIN in (x, y) and all(card.get(GAIN) is None for card in cards)
        needed = f" ({GAIN} needs --baseline RUN)" if lacks_gain else ""
        raise UserError(f"nothing to draw: no model has both {x} and {y}{needed}")
    return with_legend(axes)


def draw_scatter(
    axes: Axes, cards: Sequence[Mapping[str, Any]], x: str, y: str
) -> list[Mapping[str, Any]]:
    """Draw two metrics of all cards into existing axes, without a legend.

    Returns:
        The cards that have no place there.
    """
    known = {metric.key: metric for metric in metrics_of(cards)}
    pair = (known[x], known[y])
    axes.set(xlabel=_title(pair[0]), ylabel=_title(pair[1]))
    looks = zip(cards, styles(cards), strict=True)
    left_out = [card for card, style in looks if not _draw(axes, card, style, pair)]
    axes.set_xlim(_not_too_narrow(*axes.get_xlim(), pair[0]))
    axes.set_ylim(_not_too_narrow(*axes.get_ylim(), pair[1]))
    return left_out


def _not_too_narrow(low: float, high: float, metric: Metric) -> tuple[float, float]:
    """Return limits of an axis, wide enough for numbers that a table shows as equal to look so."""
    missing = max(0.0, 10.0 ** (1 - max(1, metric.digits)) - (high - low))
    return low - missing / 2, high + missing / 2


def _draw(axes: Axes, card: Mapping[str, Any], style: Style, pair: tuple[Metric, Metric]) -> bool:
    """Draw a model; return whether it has a place in the picture."""
    across, up = (_value(metric, card) for metric in pair)
    if across is not None and up is not None:
        spreads = [spread_of(card, metric.key) for metric in pair]
        bars = [None if s is None else m.scale * s for m, s in zip(pair, spreads, strict=True)]
        draw_point(axes, card, (across, up), style, (bars[0], bars[1]))
        return True
    line: dict[str, Any] = {"color": style.color, "ls": style.dashes, "label": label_of(card)}
    is_language_model = card.get("latent_dim") == 0
    if is_language_model and up is not None and pair[0].needs_latent:
        axes.axhline(up, lw=1.2, **line)
    elif is_language_model and across is not None and pair[1].needs_latent:
        axes.axvline(across, lw=1.2, **line)
    else:
        return False
    return True


def _value(metric: Metric, card: Mapping[str, Any]) -> float | None:
    value = card.get(metric.key)
    if value is None or not math.isfinite(value) or not metric.applies(card):
        return None
    return metric.scale * float(value)


def _title(metric: Metric) -> str:
    unit = metric.unit.partition(",")[0]  # without its explanation
    return f"{metric.header}, {unit}" if unit else metric.header
