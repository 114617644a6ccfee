"""What ``textvae bounds`` found, as text and as numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from textvae.errors import quantity
from textvae.evaluation.intervals import Interval, of_means
from textvae.evaluation.metrics.metric import MISSING, decimals

LOOSE = 0.5  # nats between the two bounds of generated examples, above which AIS needs more steps

NOISE = 0.05  # nats by which AIS may be below IW by chance


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on log p(x) of N examples in nats, (N,) each, from the loosest to the tightest.

    Attributes:
        elbo: The ELBO of the encoder's q(z|x).
        best: The ELBO of the best q(z|x) of the same family that gradient steps found.
        iw: The importance-weighted bound with K draws.
        ais: The bound of annealed importance sampling.
        units: Words and ends of sentence; zeros if there are no words.
        samples: K.
        chains: Chains of annealed importance sampling.
        steps: Their intermediate distributions.
        accepted: Mean share of their proposals that were accepted.
        lower: Bounds of M examples that the model generated, (M,): annealed from below,
        upper: and from above.
        name: Name of the model.
        split: What the examples are.
    """

    elbo: np.ndarray
    best: np.ndarray
    iw: np.ndarray
    ais: np.ndarray
    units: np.ndarray
    samples: int
    chains: int
    steps: int
    accepted: float
    lower: np.ndarray
    upper: np.ndarray
    name: str = ""
    split: str = ""

    @property
    def tightest(self) -> np.ndarray:
        """The bound with the highest mean: what log p(x) is taken to be, (N,)."""
        return self.ais if self.ais.mean() >= self.iw.mean() else self.iw

    def gaps(self) -> dict[str, Interval]:
        """Return what lies between the bounds, means in nats per example with 95% intervals.

        ``amortization``: what a better encoder could gain; ``approximation``: what posteriors
        outside of the family could gain then (Cremer, Li & Duvenaud 2018); ``iw``: what the
        importance-weighted bound misses; ``unknown``: the distance of a lower and an upper bound
        for generated examples, within which the error of the tightest bound lies there.
        """
        columns = [self.best - self.elbo, self.tightest - self.best, self.tightest - self.iw]
        found = dict(zip(("amortization", "approximation", "iw"), _intervals(columns), strict=True))
        if len(self.lower):
            found["unknown"] = _intervals([self.upper - self.lower])[0]
        return found

    def perplexity(self, bound: np.ndarray) -> float | None:
        """Return the perplexity that follows from a bound (N,); None without words."""
        return math.exp(-bound.sum() / self.units.sum()) if self.units.any() else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the values of single examples, for JSON."""
        bounds = {key: getattr(self, key) for key in ("elbo", "best", "iw", "ais")}
        record: dict[str, Any] = {"model": self.name, "split": self.split, "count": len(self.elbo)}
        for key, bound in bounds.items():
            record[key] = float(bound.mean())
            if (perplexity := self.perplexity(bound)) is not None:
                record[f"ppl_{key}"] = perplexity
        for key, gap in self.gaps().items():
            record[f"{key}_gap"] = gap.value
            record[f"{key}_gap_interval"] = [gap.low, gap.high]
        record |= {"simulated": len(self.lower)}
        settings = ("samples", "chains", "steps", "accepted")
        return record | {key: getattr(self, key) for key in settings}

    def __str__(self) -> str:
        """The bounds and the gaps between them."""
        titled = [part for part in (self.name, self.split) if part]
        examples = f"{quantity(len(self.elbo), 'example')}; nats per example"
        lines = [", ".join([*titled, examples]), "", *self._rows(), "", *self._gap_lines()]
        if self.ais.mean() < self.iw.mean() - NOISE:
            lines += ["", "AIS is below IW: it needs more --steps, or more --chains"]
        return "\n".join(lines)

    def _rows(self) -> list[str]:
        rows = {
            "ELBO": self.elbo,
            "ELBO, best q(z|x) found": self.best,
            f"IW, K = {self.samples}": self.iw,
            f"AIS, {quantity(self.chains, 'chain')}, {quantity(self.steps, 'step')}": self.ais,
        }
        width = max(map(len, rows))
        lines = [f"{'':{width}} {'bound':>10}"]
        if self.units.any():
            lines[0] += f"{'PPL':>10}"
        for name, bound in rows.items():
            perplexity = self.perplexity(bound)
            shown = "" if perplexity is None else f"{decimals(perplexity):>10}"
            lines.append(f"{name:{width}} {decimals(float(bound.mean())):>10}{shown}")
        return lines

    def _gap_lines(self) -> list[str]:
        meaning = {
            "amortization": "a better encoder could gain this",
            "approximation": "posteriors outside of the family could gain this then",
            "iw": f"the bound with K = {self.samples} misses this",
            "unknown": f"between two bounds of log p(x), for {len(self.lower)} generated examples",
        }
        names = {"iw": "left by IW", "unknown": "left by AIS"}
        lines = []
        for key, gap in self.gaps().items():
            ends = f"[{decimals(gap.low)}, {decimals(gap.high)}]"
            if not math.isfinite(gap.high - gap.low):
                ends = MISSING
            name = names.get(key, f"{key} gap")
            lines.append(f"{name:17} {decimals(gap.value):>8}  {ends:16} {meaning[key]}")
        if "unknown" in self.gaps() and self.gaps()["unknown"].value > LOOSE:
            lines.append(f"{'':26}  more --steps would bring these two closer")
        return lines


def _intervals(columns: list[np.ndarray]) -> list[Interval]:
    return of_means(torch.from_numpy(np.stack(columns, axis=1)))
