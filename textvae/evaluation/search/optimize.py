"""Search a model's latent space for texts with a property, and compare it with not searching.

The search, samples of the same model, and texts of the training split each get the same number of
evaluations of the objective.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from textvae.config.arguments import check_integers
from textvae.errors import UserError
from textvae.evaluation.metrics.metric import MISSING
from textvae.evaluation.open_run import Opening, OpenRun, open_run, spaced
from textvae.evaluation.per_example import posteriors
from textvae.evaluation.search.kept_values import Objective, keeping
from textvae.evaluation.search.search import Call, Method, best_so_far, search, try_texts
from textvae.evaluation.search.surrogates import check_installed
from textvae.evaluation.search.text_objectives import PROBE, checked, load_objective
from textvae.vae.batch import Split
from textvae.vae.conditions import Classes, Given
from textvae.vae.model import Model
from textvae.vae.noise import numpy_generator

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)
START = 1000  # training examples whose posterior means are known to the search
DRAWN = 64  # samples at a time
REPEATS = 20  # texts that are drawn, at most, for every evaluation


class Optimization(NamedTuple):
    """The evaluations of the search and of what it is compared with; ``print`` shows the curve."""

    calls: dict[str, list[Call]]  # by where the texts come from, in their order; larger is better
    sign: float  # -1 if the objective was minimized

    def best(self, n: int = 10) -> list[Call]:
        """Return the best texts that the search found, with the values of the objective."""
        found = [call for call in self.calls["search"] if call.value is not None]
        ranked = sorted(found, key=lambda call: -(call.value or 0.0))[:n]
        return [Call(call.text, _signed(self.sign, call.value)) for call in ranked]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every evaluation as a row of a table: where, number, value, best so far, text."""
        for name, calls in self.calls.items():
            for place, best in enumerate(best_so_far(calls)):
                yield {
                    "from": name,
                    "call": place + 1,
                    "value": _signed(self.sign, calls[place].value),
                    "best": _signed(self.sign, best),
                    "text": calls[place].text,
                }

    def __str__(self) -> str:
        """Return the best value so far, by number of evaluations, as a table."""
        curves = {name: best_so_far(calls) for name, calls in self.calls.items() if calls}
        longest = max(map(len, curves.values()))
        lines = ["calls   " + "".join(f"{name:>12}" for name in curves)]
        for mark in [*takewhile(longest.__gt__, _marks()), longest]:
            # A search that finds no new texts ends early, and there may be few training texts.
            reached = [curve[min(mark, len(curve)) - 1] for curve in curves.values()]
            shown = (_signed(self.sign, best) for best in reached)
            cells = [MISSING if best is None else f"{best:.4g}" for best in shown]
            lines.append(f"{mark:<8}" + "".join(f"{cell:>12}" for cell in cells))
        return "\n".join(lines)


def optimize(
    run: Path | str,
    objective: str | Objective,
    *,
    budget: int = 200,
    method: Method = "bayes",
    minimize: bool = False,
    condition: Given | None = None,
    batch_size: int = 64,
    seed: int = 0,
    keep: Path | str | None = None,
    **opening: Unpack[Opening],
) -> Optimization:
    """Search for texts with a large value of an objective.

    Args:
        run: A run folder.
        objective: A function that maps a text to a number, or to None if the text has no value; or
            the name of one: ``module:function``, ``file.py:function``, or ``probe:COLUMN``.
        budget: Evaluations of the objective for the search, for samples of the model, and for
            training texts, which it is compared with.
        method: ``bayes`` for expected improvement under a Gaussian process, ``botorch`` for points
            that also climb it (it needs BoTorch), or ``evolution``, which adds almost no time to
            the evaluations.
        minimize: Whether to search for a small value instead.
        condition: What the model is conditioned on, if it is: one label for all texts. The training
            texts are then those with this label.
        batch_size: Texts per batch; does not change the results.
        seed: Seed of everything that is drawn.
        keep: A file for the values of your own function. If the search is interrupted, it does not
            compute them again the next time.
        opening: data, reading, device, model, as in ``Opening``.

    Returns:
        All evaluations; ``print`` shows the best value so far, by their number.

    Raises:
        UserError: The model has no latent variable, the objective cannot be imported or fails, no
            text has a value, or the run cannot be opened.
    """
    check_integers(2, budget=budget)  # the first values, and one that they suggest
    check_installed(method)
    opened = open_run(run, **opening)
    model, train = opened.model, opened.split("train")
    if not model.latent_dim or model.KIND != "text":
        raise UserError(f"{run}: a search needs a model of text with a latent variable")
    evaluate, name = _function(objective, opened, condition)
    comparable = _rows_under(condition, model, train)
    start = comparable[spaced(len(comparable), START)]
    q = posteriors(model, train, start, seed=seed, batch_size=batch_size)
    options: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "condition": condition}
    sign = -1.0 if minimize else 1.0
    with _kept(evaluate, name, keep) as value_of:

        def signed(text: str) -> float | None:
            return _signed(sign, value_of(text))

        found = search(
            lambda points: model.decode(torch.from_numpy(points).float(), **options),
            signed,
            q.center().double().numpy(),
            budget=budget,
            method=method,
            seed=seed,
            on_sphere=model.on_sphere,
        )
        drawn = try_texts(_samples(model, options), signed, budget, REPEATS * budget)
        known = try_texts(_training(train, comparable, seed), signed, budget, len(comparable))
    _check_values([*found, *drawn, *known])
    if len(found) < budget:
        logger.warning(
            "the search ended after %d of %d evaluations: the decoder no longer produces new texts "
            "(textvae diagnose says whether z is used)",
            len(found),
            budget,
        )
    return Optimization({"search": found, "samples": drawn, "training": known}, sign)


def _function(
    objective: str | Objective, opened: OpenRun, condition: Given | None
) -> tuple[Objective, str]:
    """Return the objective as a function, and its name."""
    if callable(objective):
        return checked(objective, _short_name(objective)), _full_name(objective)
    return load_objective(objective, opened.folder, opened.model, condition), objective


def _short_name(objective: Objective) -> str:
    return getattr(objective, "__qualname__", str(objective))


def _full_name(objective: Objective) -> str:
    """Return a name that no other function has; one with ``<`` if there is no such name."""
    is_builtin = inspect.ismodule(getattr(objective, "__self__", None))
    if not (inspect.isfunction(objective) or is_builtin):
        return f"<{_short_name(objective)}>"  # what an object computes depends on its state
    script = inspect.getsourcefile(objective) if objective.__module__ == "__main__" else None
    return f"{script or objective.__module__}:{objective.__qualname__}"


def _kept(
    evaluate: Objective, name: str, keep: Path | str | None
) -> AbstractContextManager[Objective]:
    """Return the objective, whose values are kept in a file if one is named."""
    if keep is None or name.startswith(f"{PROBE}:"):  # which is quick
        return nullcontext(evaluate)
    if "<" in name:  # <lambda>, <locals>, or an object at an address
        raise UserError(
            f"keep={str(keep)!r}: values are kept under the name of a function, and {name} is not "
            "the name of one: define it with def at the top of a module"
        )
    return keeping(Path(keep), evaluate, name)


def _check_values(calls: Sequence[Call]) -> None:
    if all(call.value is None for call in calls):
        raise UserError("no text has a value, not even a training text: check the objective")


def _samples(model: Model, options: dict[str, Any]) -> Iterator[str]:
    source = "prior" if model.sampler is None else "aggregate"
    logger.info("compared with samples of textvae sample --from %s", source)
    for part in count():
        yield from model.sample(DRAWN, source=source, first_row=part * DRAWN, **options)


def _rows_under(condition: Given | None, model: Model, split: Split) -> np.ndarray:
    """Return the rows with the label that the search is for; all of them if it is for a number."""
    if not isinstance(model.condition, Classes) or condition is None or split.conditions is None:
        return np.arange(len(split))
    (code,) = model.condition.codes([condition], by_number=True).tolist()
    return np.flatnonzero(split.conditions == code)


def _training(split: Split, rows: np.ndarray, seed: int) -> Iterator[str]:
    for row in numpy_generator(seed).permutation(rows):
        yield split.caption(int(row))


def _signed(sign: float, value: float | None) -> float | None:
    return None if value is None else sign * value + 0.0  # never -0


def _marks() -> Iterator[int]:
    """Yield 1, 2, 5, 10, 20, 50, and so on."""
    for power in count():
        yield from (step * 10**power for step in (1, 2, 5))
