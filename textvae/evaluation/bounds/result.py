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
    """Lower bounds on log p(x) of N examples in nats, (N,) each.

    Attributes:
        elbo: The ELBO of the encoder's q(z|x), or of the model's own refinement without an encoder.
        refined: The ELBO of q(z|x) refined as in training; None for a model that does not do that.
        best: The ELBO of the best q(z|x) of the same family that gradient steps found; None if
            they were not asked for, or if there is no encoder to start from.
        iw: The importance-weighted bound with K draws.
        ais: The bound of annealed importance sampling.
        units: Words and ends of sentence; zeros if there are no words.
        samples: K.
        chains: Chains of annealed importance sampling.
        steps: Their intermediate distributions.
        accepted: Mean share of their proposals that were accepted; None without proposals.
        requested: Number of examples that the model was to generate.
        lower: Bounds of the M of them that have ended, (M,): annealed from below,
        upper: and from above.
        name: Name of the model.
        split: What the examples are.
    """

    elbo: np.ndarray
    refined: np.ndarray | None
    best: np.ndarray | None
    iw: np.ndarray
    ais: np.ndarray
    units: np.ndarray
    samples: int
    chains: int
    steps: int
    accepted: float | None
    requested: int
    lower: np.ndarray
    upper: np.ndarray
    name: str = ""
    split: str = ""

    def bounds(self) -> dict[str, np.ndarray]:
        """Return those that were computed, by name."""
        names = ("elbo", "refined", "best", "iw", "ais")
        return {name: bound for name in names if (bound := getattr(self, name)) is not None}

    @property
    def tightest(self) -> np.ndarray:
        """The bound with the highest mean: what log p(x) is taken to be, (N,)."""
        return max(self.bounds().values(), key=lambda bound: float(bound.mean()))

    def gaps(self) -> dict[str, Interval]:
        """Return what lies between the bounds, means in nats per example with 95% intervals.

        ``amortization``: what a better encoder could gain, and ``approximation``: what a more
        flexible family of posteriors could gain in addition (Cremer, Li & Duvenaud 2018), or
        ``inference``: their sum, if the best posterior was not looked for; ``iw``: what the
        importance-weighted bound misses; ``unknown``: the distance of a lower and an upper bound
        for generated examples.
        """
        if self.best is None:
            columns = {"inference": self.tightest - self.elbo}
        else:
            columns = {
                "amortization": self.best - self.elbo,
                "approximation": self.tightest - self.best,
            }
        columns["iw"] = self.tightest - self.iw
        found = dict(zip(columns, _intervals(list(columns.values())), strict=True))
        if len(self.lower):
            found["unknown"] = _intervals([self.upper - self.lower])[0]
        return found

    def perplexity(self, bound: np.ndarray) -> float | None:
        """Return the perplexity that follows from a bound (N,); None without words."""
        return math.exp(-bound.sum() / self.units.sum()) if self.units.any() else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the values of single examples, for JSON."""
        record: dict[str, Any] = {"model": self.name, "split": self.split, "count": len(self.elbo)}
        for key, bound in self.bounds().items():
            record[key] = float(bound.mean())
            if (perplexity := self.perplexity(bound)) is not None:
                record[f"ppl_{key}"] = perplexity
        for key, gap in self.gaps().items():
            record[f"{key}_gap"] = gap.value
            record[f"{key}_gap_interval"] = [gap.low, gap.high]
        record |= {"simulated": len(self.lower)}
        settings = ("samples", "chains", "steps", "accepted", "requested")
        return record | {key: getattr(self, key) for key in settings}

    def __str__(self) -> str:
        """The bounds and the gaps between them."""
        titled = [part for part in (self.name, self.split) if part]
        examples = f"{quantity(len(self.elbo), 'example')}; nats per example"
        lines = [", ".join([*titled, examples]), "", *self._rows(), "", *self._gap_lines()]
        if advice := self._advice():
            lines += ["", *advice]
        return "\n".join(lines)

    def _rows(self) -> list[str]:
        names = {
            "elbo": "ELBO" if self.refined is None else "ELBO, encoder alone",
            "refined": "ELBO, refined",
            "best": "ELBO, best q(z|x) found",
            "iw": f"IW, K = {self.samples}",
            "ais": f"AIS, {quantity(self.chains, 'chain')}, {quantity(self.steps, 'step')}",
        }
        found = self.bounds()
        width = max(len(names[key]) for key in found)
        has_words = bool(self.units.any())
        lines = [f"{'':{width}} {'bound':>10}" + (f" {'PPL':>11}" if has_words else "")]
        for key, bound in found.items():
            perplexity = self.perplexity(bound)
            shown = "" if perplexity is None else f" {decimals(perplexity):>11}"
            lines.append(f"{names[key]:{width}} {decimals(float(bound.mean())):>10}{shown}")
        return lines

    def _gap_lines(self) -> list[str]:
        generated = f"{len(self.lower)} generated examples"
        if len(self.lower) < self.requested:
            generated = f"{len(self.lower)} of {self.requested} generated examples (the others did"
            generated += " not end)"
        shown = {
            "amortization": ("amortization gap", "what a better encoder could gain"),
            "approximation": (
                "approximation gap",
                "what a more flexible family of posteriors could gain in addition",
            ),
            "inference": ("inference gap", "what a better posterior could gain"),
            "iw": ("left by IW", f"what the bound with K = {self.samples} still misses"),
            "unknown": ("left by AIS", f"between two bounds of log p(x), for {generated}"),
        }
        lines = []
        for key, gap in self.gaps().items():
            ends = f"[{decimals(gap.low)}, {decimals(gap.high)}]"
            if not math.isfinite(gap.high - gap.low):
                ends = MISSING
            name, meaning = shown[key]
            lines.append(f"{name:17} {decimals(gap.value):>8}  {ends:16} {meaning}")
        return lines

    def _advice(self) -> list[str]:
        """Say what would make the bounds tighter, if they are certainly too loose."""
        advice, highest = [], self.tightest.mean()
        if self.ais.mean() < highest - NOISE:
            advice.append("AIS is below another bound: increase --steps or --chains")
        if self.best is not None and self.iw.mean() < self.best.mean() - NOISE:
            advice.append("IW is below an ELBO: increase --samples")
        if len(self.lower) and self.gaps()["unknown"].value > LOOSE:
            advice.append("AIS is loose for generated examples: increase --steps or --chains")
        if self.requested and not len(self.lower):
            advice.append("no generated text ended within the maximum length: nothing is known")
            advice[-1] += " about how loose AIS is"
        return advice


def _intervals(columns: list[np.ndarray]) -> list[Interval]:
    return of_means(torch.from_numpy(np.stack(columns, axis=1)))
