"""A map of the latent space: posterior means in two dimensions, colored by label.

The means are mapped with t-SNE (van der Maaten & Hinton 2008), projected onto their first two
principal components, or plotted directly if z has two dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from textvae.config.arguments import check_choice
from textvae.errors import UserError
from textvae.evaluation.open_run import Opening, open_run, spaced
from textvae.evaluation.per_example import posteriors
from textvae.evaluation.plot_file import check_plot_file, save_plot

if TYPE_CHECKING:
    from typing_extensions import Unpack

Method = Literal["tsne", "pca"]
PERPLEXITY = 30
MIN_POINTS = 10
MAX_COLORS = 20  # more labels than this cannot be told apart by color


def draw_map(
    run: Path | str,
    out: Path | str,
    *,
    condition: str | float | None = None,
    split: str = "test",
    method: Method = "tsne",
    limit: int = 2000,
    refine_steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **opening: Unpack[Opening],
) -> None:
    """Draw a map of evenly spaced examples of a split.

    Args:
        run: A run folder.
        out: The file to write: .svg, .png or .pdf.
        condition: For a model that is conditioned on labels or numbers: that of all examples in a
            file of new ones; None: those in the file.
        split: Which split to draw.
        method: ``tsne``, which keeps neighbors together, or ``pca``, which keeps distances in the
            two directions of largest variance.
        limit: Maximum number of examples.
        refine_steps: Gradient steps that refine q(z|x); None: as in training.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of t-SNE and of the refinement steps.
        opening: data, reading, device, model, as in ``Opening``.

    Raises:
        UserError: There is no latent variable, there are too few examples, the run cannot be
            opened, or the file cannot be written.
    """
    check_plot_file(out)
    check_choice(get_args(Method), method=method)
    opened = open_run(run, condition=condition, **opening)
    chosen = opened.split(split)
    rows = spaced(len(chosen), limit)  # a split may be sorted by label
    if not opened.model.latent_dim:
        raise UserError(f"{run} has no latent variable (latent_dim 0) to draw")
    if len(rows) < MIN_POINTS:
        raise UserError(f"a map needs at least {MIN_POINTS} examples, not {len(rows)}")
    q = posteriors(
        opened.model,
        chosen,
        rows,
        seed=seed,
        batch_size=batch_size,
        refine_steps=refine_steps,
    )
    centers = q.center().float().numpy()  # (N, Z)
    if not np.ptp(centers, axis=0).any():
        raise UserError(
            f"all posterior means of {run} are the same point: it ignores its input, and there is "
            "nothing to draw; see textvae evaluate"
        )
    labels = None if chosen.labels is None else chosen.labels[rows]
    axes = None  # those of t-SNE have no meaning
    if method == "pca" and centers.shape[1] > 2:
        points, axes = _principal_components(centers)
    else:
        points = in_two_dimensions(centers, seed)
    save_plot(_figure(points, labels, chosen.label_names, opened.name, axes), out)


def _principal_components(means: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return means (N, Z) along the first two principal components, and the names of these."""
    from sklearn.decomposition import PCA

    found = PCA(2, random_state=0).fit(means)
    shares = found.explained_variance_ratio_
    names = [f"component {n + 1} ({share:.0%} of the variance)" for n, share in enumerate(shares)]
    return found.transform(means), names


def in_two_dimensions(means: np.ndarray, seed: int) -> np.ndarray:
    """Map means (N, Z) to points (N, 2)."""
    if means.shape[1] <= 2:
        return np.pad(means, ((0, 0), (0, 2 - means.shape[1])))
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(means) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(means)


def _figure(
    points: np.ndarray,
    labels: np.ndarray | None,
    label_names: Sequence[str] | None,
    title: str,
    names: Sequence[str] | None = None,
) -> Figure:
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, parse_math=False)
    if names is not None:
        axes.set(xlabel=names[0], ylabel=names[1])
    if shown := draw_points(axes, points, labels, label_names):
        legend = axes.legend(
            loc="center left", bbox_to_anchor=(1, 0.5), markerscale=3, frameon=False
        )
        for text, (name, _) in zip(legend.get_texts(), shown, strict=True):
            # Matplotlib would leave out a label such as _x, and read $x$ as mathematics.
            text.set_text(name)
            text.set_parse_math(False)
    return figure


def draw_points(
    axes: Axes,
    points: np.ndarray,
    labels: np.ndarray | None = None,
    label_names: Sequence[str] | None = None,
) -> list[tuple[str, str]]:
    """Draw examples into existing axes, colored by label.

    Args:
        axes: The axes.
        points: (N, 2).
        labels: (N,) indices into ``label_names``; -1: unlabeled.
        label_names: Names of the labels.

    Returns:
        The name and the color of every label; empty if there are too few or too many for a legend.
    """
    axes.set(xticks=[], yticks=[], aspect="equal")
    labels = np.zeros(len(points), int) if labels is None else labels
    present = np.unique(labels)
    colors = colormaps["tab10" if len(present) <= 10 else "tab20" if len(present) <= 20 else "hsv"]
    shown = []
    for i, label in enumerate(present):
        color = to_hex(colors(i if len(present) <= MAX_COLORS else i / len(present)))
        name = label_names[label] if label_names and label >= 0 else "no label"
        x, y = points[labels == label].T
        axes.scatter(x, y, s=6, color=color, label=str(i), linewidths=0)
        shown.append((name, color))
    return shown if 1 < len(present) <= MAX_COLORS else []
