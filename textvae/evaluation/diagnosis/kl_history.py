"""KL by dimension over training: which dimensions of z come alive, which die, and when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SIZE = (7, 4)  # inches
SHOWN_DIMENSIONS = 16  # tick labels, at most


def kl_heat_map(epochs: Sequence[float], kl_per_dim: Sequence[Sequence[float]]) -> Figure:
    """Draw the KL of every dimension at every evaluation.

    Args:
        epochs: The epoch of each of the E evaluations.
        kl_per_dim: The KL of each dimension at each evaluation (E, Z), in nats per example.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    mesh = draw_kl_history(axes, epochs, kl_per_dim)
    figure.colorbar(mesh, ax=axes, label="KL (nats per example)")
    return figure


def draw_kl_history(
    axes: Axes,
    epochs: Sequence[float],
    kl_per_dim: Sequence[Sequence[float]],
    highest: float | None = None,
) -> QuadMesh:
    """Draw the heat map into existing axes; a column ends at the epoch of its evaluation.

    Args:
        axes: The axes.
        epochs: As for ``kl_heat_map``.
        kl_per_dim: As for ``kl_heat_map``.
        highest: The KL at the end of the color scale; by default, the highest one.
    """
    kl = np.asarray(kl_per_dim, dtype=float).T  # (Z, E)
    edges = ([0.0, *epochs], np.arange(len(kl) + 1) - 0.5)
    # As pixels, because a vector graphic would have an element for every number.
    mesh = axes.pcolormesh(*edges, kl, cmap="viridis", vmin=0, vmax=highest, rasterized=True)
    axes.invert_yaxis()
    axes.set_yticks(range(0, len(kl), -(-len(kl) // SHOWN_DIMENSIONS)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=epochs[-1] >= 4))
    axes.set(xlabel="epoch", ylabel="dimension of z")
    return mesh
