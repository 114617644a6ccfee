"""What a model makes of examples: the part of a report that shows texts or pictures.

A traversal starts at the posterior center of one example and moves along one dimension, between
quantiles of the posterior centers of all examples: where the decoder was trained.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from textvae.config.arguments import check_integers
from textvae.evaluation.explanation.explain import explain, is_explainable
from textvae.evaluation.explanation.result import ExplainedText, Explanation
from textvae.evaluation.labels import label_of
from textvae.evaluation.latent.traversal import ACTIVE
from textvae.evaluation.metrics.table import BY_KEY
from textvae.evaluation.open_run import spaced
from textvae.evaluation.per_example import ExampleStats, collect, short_first
from textvae.vae.batch import Split
from textvae.vae.estimators import mean_variances
from textvae.vae.examples import Shown
from textvae.vae.interpolation import along
from textvae.vae.model import Model, Source
from textvae.vae.modes import undisturbed

INTERPOLATIONS, STEPS = 2, 7
EXTREMES = 5  # most, and least, compressible examples
TRAVERSED = 8  # dimensions
EXPLAINED = 300  # texts
QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)  # of the posterior centers: the stops of a traversal


class Example(NamedTuple):
    """An example of the data."""

    shown: Shown
    label: str | None


class Cost(NamedTuple):
    """What an example costs at most: -ELBO in bits."""

    example: Example
    bits: float
    rate: float  # bits per byte, or per symbol if there are no bytes


class Costs(NamedTuple):
    """The extremes among the examples whose costs were measured."""

    least: list[Cost]
    most: list[Cost]
    unit: str  # of the rates
    measured: int  # examples


class Traversal(NamedTuple):
    """What is decoded while one dimension changes and all others stay."""

    dimension: int
    variance: float  # of the posterior center over the examples
    values: list[float]
    outputs: list[Shown]


class Words(NamedTuple):
    """Which words z predicts."""

    explanation: Explanation  # of the sources of the reconstructions, and of more texts
    sources: list[ExplainedText]


class Latent(NamedTuple):
    """What needs a latent variable."""

    centers: np.ndarray  # (N, Z) of the posteriors
    labels: np.ndarray | None  # (N,)
    sources: list[Example]
    reconstructions: list[Shown]  # of the sources; traversals start at the first one
    interpolations: list[list[Shown]]
    traversals: list[Traversal]
    active: list[int]  # dimensions, the largest variance first; the first ones are traversed
    words: Words | None  # None without words, or for a decoder that does not predict them in turn


class Exhibits(NamedTuple):
    """Everything that a model is shown with."""

    samples: dict[Source, list[Shown]]
    costs: Costs
    latent: Latent | None


def exhibit(model: Model, split: Split, *, limit: int, seed: int, batch_size: int) -> Exhibits:
    """Show what a model does with examples of a split.

    Args:
        model: A trained model.
        split: The split.
        limit: Number of examples to encode and to score, evenly spaced.
        seed: Seed of all noise.
        batch_size: Examples per batch; does not change the results.
    """
    check_integers(1, batch_size=batch_size)
    rows = spaced(len(split), limit)
    with undisturbed(model, seed), torch.no_grad():
        stats = collect(model, short_first(split, rows, batch_size), 1, seed, model.inference)
        sources: list[Source] = ["prior", "aggregate"]
        samples = {
            source: model.show_decoded(
                model.draw_z(model.ON_A_PAGE, seed, source), sampled=True, seed=seed
            )
            for source in sources
            if source == "prior" or model.sampler is not None
        }
        latent = _latent(model, split, stats, seed, batch_size) if model.latent_dim else None
    return Exhibits(samples, _costs(model, split, stats), latent)


def _examples(model: Model, split: Split, rows: np.ndarray) -> list[Example]:
    shown = model.show_rows(split, rows.tolist())
    return [Example(item, label_of(split, row)) for item, row in zip(shown, rows, strict=True)]


def _costs(model: Model, split: Split, stats: ExampleStats) -> Costs:
    bits = (-stats.elbo / math.log(2)).numpy()  # (N,)
    has_bytes = bool(stats.num_bytes.any())
    sizes = (stats.num_bytes if has_bytes else stats.lengths).clamp(min=1).numpy()
    rates, rows = bits / sizes, stats.index.numpy()
    order = np.argsort(rates, kind="stable")
    shown = min(EXTREMES, len(order) // 2)

    def chosen(places: np.ndarray) -> list[Cost]:
        examples = _examples(model, split, rows[places])
        figures = zip(examples, bits[places].tolist(), rates[places].tolist(), strict=True)
        return [Cost(*figure) for figure in figures]

    unit = BY_KEY["bits_per_byte_elbo" if has_bytes else "bits_per_dim_elbo"].unit
    return Costs(chosen(order[:shown]), chosen(order[::-1][:shown]), unit, len(order))


def _latent(model: Model, split: Split, stats: ExampleStats, seed: int, batch_size: int) -> Latent:
    centers, rows = stats.posterior.center(), stats.index.numpy()
    places = spaced(len(rows), model.ON_A_PAGE)
    labels = None if split.labels is None else split.labels[rows]
    variances = mean_variances(centers)
    active = [d for d in variances.argsort(descending=True).tolist() if variances[d] >= ACTIVE]
    ends = _pairs(len(rows), labels)
    paths = [(rows[a], model.path(centers[a], centers[b], STEPS)) for a, b in ends]
    return Latent(
        centers=centers.numpy(),
        labels=labels,
        sources=_examples(model, split, rows[places]),
        reconstructions=model.show_decoded(
            centers[places], seed=seed, **model.conditions_in(split, rows[places])
        ),
        interpolations=_decode_paths(model, split, paths, seed),
        traversals=_traversals(model, split, centers, rows, places[0], active[:TRAVERSED], seed),
        active=active,
        words=_words(model, split, rows, rows[places], seed, batch_size),
    )


def _words(
    model: Model, split: Split, rows: np.ndarray, sources: np.ndarray, seed: int, batch_size: int
) -> Words | None:
    """Explain the sources of the reconstructions and other examples among ``rows``."""
    if not is_explainable(model) or len(rows) < 2:
        return None
    chosen = np.union1d(rows[spaced(len(rows), EXPLAINED)], sources)
    texts = [split.caption(row) for row in chosen.tolist()]
    given = model.conditions_in(split, chosen.tolist())
    found = explain(model, texts, seed=seed, batch_size=batch_size, **given)
    return Words(found, [found.texts[place] for place in np.searchsorted(chosen, sources)])


def _decode_paths(
    model: Model, split: Split, paths: list[tuple[int, Tensor]], seed: int
) -> list[list[Shown]]:
    """Decode the points of some paths (S, Z), all at once; each belongs to a row of the split."""
    if not paths:
        return []
    given = model.conditions_in(split, [row for row, path in paths for _ in path])
    points = torch.cat([path for _, path in paths])
    outputs = iter(model.show_decoded(points, same_draws=True, seed=seed, **given))
    return [list(islice(outputs, len(path))) for _, path in paths]


def _traversals(
    model: Model,
    split: Split,
    centers: Tensor,
    rows: np.ndarray,
    start: int,
    dimensions: list[int],
    seed: int,
) -> list[Traversal]:
    """Decode the center ``start`` while one dimension changes, for several dimensions."""
    if model.on_sphere:  # where a dimension cannot change without the others
        return []
    stops = np.quantile(centers.double().numpy(), QUANTILES, axis=0)  # (S, Z)
    paths = [
        (rows[start], along(centers[start], [dimension], stops[:, dimension]))
        for dimension in dimensions
    ]
    variances = mean_variances(centers).tolist()
    return [
        Traversal(dimension, variances[dimension], stops[:, dimension].tolist(), outputs)
        for dimension, outputs in zip(
            dimensions, _decode_paths(model, split, paths, seed), strict=True
        )
    ]


def _pairs(count: int, labels: np.ndarray | None) -> list[tuple[int, int]]:
    """Return the ends of the interpolations: examples with different labels, if there are any."""
    pairs = []
    for first in spaced(count, 2 * INTERPOLATIONS)[::2].tolist():
        others = [*range(first + 1, count), *range(first)]
        if labels is not None:
            others = [other for other in others if labels[other] != labels[first]] or others
        pairs += [(first, other) for other in others[:1]]
    return pairs
