"""KL by dimension over training: which dimensions of z come alive, which die, and when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

SIZE = (7, 4)  # inches
SHOWN_DIMENSIONS = 16  # tick labels, at most


def kl_heat_map(epochs: Sequence[float], kl_per_dim: Sequence[Sequence[float]]) -> Figure:
    """Draw the KL of every dimension at every evaluation.

    Args:
        epochs: The epoch of each of the E evaluations.
        kl_per_dim: The KL of each dimension at each evaluation (E, Z), in nats per example.
    """
    kl = np.asarray(kl_per_dim, dtype=float).T  # (Z, E)
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(kl, aspect="auto", interpolation="nearest", cmap="viridis", vmin=0)
    columns = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 10)).round().astype(int))
    axes.set_xticks(columns, [f"{epochs[column]:.3g}" for column in columns])
    axes.set_yticks(range(0, len(kl), -(-len(kl) // SHOWN_DIMENSIONS)))
    axes.set_xlabel("epoch")
    axes.set_ylabel("dimension of z")
    figure.colorbar(image, ax=axes, label="KL (nats per example)")
    return figure
