"""What is known of every example of a set, whatever the batches it came in.

The noise of an example depends on the seed and its row alone, so nothing here changes with the
batch size or with the order of the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from textvae.config.inference import Inference
from textvae.vae.batch import Batch
from textvae.vae.batching import Split
from textvae.vae.estimators import importance_estimate
from textvae.vae.inference import AMORTISED, Inferred, infer
from textvae.vae.model import Model
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.vae import VAE

BOUND, MIXTURE, DONOR, CYCLE, STEPS = range(5)  # what a stream of noise is for
OWN_DRAWS = 10  # of the encoder's own q(z|x), where it is only to stand beside the refined one


def row_noise(seed: int, stream: int, index: Tensor, samples: int, latent_dim: int) -> Tensor:
    """Standard normal (K, B, Z) on the CPU: row b depends on (seed, stream, index[b]) alone."""
    noise = np.empty((samples, len(index), latent_dim), dtype=np.float32)
    for column, row in enumerate(index.tolist()):
        rng = np.random.default_rng([seed, stream, row])
        noise[:, column] = rng.standard_normal((samples, latent_dim), dtype=np.float32)
    return torch.from_numpy(noise)


@dataclass(frozen=True)
class Rows:
    """All N examples in the order of their index, on the CPU; bounds in nats."""

    index: Tensor  # (N,)
    lengths: Tensor  # (N,)
    units: Tensor  # (N,)
    num_bytes: Tensor  # (N,)
    rec: Tensor  # (N,)
    bound: Tensor  # (N,)
    mean: Tensor  # (N, Z)
    logvar: Tensor  # (N, Z)
    own_mean: Tensor  # (N, Z) of the encoder, before any refinement
    own_logvar: Tensor  # (N, Z)
    own_rec: Tensor  # (N,)
    path: Tensor  # (N, K) the ELBO before each refinement step, estimated

    @property
    def posterior(self) -> DiagGaussian:
        return DiagGaussian(self.mean, self.logvar)

    @property
    def own_posterior(self) -> DiagGaussian:
        return DiagGaussian(self.own_mean, self.own_logvar)


def collect(
    model: VAE,
    batches: Iterable[Batch],
    draws: int,
    seed: int,
    inference: Inference = AMORTISED,
    progress: Callable[[int], None] | None = None,
    max_symbols: int | None = None,
) -> Rows:
    """Infers q(z|x) of every example and estimates its bounds with ``draws`` of z.

    Raises:
        ValueError: no example, or the same row twice.
    """
    done, parts = 0, []
    for batch in batches:
        parts.append(_examine(model, batch, draws, seed, inference, max_symbols))
        done += len(batch)
        if progress is not None:
            progress(done)
    if not done:
        raise ValueError("nothing to evaluate: there is no batch")
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    order = columns[0].argsort()
    rows = Rows(*(column[order] for column in columns))
    if bool((rows.index[1:] == rows.index[:-1]).any()):
        raise ValueError("a row is in the batches twice: metrics count every row once")
    return rows


def _examine(
    model: VAE,
    batch: Batch,
    draws: int,
    seed: int,
    inference: Inference,
    max_symbols: int | None,
) -> list[Tensor]:
    """The fields of ``Rows`` for one batch."""
    here = batch.to(model.device)
    q, _, path = _infer(model, here, seed, inference)
    noise = row_noise(seed, BOUND, batch.index, draws, model.latent_dim).to(q.mean)

    def estimate(posterior: DiagGaussian, noise: Tensor) -> tuple[Tensor, Tensor]:
        return importance_estimate(
            model, here, posterior=posterior, noise=noise, max_symbols=max_symbols
        )

    rec, bound = estimate(q, noise)
    if path is None:
        own, own_rec, path = q, rec, rec.new_empty(0, len(batch))
    else:
        own = model.posterior(here)
        own_rec, _ = estimate(own, noise[:OWN_DRAWS])
    counts = (here.index, here.lengths, here.units, here.num_bytes)
    return [part.cpu() for part in (*counts, rec, bound, *q, *own, own_rec, path.t())]


def _infer(model: VAE, batch: Batch, seed: int, inference: Inference) -> Inferred:
    steps = 0 if inference.method == "amortised" else inference.steps
    noise = row_noise(seed, STEPS, batch.index, steps, model.latent_dim).to(model.device)
    return infer(model, batch, inference, noise=noise)


@torch.no_grad()
def posteriors(
    model: Model,
    split: Split,
    rows: np.ndarray | None = None,
    *,
    seed: int = 0,
    refine_steps: int | None = None,
    batch_size: int = 64,
) -> DiagGaussian:
    """q(z|x) by the model's own inference of some rows of a split, by default of all: mean and
    logvar (N, Z) on the CPU, in the order of the rows."""
    inference = model.inference_with(refine_steps)
    rows = np.arange(len(split)) if rows is None else rows
    order = np.argsort(split.lengths[rows], kind="stable")  # little padding
    found = []
    for start in range(0, len(order), batch_size):
        batch = split.batch(rows[order[start : start + batch_size]]).to(model.device)
        found.append(_infer(model, batch, seed, inference).posterior)
    back = torch.from_numpy(np.argsort(order))
    return DiagGaussian(*(torch.cat(part).cpu()[back] for part in zip(*found, strict=True)))
