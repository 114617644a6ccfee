"""Models of an objective that say which points of the latent space are worth an evaluation.

Both are Gaussian processes, and what they expect of a point is its expected improvement on the best
value y* (Mockus 1978; Jones et al. 1998),

    EI(z) = E[max(0, y(z) - y*)] = (m - y*) Phi(u) + v phi(u),    u = (m - y*) / v

where m and v are the mean and the deviation of y(z): for ``bayes``, with the noise of an
evaluation; for ``botorch``, without it.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Protocol

import numpy as np

from textvae.errors import OptionError, UserError

POINTS = 300  # that a process is fitted to: the best and the latest ones
STARTS = 10  # points that botorch moves
REACH = 0.5  # how far beyond them in each dimension, in standard units


class Surrogate(Protocol):
    """A model of the objective."""

    def choose(
        self, points: np.ndarray, values: np.ndarray, candidates: np.ndarray, texts: int
    ) -> np.ndarray:
        """Return points that are worth an evaluation (M, Z), the most promising ones first.

        Args:
            points: (N, Z) where the objective is known, in standard units.
            values: (N,) its values.
            candidates: (M, Z) points to choose from.
            texts: Number of different texts among the points.
        """
        ...


def make_surrogate(method: str, refit: int) -> Surrogate:
    """Return the surrogate of a method of search.

    Args:
        method: ``bayes`` or ``botorch``.
        refit: Texts after which the parameters of ``bayes`` are fitted again.

    Raises:
        UserError: BoTorch is not installed, or there is no such method.
    """
    match method:
        case "bayes":
            return GaussianProcess(refit)
        case "botorch":
            check_installed(method)
            return BotorchProcess()
    raise OptionError("choose bayes, botorch, or evolution", method=method)


def check_installed(method: str) -> None:
    """Check that the package of a method is installed.

    Raises:
        UserError: It is not.
    """
    if method != "botorch":
        return
    try:
        import botorch  # noqa: F401
    except ImportError:
        raise UserError(
            "the method botorch needs BoTorch, which is not installed: pip install botorch"
        ) from None


def _informative(values: np.ndarray) -> np.ndarray:
    """Return the places of the best and of the latest values."""
    best = np.argsort(-values, kind="stable")[: POINTS // 2]
    return np.union1d(best, np.arange(len(values))[-POINTS // 2 :])


class GaussianProcess:
    """A Gaussian process of scikit-learn with one length for all dimensions.

    Args:
        refit: Texts after which its parameters are fitted again.
    """

    def __init__(self, refit: int) -> None:
        self.refit = refit
        self.kernel: Any = None
        self.texts = 0  # at the last fit

    def choose(
        self, points: np.ndarray, values: np.ndarray, candidates: np.ndarray, texts: int
    ) -> np.ndarray:
        """Return the candidates in the order of their expected improvement.

        The deviation includes the noise of the process: what z alone does not tell of the values.
        """
        from scipy.stats import norm

        used = _informative(values)
        process = self._process(points[used], values[used], texts)
        mean, deviation = process.predict(candidates, return_std=True)
        deviation = deviation.clip(min=1e-12)
        gain = mean - values.max()
        u = gain / deviation
        improvement = gain * norm.cdf(u) + deviation * norm.pdf(u)
        return candidates[np.argsort(-improvement, kind="stable")]

    def _process(self, points: np.ndarray, values: np.ndarray, texts: int) -> Any:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor

        options: dict[str, Any] = {"normalize_y": True, "random_state": 0}
        if self.kernel is not None and texts < self.texts + self.refit:
            options["optimizer"] = None
        kernel = _first_kernel(points.shape[1]) if self.kernel is None else self.kernel
        with warnings.catch_warnings():  # a length at the end of its range is an answer, too
            warnings.simplefilter("ignore", ConvergenceWarning)
            process = GaussianProcessRegressor(kernel, **options).fit(points, values)
        if "optimizer" not in options:
            self.kernel, self.texts = process.kernel_, texts
        return process


def _first_kernel(dimensions: int) -> Any:
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    width = math.sqrt(dimensions)  # a typical distance of two points, in standard units
    smooth = Matern(width, (0.1 * width, 10 * width), nu=2.5)
    return ConstantKernel(1.0, (1e-2, 1e2)) * smooth + WhiteKernel(0.1, (1e-5, 1.0))


class BotorchProcess:
    """A Gaussian process of BoTorch with a length for each dimension, refitted every time."""

    def choose(
        self, points: np.ndarray, values: np.ndarray, candidates: np.ndarray, texts: int
    ) -> np.ndarray:
        """Return the best candidates, moved uphill in expected improvement, and then all of them.

        They move within the box around them, a little enlarged: far from all points, the process
        knows nothing, and the decoder has seen nothing.
        """
        import torch

        used = _informative(values)
        known = torch.from_numpy(points[used]), torch.from_numpy(values[used])
        with warnings.catch_warnings():  # equal values and flat improvements are answers, too
            warnings.simplefilter("ignore")
            return _climbed(_fitted(*known), float(values.max()), torch.from_numpy(candidates))


def _climbed(process: Any, best: float, candidates: Any) -> np.ndarray:
    """Return the best of some candidates (M, Z) moved uphill, and then all of them, as an array."""
    import torch
    from botorch.acquisition import LogExpectedImprovement
    from botorch.optim import optimize_acqf

    acquisition = LogExpectedImprovement(process, best_f=best)
    with torch.no_grad():
        order = acquisition(candidates[:, None]).argsort(descending=True, stable=True)
    starts = candidates[order[:STARTS], None]  # (S, 1, Z)
    box = torch.cat([starts.amin(0) - REACH, starts.amax(0) + REACH])  # (2, Z)
    found: tuple[Any, Any] = optimize_acqf(
        acquisition,
        box,
        q=1,
        num_restarts=len(starts),
        batch_initial_conditions=starts,
        return_best_only=False,
    )
    moved, expected = found
    moved = moved[expected.argsort(descending=True, stable=True), 0]
    return torch.cat([moved, candidates[order]]).detach().numpy()


def _fitted(points: Any, values: Any) -> Any:
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Normalize, Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    process = SingleTaskGP(
        points,
        values[:, None],
        outcome_transform=Standardize(1),
        input_transform=Normalize(points.size(1)),
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))
    return process
