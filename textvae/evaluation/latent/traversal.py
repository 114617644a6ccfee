"""What a latent dimension does: decode a point while one of its coordinates changes.

The dimensions worth looking at are the active ones, those whose posterior mean varies over the data
(Burda et al. 2016), and among them those with the largest mean KL(q(z_d|x) || p(z_d)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textvae.errors import UserError
from textvae.evaluation.open_run import spaced
from textvae.evaluation.per_example import posteriors
from textvae.vae.batch import Split
from textvae.vae.estimators import ACTIVE, mean_variances
from textvae.vae.interpolation import along
from textvae.vae.model import Model
from textvae.vae.posteriors import closed_kl


def traverse(
    model: Model,
    z: Tensor,
    dimension: int | Sequence[int],
    values: float | Sequence[float] | Tensor,
    **options: Any,
) -> Any:
    """Decode a latent vector while one of its dimensions takes other values.

    Args:
        model: A trained model.
        z: The latent vector (Z,) or (1, Z), such as ``model.encode(["a sentence"]).center()[0]``.
        dimension: The dimension to change, from 0; or several, which are changed in turn.
        values: The S values that it takes.
        options: As in ``model.decode``.

    Returns:
        S examples, or S for each of several dimensions, one dimension after the other, in the form
        that ``model.decode`` returns.

    Raises:
        UserError: There is no such dimension, no value, or a value is not finite; z has the wrong
            shape; or z lies on a sphere, where a dimension cannot change alone.
    """
    dimensions = checked_dimensions(model, dimension)
    points = torch.atleast_1d(torch.as_tensor(values, dtype=torch.float64))
    if not (dimensions and len(points) and points.isfinite().all()):
        raise UserError("a traversal needs at least one dimension and finite values for it")
    point = model.check_z(z[None] if z.dim() == 1 else z)
    if len(point) != 1:
        raise UserError(f"z must be a single latent vector, not {len(point)}")
    return model.decode_path(along(point[0], dimensions, points), **options)


def leading_dimensions(
    model: Model, split: Split, count: int = 5, *, examples: int = 1000, **options: Any
) -> dict[int, float]:
    """Return the active dimensions with the largest KL, and their mean KL in nats.

    Args:
        model: A trained model.
        split: The examples that decide.
        count: Maximum number of dimensions.
        examples: Use at most this many examples, evenly spaced.
        options: Options of ``textvae.evaluation.per_example.posteriors``: seed, refine_steps,
            batch_size.

    Returns:
        The KL of each dimension, the largest first.

    Raises:
        UserError: No dimension is active, the KL cannot be divided among the dimensions, or z lies
            on a sphere.
    """
    _check_space(model)
    q = posteriors(model, split, spaced(len(split), examples), **options)
    active = [d for d, v in enumerate(mean_variances(q.center()).tolist()) if v >= ACTIVE]
    if not active:
        raise UserError(
            "no latent dimension is active (the posterior means do not vary): choose dimensions "
            "with --dim"
        )
    kl = closed_kl(q, model.prior)
    if kl is None or kl.size(1) < model.latent_dim:
        raise UserError(
            "the KL of this model cannot be divided among the dimensions: choose some with --dim; "
            f"active: {', '.join(map(str, active))}"
        )
    mean = kl.double().mean(0).tolist()
    active.sort(key=lambda d: -mean[d])
    return {d: mean[d] for d in active[:count]}


def checked_dimensions(model: Model, dimension: int | Sequence[int]) -> list[int]:
    """Return one dimension, from 0, or several in a list.

    Raises:
        UserError: There is no such dimension, or z lies on a sphere.
    """
    _check_space(model)
    dimensions = np.atleast_1d(dimension).tolist()
    if wrong := [d for d in dimensions if d not in range(model.latent_dim)]:
        raise UserError(
            f"dimension {wrong[0]}: this model has {model.latent_dim} latent dimensions"
            + (f", 0 to {model.latent_dim - 1}" if model.latent_dim else "")
        )
    return [int(d) for d in dimensions]


def _check_space(model: Model) -> None:
    if model.on_sphere:
        raise UserError(
            "z lies on a sphere, where one dimension cannot change without the others: leave the "
            "dimensions out, or use interpolate instead of traverse"
        )
