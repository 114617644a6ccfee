"""Search in a latent space for the text that maximizes an objective.

All methods make new points from those evaluated before: selection, recombination, mutation,

    z = a + t (b - a) + s * sigma * eps,    eps ~ N(0, I),  t ~ U(-0.25, 1.25),  ln s uniform

where a and b win a tournament each, and sigma_d is the deviation of dimension d over the starting
points. ``evolution`` evaluates them as they come. ``bayes`` makes many more of them and evaluates
those that a model of the objective expects the most of; ``botorch`` also moves the best of these to
where it expects more (``textvae.evaluation.search.surrogates``).

A text is evaluated once, however often it is decoded, and only evaluations count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from textvae.evaluation.search.surrogates import make_surrogate
from textvae.vae.noise import numpy_generator

Method = Literal["evolution", "bayes", "botorch"]
Decode = Callable[[np.ndarray], Sequence[str]]  # z (N, Z) -> N texts
Evaluate = Callable[[str], float | None]  # larger is better; None for a text without a value

ROUND = 10  # evaluations before the next points are made
PER_ROUND = 20  # candidates for each of them, among which a surrogate chooses
TOURNAMENT = 4
STEPS = (0.03, 1.0)  # the range of s
FRESH = 0.1  # share of the points that are draws around the starting points instead
PATIENCE = 10  # rounds without a new text that end the search
WIDER = 1.5  # what sigma is multiplied by after each of them


class Call(NamedTuple):
    """One evaluation."""

    text: str
    value: float | None


class Memory:
    """The objective with its evaluations so far, of which there are at most ``budget``.

    Args:
        evaluate: The objective.
        budget: Maximum number of evaluations.
    """

    def __init__(self, evaluate: Evaluate, budget: int) -> None:
        self.evaluate, self.budget = evaluate, budget
        self.values: dict[str, float | None] = {}

    @property
    def left(self) -> int:
        """The number of evaluations that are left."""
        return self.budget - len(self.values)

    def value(self, text: str) -> float | None:
        """Return the value of a text, which is evaluated if it is new and evaluations are left."""
        if text not in self.values and self.left > 0:
            value = self.evaluate(text)
            valid = value is not None and math.isfinite(value)
            self.values[text] = float(value) if valid and value is not None else None
        return self.values.get(text)

    def calls(self) -> list[Call]:
        """Return the evaluations in their order."""
        return [Call(text, value) for text, value in self.values.items()]


def search(
    decode: Decode,
    evaluate: Evaluate,
    start: np.ndarray,
    *,
    budget: int,
    method: Method = "bayes",
    seed: int = 0,
    on_sphere: bool = False,
) -> list[Call]:
    """Search for the text with the largest value.

    Args:
        decode: Turns latent vectors into texts.
        evaluate: The objective, called once for each text; None for a text without a value.
        start: (N, Z) points to start from, such as posterior means; their spread is the scale of
            the search, and a fifth of the budget, but at least two, is spent on them.
        budget: Maximum number of evaluations.
        method: ``bayes``, ``botorch``, or ``evolution``.
        seed: Seed of everything that is drawn.
        on_sphere: Whether points belong on the unit sphere.

    Returns:
        The evaluations in their order: fewer than the budget if no new texts are found.

    Raises:
        UserError: The method needs a package that is not installed.
    """
    surrogate = None if method == "evolution" else make_surrogate(method, ROUND)
    random, memory = numpy_generator(seed), Memory(evaluate, budget)
    scale = start.std(0).clip(min=1e-6)
    chosen = start[random.permutation(len(start))[: max(2, budget // 5)]]
    points, values = chosen, _values(memory, decode(chosen))
    idle = 0
    while memory.left > 0 and idle < PATIENCE:
        count = min(ROUND, memory.left)
        known = _ranked(values)
        made = np.stack(
            [
                _child(random, points, known, start, WIDER**idle * scale)
                for _ in range(count * (PER_ROUND if surrogate else 2))
            ]
        )
        made = _on_sphere(made) if on_sphere else made
        if surrogate:
            units = known / max(1.0, np.abs(known).max())  # squares of huge values overflow
            best = surrogate.choose(points / scale, units, made / scale, len(memory.values))
            made = scale * best[: 4 * count]
            made = _on_sphere(made) if on_sphere else made  # botorch leaves it
        before = len(memory.values)
        kept, found = _evaluated(memory, made, decode(made), count)
        points, values = np.concatenate([points, kept]), np.concatenate([values, found])
        idle = idle + 1 if len(memory.values) == before else 0
    return memory.calls()


def _on_sphere(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _values(memory: Memory, texts: Sequence[str]) -> np.ndarray:
    """Return the values of texts (N,), NaN for those without one."""
    values = (memory.value(text) for text in texts)
    return np.array([math.nan if value is None else value for value in values])


def _evaluated(
    memory: Memory, points: np.ndarray, texts: Sequence[str], most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate points in their order, until ``most`` texts were new; return them and their values.

    As many points that repeat a text are kept, too: they say where else that text is.
    """
    new: list[int] = []
    repeated: list[int] = []
    for place, text in enumerate(texts):
        (repeated if text in memory.values else new).append(place)
        memory.value(text)
        if len(new) == most:
            break
    kept = new + repeated[:most]
    return points[kept], _values(memory, [texts[place] for place in kept])


def _ranked(values: np.ndarray) -> np.ndarray:
    """Return values in which a text without one is worse than all others by their spread."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values))
    return np.where(np.isfinite(values), values, known.min() - np.ptp(known) - 1e-6)


def _child(
    random: np.random.Generator,
    points: np.ndarray,
    values: np.ndarray,
    start: np.ndarray,
    scale: np.ndarray,
) -> np.ndarray:
    """Make a point from two others, or from a starting point."""
    noise = scale * random.standard_normal(len(scale))
    if random.random() < FRESH:
        return start[random.integers(len(start))] + noise / 2
    a, b = (_winner(random, points, values) for _ in range(2))
    size = math.exp(random.uniform(*np.log(STEPS)))
    return a + random.uniform(-0.25, 1.25) * (b - a) + size * noise


def _winner(random: np.random.Generator, points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the best of a few points, which tend to be among the better ones.

    The tournament is held among the better half: most of what was ever tried is no longer useful.
    """
    better = np.argsort(-values, kind="stable")[: max(2, min(len(values) // 2, 10 * TOURNAMENT))]
    return points[better[random.integers(len(better), size=TOURNAMENT).min()]]


def try_texts(texts: Iterator[str], evaluate: Evaluate, budget: int, most: int) -> list[Call]:
    """Evaluate texts in their order: what a search is compared with.

    Args:
        texts: The texts.
        evaluate: The objective.
        budget: Maximum number of evaluations.
        most: Maximum number of texts, of which some may be the same.

    Returns:
        The evaluations in their order.
    """
    memory = Memory(evaluate, budget)
    for count, text in enumerate(texts, start=1):
        memory.value(text)
        if not memory.left or count == most:
            break
    return memory.calls()


def best_so_far(calls: Sequence[Call]) -> list[float | None]:
    """Return the largest value after every evaluation; None as long as there is none."""
    best: list[float | None] = []
    for call in calls:
        before = best[-1] if best else None
        known = [value for value in (before, call.value) if value is not None]
        best.append(max(known, default=None))
    return best
