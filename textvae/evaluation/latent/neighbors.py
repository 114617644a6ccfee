"""The nearest neighbors of an example: those whose posterior means are closest to its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from textvae.config.arguments import check_choice, check_integers
from textvae.evaluation.labels import label_of
from textvae.evaluation.open_run import Opening, are_new_examples, open_run
from textvae.evaluation.per_example import posteriors

if TYPE_CHECKING:
    from typing_extensions import Unpack

Distance = Literal["euclidean", "cosine"]


def neighbors(
    run: Path | str,
    example: Any,
    n: int = 10,
    *,
    distance: Distance = "euclidean",
    split: str = "test",
    condition: str | float | None = None,
    refine_steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **opening: Unpack[Opening],
) -> list[dict[str, Any]]:
    """Find the examples whose posterior centers are nearest to that of a given example.

    Args:
        run: A run folder.
        example: A sentence or an image, which need not be one of the examples searched.
        n: Maximum number of neighbors.
        distance: ``euclidean``, or ``cosine`` for 1 - cosine of the angle between the centers.
        split: The split to search.
        condition: The label of the example and of all examples in a file of new ones, for a model
            that is conditioned on labels.
        refine_steps: Gradient steps that refine q(z|x); None: as in training.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of the refinement steps.
        opening: data, reading, device, model, as in ``Opening``.

    Returns:
        The neighbors, the nearest first: for each its ``distance``; its ``row`` in the split, or
        in a file of new examples, where blank rows count, too; its ``label``, if there are any;
        and its ``text``.

    Raises:
        UserError: There is no latent variable, n is below 1, or the run cannot be opened.
    """
    check_integers(1, n=n)
    of_all = condition if are_new_examples(opening.get("data")) else None
    opened = open_run(run, condition=of_all, **opening)
    options: dict[str, Any] = {"refine_steps": refine_steps, "batch_size": batch_size, "seed": seed}
    q = opened.model.encode([example], condition=condition, **options)
    query = q.center().float().numpy()  # (1, Z)
    chosen = opened.split(split)
    centers = posteriors(opened.model, chosen, **options).center().float().numpy()  # (N, Z)
    distances, rows = nearest(centers, query, n, distance)
    found = []
    for far, row in zip(distances[0].tolist(), rows[0].tolist(), strict=True):
        place = row if opened.new is None else chosen.source_row(row)
        label = {} if chosen.labels is None else {"label": label_of(chosen, row)}
        found.append({"distance": far, "row": place, **label, "text": chosen.caption(row)})
    return found


def nearest(
    points: np.ndarray, queries: np.ndarray, n: int, distance: Distance = "euclidean"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances and the rows of the nearest points, (Q, min(n, N)) each.

    Args:
        points: (N, Z).
        queries: (Q, Z).
        n: Maximum number of neighbors of each query.
        distance: ``euclidean`` or ``cosine``.

    Raises:
        UserError: Unknown distance.
    """
    from sklearn.neighbors import NearestNeighbors

    check_choice(("euclidean", "cosine"), distance=distance)
    # Brute force: trees only help in a few dimensions, and do not know the cosine distance.
    search = NearestNeighbors(metric=distance, algorithm="brute").fit(points)
    return search.kneighbors(queries, min(n, len(points)))
