"""Likelihood regret: what the ELBO of an example gains if q(z|x) is fitted to it alone.

Xiao, Yan & Amit 2020, "Likelihood Regret: An Out-of-Distribution Detection Score For Variational
Auto-encoder". Here, q_0 is the output of the encoder, and q_S is the result of S gradient steps
that maximize the ELBO of the example with respect to the tensors of its posterior: for a Gaussian,
the mean and the log variance. The weights of the encoder and of the decoder stay as they are. (The
paper fits the weights of the encoder to the example, which cannot reach a higher ELBO than the best
posterior of the family.) Every step uses a new draw of z (``textvae.vae.refinement``) and is a
quarter as large as one of the model's own refinement. If the ELBO falls, the steps are repeated
at 1/8 and at 1/64 of that size; if they do not raise it either, the regret is 0. Both ELBOs use the
same K draws of noise, so that most of the sampling error cancels. The regret is at most
log p(x) - ELBO(q_0), up to the error of the draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from textvae.config.inference import Inference
from textvae.evaluation.per_example import ExampleStats
from textvae.vae.batch import Batch

REGRET_STEPS = 100
# Step sizes as multiples of those in training: small enough for unfamiliar examples, where the ELBO
# is steep, and then those for examples whose ELBO falls nevertheless.
SIZES = (1 / 4, 1 / 32, 1 / 256)


def likelihood_regret(
    examine: Callable[[Iterable[Batch], Inference], ExampleStats],
    batches: Sequence[Batch],
    own: ExampleStats,
    steps: Inference,
) -> Tensor:
    """Return the regret of every example (N,), at least 0.

    Examples whose ELBO falls, for example because a prior has narrow components, are refined again
    with smaller steps.

    Args:
        examine: Measures examples whose posteriors are found in a certain way.
        batches: The N examples.
        own: What it found with the encoder alone.
        steps: Gradient steps from the encoder's posteriors, with the step size of training.
    """
    regret = torch.zeros(len(own.index), dtype=torch.float64)
    for size in SIZES:
        left = own.index[regret <= 0]
        remaining = [part for batch in batches if len(part := _only(batch, left))]
        if not remaining:
            break
        refined = examine(remaining, replace(steps, lr=size * steps.lr))
        rows = torch.searchsorted(own.index, refined.index)
        gain = refined.elbo - own.elbo[rows]
        regret[rows] = gain.nan_to_num(nan=0.0, posinf=0.0).clamp(min=0)
    return regret


def _only(batch: Batch, index: Tensor) -> Batch:
    """Return the examples of a batch whose rows are in ``index``."""
    chosen = torch.isin(batch.index, index.to(batch.index.device))
    parts: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return Batch(**{name: part[chosen] for name, part in parts.items() if part is not None})
