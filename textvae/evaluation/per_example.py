"""Statistics of every example of a dataset, independent of how it was batched.

The noise of an example depends only on the seed and its row (``textvae.vae.noise``), so nothing
here changes with the batch size or the order of the batches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textvae.config.arguments import check_integers
from textvae.config.inference import AMORTIZED, Inference
from textvae.evaluation.metrics.metric import clock
from textvae.vae.batch import Batch, Split, device_of
from textvae.vae.contracts import Posterior
from textvae.vae.estimators import importance_estimate
from textvae.vae.inference import infer, infer_all
from textvae.vae.model import Model
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.posteriors import closed_kl, concatenate, move, select

logger = logging.getLogger(__name__)
ROUNDING = 0.1  # nats per symbol by which log p of a text may exceed 0: products in bf16
LOG_EVERY = 10  # seconds
OWN_DRAWS = 10  # from the encoder's q(z|x) before refinement, which is only shown for comparison


@dataclass(frozen=True)
class ExampleStats:
    """All N examples in the order of their index, on the CPU; bounds in nats."""

    index: Tensor  # (N,)
    fingerprint: Tensor  # (N,) equal where x is equal
    lengths: Tensor  # (N,) predicted symbols
    units: Tensor  # (N,) words and ends of sentence
    num_bytes: Tensor  # (N,)
    rec: Tensor  # (N,) E_q[log p(x|z)]
    bound: Tensor  # (N,) importance-weighted bound
    effective: Tensor  # (N,) effective sample size of its weights
    kl: Tensor  # (N, Z) or (N, 1)
    path: Tensor  # (N, K) the ELBO before each refinement step, estimated
    own_rec: Tensor  # (N,) with the encoder's posterior, before any refinement
    own_kl: Tensor  # (N, Z) or (N, 1)
    posterior: Any  # Posterior of all examples
    own_posterior: Any  # Posterior of all examples as computed by the encoder

    @property
    def total_kl(self) -> Tensor:
        """KL(q(z|x)||p(z)) of every example, (N,)."""
        return self.kl.double().sum(-1)

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound of every example, (N,)."""
        return self.rec.double() - self.total_kl


def collect(
    model: Any,
    batches: Iterable[Batch],
    draws: int,
    seed: int,
    inference: Inference = AMORTIZED,
    progress: Callable[[int], None] | None = None,
    max_symbols: int | None = None,
    own_draws: int = OWN_DRAWS,
) -> ExampleStats:
    """Infer q(z|x) of every example and estimate its bounds.

    Args:
        model: Any model with a posterior, a likelihood and a prior.
        batches: Every example exactly once.
        draws: Draws of z per example.
        seed: Seed of all noise.
        inference: How q(z|x) is found.
        progress: Called with the number of examples done.
        max_symbols: See ``importance_estimate``.
        own_draws: Draws from the encoder's q(z|x) if it is refined, at most ``draws``. If 0, its
            metrics are not computed, and those of the refined one are in their place.

    Raises:
        ValueError: There are no examples, a row occurs twice, or a text has a likelihood above 1.
    """
    done, parts = 0, []
    for batch in batches:
        parts.append(_examine(model, batch, draws, seed, inference, max_symbols, own_draws))
        done += len(batch)
        if progress is not None:
            progress(done)
    if not done:
        raise ValueError("nothing to evaluate: there are no batches")
    columns = list(zip(*parts, strict=True))
    tensors = [torch.cat(column) for column in columns[:-2]]
    order = tensors[0].argsort()
    stats = ExampleStats(
        *(column[order] for column in tensors),
        *(select(concatenate(column), order) for column in columns[-2:]),
    )
    if bool((stats.index[1:] == stats.index[:-1]).any()):
        raise ValueError(
            "a row occurs twice in the batches: every row must occur once, so set Batch.index to "
            "the rows of the examples"
        )
    _check_texts(stats)
    return stats


def _check_texts(stats: ExampleStats) -> None:
    """Check that the likelihood of texts is at most 1: they are discrete.

    Raises:
        ValueError: It is not.
    """
    above = (stats.units > 0) & (stats.rec > ROUNDING * stats.lengths)
    if above.any():
        first = int(above.int().argmax())
        raise ValueError(
            f"log p(x|z) of example {int(stats.index[first])} is {float(stats.rec[first]):.2f} "
            "nats, and that of a text is at most 0: check the sign of the decoder's log_prob, and "
            "that it sums to 1 over the vocabulary"
        )


def _examine(
    model: Any,
    batch: Batch,
    draws: int,
    seed: int,
    inference: Inference,
    max_symbols: int | None,
    own_draws: int,
) -> list[Any]:
    """Compute the fields of ``ExampleStats`` for one batch."""
    here = batch.to(device_of(model))
    noise = RowNoise(seed, Purpose.STEPS, batch.index)
    q, _, path = infer(model, here, inference, noise=noise)
    bound_noise = RowNoise(seed, Purpose.BOUND, batch.index)

    def estimate(posterior: Posterior, samples: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rec, bound, log_ratio, effective = importance_estimate(
            model, here, samples, posterior=posterior, noise=bound_noise, max_symbols=max_symbols
        )
        closed = closed_kl(posterior, model.prior)
        return rec, bound, effective, log_ratio[:, None] if closed is None else closed

    rec, bound, effective, q_kl = estimate(q, draws)
    own, own_rec, own_kl = q, rec, q_kl
    if path is None:
        path = rec.new_empty(0, len(batch))
    elif own_draws:
        own = model.posterior(here)
        own_rec, _, _, own_kl = estimate(own, min(draws, own_draws))
    counts = (here.index, _fingerprints(batch.x), here.lengths, here.units, here.num_bytes)
    tensors = (*counts, rec, bound, effective, q_kl, path.t(), own_rec, own_kl)
    return [*(part.cpu() for part in tensors), move(q, "cpu"), move(own, "cpu")]


def _fingerprints(x: Tensor) -> Tensor:
    """Hash every row, (B,), without the zeros at its end: padding depends on the batch."""
    rows = x.detach().cpu().flatten(1)
    if rows.dtype == torch.bfloat16:  # unknown to NumPy
        rows = rows.float()
    return torch.tensor([hash(row.tobytes().rstrip(b"\0")) for row in rows.numpy()])


def posteriors(
    model: Model,
    split: Split,
    rows: np.ndarray | None = None,
    *,
    seed: int = 0,
    refine_steps: int | None = None,
    batch_size: int = 64,
) -> Any:
    """Infer q(z|x) of some rows of a split with the model's inference options, on the CPU.

    Args:
        model: A trained model.
        split: The split with the examples.
        rows: Which rows, in ascending order; all by default.
        seed: Seed of the refinement steps.
        refine_steps: Number of refinement steps; as in training by default, 0 for none.
        batch_size: Examples per batch; does not change the results.
    """
    check_integers(1, batch_size=batch_size)
    rows = np.arange(len(split)) if rows is None else rows
    batches = short_first(split, rows, batch_size)
    return infer_all(model, batches, model.inference_with(refine_steps), seed)


def short_first(split: Split, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
    """Batches of some rows of a split, sorted by length, so that there is little padding."""
    rows = rows[np.argsort(split.lengths[rows], kind="stable")]
    for start in range(0, len(rows), batch_size):
        yield split.batch(rows[start : start + batch_size])


def log_progress(lengths: np.ndarray, done_what: str = "evaluated") -> Callable[[int], None]:
    """Return a function that logs how far an evaluation is, given the number of examples done.

    Args:
        lengths: (N,) the length of each example, in the order in which they are evaluated; the time
            left is estimated from them, because the longest examples may come first.
        done_what: What has been done to the examples.
    """
    tokens = np.cumsum(lengths)
    started = last = time.perf_counter()

    def show(done: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last > LOG_EVERY and done < len(tokens):
            last = now
            left = (now - started) * (tokens[-1] / tokens[done - 1] - 1)
            logger.info("%s %d of %d, about %s left", done_what, done, len(tokens), clock(left))

    return show
