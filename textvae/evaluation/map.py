"""A map of the latent space: posterior means of a split in two dimensions, coloured by label.

By t-SNE (van der Maaten & Hinton 2008), or as they are where the latent has two dimensions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from textvae.errors import UserError
from textvae.evaluation.per_example import posteriors
from textvae.runs.files import replace_file
from textvae.vae.batching import Split
from textvae.vae.model import Model

PERPLEXITY = 30
LEAST = 10  # points that make a map
LEGEND = 20  # more labels than that cannot be told apart by colour


def draw_map(
    path: Path,
    model: Model,
    split: Split,
    *,
    title: str,
    limit: int = 2000,
    seed: int = 0,
    batch_size: int = 64,
    refine_steps: int | None = None,
) -> None:
    """Writes the map of the first ``limit`` examples as PNG.

    Raises:
        UserError: there is no latent, there are too few examples, or the file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: a map is written as .png")
    count = min(limit, len(split))
    if not model.latent_dim or count < LEAST:
        raise UserError(f"a map needs a latent and {LEAST} examples")
    options = {"seed": seed, "batch_size": batch_size, "refine_steps": refine_steps}
    means = posteriors(model, split, np.arange(count), **options).mean.numpy()
    figure = _figure(_flat(means, seed), split, title)
    replace_file(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))


def _flat(means: np.ndarray, seed: int) -> np.ndarray:
    """(N, 2) for means (N, Z)."""
    if means.shape[1] <= 2:
        return np.pad(means, ((0, 0), (0, 2 - means.shape[1])))
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(means) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(means)


def _figure(points: np.ndarray, split: Split, title: str) -> Figure:
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot(title=title, xticks=[], yticks=[], aspect="equal")
    labels = np.zeros(len(points), int) if split.labels is None else split.labels[: len(points)]
    present = np.unique(labels)
    colours = colormaps["tab10" if len(present) <= 10 else "tab20" if len(present) <= 20 else "hsv"]
    for i, label in enumerate(present):
        colour = colours(i if len(present) <= LEGEND else i / len(present))
        name = split.label_names[label] if split.label_names and label >= 0 else "no label"
        axes.scatter(*points[labels == label].T, s=6, color=colour, label=name, linewidths=0)
    if 1 < len(present) <= LEGEND:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=3, frameon=False)
    return figure
