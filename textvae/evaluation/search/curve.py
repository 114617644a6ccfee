"""The curve of a search: the best value so far, against the number of evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from matplotlib.figure import Figure

from textvae.evaluation.plot_file import COLORS

NAMES = {"samples": "samples of the model", "training": "training texts"}


def draw_search(rows: Iterable[Mapping[str, Any]]) -> Figure:
    """Draw the best value so far of a search, and of what it is compared with.

    Args:
        rows: The evaluations, as ``Optimization.rows`` yields them, or a file with them.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for color, (source, calls) in zip(COLORS, groupby(rows, lambda r: r["from"]), strict=False):
        known = [(row["call"], row["best"]) for row in calls if row["best"] is not None]
        if known:
            places, best = zip(*known, strict=True)
            style = {"color": color, "label": NAMES.get(source, source)}
            axes.plot(places, best, drawstyle="steps-post", lw=1.6, **style)
    axes.set(xscale="log", xlabel="evaluations of the objective", ylabel="best value so far")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
