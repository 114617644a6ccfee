"""Fitting a sampler to the aggregate posterior of a trained model.

Each of up to 10,000 training examples contributes one draw of z from its posterior. Mixtures of
Gaussians with more and more components, with full and with diagonal covariances, are fitted to
nine tenths of the draws by EM. The other tenth chooses among them: the first mixture whose
likelihood is within one standard error of the highest, in the order of their size, and those with
full covariances before those with diagonal ones.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from textvae.errors import UserError, quantity
from textvae.evaluation.metrics.saving import may_save
from textvae.evaluation.open_run import Opening, OpenRun, open_run, spaced
from textvae.evaluation.per_example import posteriors
from textvae.runs.model_folder import SAMPLER, weights_hash
from textvae.vae.noise import Purpose, RowNoise, numpy_generator
from textvae.vae.samplers import MixtureSampler

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)
EXAMPLES = 10_000  # of the training split, evenly spaced
COMPONENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
HELD_OUT = 10  # every tenth draw is held out to choose the mixture
PER_COMPONENT = 5  # draws that a component needs on average
FLOOR = 1e-4  # the most that is added to variances, so that no component shrinks to a point
FLOOR_SHARE = 0.01  # of the smallest variance of a dimension, if z is of a small scale
ROUNDING = 1e-10  # of the largest one: with less, a covariance may have no inverse


def fit_sampler(
    run: Path | str,
    *,
    batch_size: int = 64,
    seed: int = 0,
    **opening: Unpack[Opening],
) -> MixtureSampler:
    """Fit a sampler to the posteriors of a run's training split, and save it in the run folder.

    Afterward, ``model.sample(source="aggregate")`` uses it, and ``evaluate`` reports how many of
    its draws fall into holes.

    Args:
        run: A run folder.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of the draws and of EM.
        opening: data, reading, device, model, as in ``Opening``.

    Returns:
        The sampler, which is also assigned to ``model.sampler``.

    Raises:
        UserError: The model has no latent variable, or one on a sphere, there is too little data,
            or the run cannot be opened.
    """
    opened = open_run(run, **opening)
    return fit_opened(opened, batch_size=batch_size, seed=seed)


def fit_opened(opened: OpenRun, *, batch_size: int = 64, seed: int = 0) -> MixtureSampler:
    """Do what ``fit_sampler`` does for a run that is already open."""
    if not opened.model.latent_dim:
        raise UserError(f"{opened.folder} has no latent variable (latent_dim 0) to sample from")
    if opened.model.on_sphere:
        raise UserError(
            f"the latent space of {opened.folder} is a sphere, and draws from a mixture of "
            "Gaussians do not lie on it: sample from the prior, which is uniform on the sphere"
        )
    save = may_save(opened.folder, opened.is_foreign)
    train = opened.split("train")
    rows = spaced(len(train), EXAMPLES)
    q = posteriors(opened.model, train, rows, seed=seed, batch_size=batch_size)
    z = q.rsample(1, RowNoise(seed, Purpose.MIXTURE, rows.tolist()))[0]
    sampler = fit_mixture(z, seed)
    if save:
        if weights_hash(opened.folder) == opened.weights:
            sampler.save(opened.folder / SAMPLER)
        else:
            logger.warning(
                "%s has been trained in the meantime: the sampler does not fit its new weights and "
                "is not saved",
                opened.folder,
            )
    opened.model.sampler = sampler
    return sampler


def fit_mixture(z: Tensor, seed: int = 0) -> MixtureSampler:
    """Fit a mixture of Gaussians whose size and shape are chosen by held-out likelihood.

    Args:
        z: (N, Z) draws.
        seed: Seeds the split and EM.

    Raises:
        UserError: There are too few draws.
    """
    draws = z.double().cpu().numpy()
    draws = draws[numpy_generator(seed).permutation(len(draws))]
    held_out, rest = np.split(draws, [len(draws) // HELD_OUT])
    if not len(held_out) or len(rest) < PER_COMPONENT:
        raise UserError(
            f"a sampler cannot be fitted to {quantity(len(draws), 'example')}: use at least 10"
        )
    candidates = [c for kind in ("full", "diag") for c in _candidates(rest, held_out, kind, seed)]
    best = max(candidates, key=lambda candidate: candidate.scores.mean())
    for chosen in candidates:  # the first one that is as good, up to chance
        behind = best.scores - chosen.scores
        if behind.mean() <= behind.std() / len(behind) ** 0.5:
            break
    mixture = chosen.mixture
    logger.info(
        "fitted %s with %s covariances, held-out log-likelihood %.3f",
        quantity(mixture.n_components, "Gaussian"),
        "full" if mixture.covariance_type == "full" else "diagonal",
        chosen.scores.mean(),
    )
    return _as_sampler(mixture)


class _Candidate(NamedTuple):
    mixture: Any  # GaussianMixture
    scores: np.ndarray  # (M,) log-likelihood of every held-out draw, nats


def _candidates(
    rest: np.ndarray, held_out: np.ndarray, covariance: Literal["full", "diag"], seed: int
) -> list[_Candidate]:
    """Return mixtures with more and more components, until more of them overfit."""
    found: list[_Candidate] = []
    for count in COMPONENTS:
        if count * PER_COMPONENT > len(rest):
            break
        mixture = _fitted(rest, count, covariance, seed)
        found.append(_Candidate(mixture, mixture.score_samples(held_out)))
        if len(found) > 2 and found[-1].scores.mean() < found[-3].scores.mean():
            break
    return found


def _fitted(z: np.ndarray, count: int, covariance: Literal["full", "diag"], seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        count,
        covariance_type=covariance,
        reg_covar=_floor(z.var(axis=0)),
        max_iter=100,
        random_state=seed % 2**32,
    )
    with warnings.catch_warnings():  # a few more steps would not change which mixture is best
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(z)


def _floor(variances: np.ndarray) -> float:
    """Return what is added to the variances of all components, given those of the dimensions."""
    share = max(FLOOR_SHARE * variances.min(), ROUNDING * variances.max())
    return float(min(FLOOR, share)) or FLOOR


def _as_sampler(mixture: Any) -> MixtureSampler:
    covariances = torch.from_numpy(mixture.covariances_)
    if mixture.covariance_type == "diag":
        covariances = torch.diag_embed(covariances)
    weights = torch.from_numpy(mixture.weights_).clamp(min=1e-12)
    factors = torch.linalg.cholesky(covariances)
    return MixtureSampler(weights / weights.sum(), torch.from_numpy(mixture.means_), factors)
