"""Metrics cards as text: what ``print(evaluate(...))`` and ``textvae evaluate`` show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from textvae.errors import quantity
from textvae.evaluation.metrics.metric import MISSING, Metric, decimals
from textvae.evaluation.metrics.own import metrics_of
from textvae.evaluation.metrics.table import BY_KEY
from textvae.evaluation.printed import Printed

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "valid", "test")  # a card of new examples has the name of their file instead
SECTIONS = ("likelihood", "latent", "text", "probe", "own")
PER_LINE = 7  # values of the ELBO by refinement step


class Card(Printed, dict[str, Any]):
    """The metrics of one evaluation by key; ``print(card)`` shows them with their units.

    It is a dictionary that ``json`` can write. Its keys: ``textvae.evaluation.metrics.table``.

    Attributes:
        iw_by_example: (N,) the bounds whose mean is ``iw``, in the order of the rows; None if they
            are not known.
    """

    iw_by_example: Tensor | None = None

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Card:
        """Copy a card, or make one from any mapping with metrics."""
        copy = cls(card)
        copy.iw_by_example = getattr(card, "iw_by_example", None)
        return copy

    def __str__(self) -> str:
        """Return the card as lines of text."""
        return render_card(self)


def render_card(card: Mapping[str, Any]) -> str:
    """Return a card as plain text: its metrics with their units, then what they are based on."""
    blocks = [_title(card), *_figures(card), card_notes(card), _steps(card)]
    if card.get("collapse"):
        blocks.append([f"warning: {card['collapse']}"])
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def summary(card: Mapping[str, Any]) -> list[list[str]]:
    """Return the main metrics as rows of name, value and unit, for the README of a model."""
    shown = [(metric, metric.show(card)) for metric in metrics_of([card]) if _is_main(metric)]
    return [[metric.header, text, metric.unit] for metric, text in shown if text != MISSING]


def _is_main(metric: Metric) -> bool:
    return metric.column != "never" and metric.section in SECTIONS


def _title(card: Mapping[str, Any]) -> list[str]:
    named = [str(card["model"])] if card.get("model") else []
    if split := card.get("split"):
        named.append(f"{split} split" if split in SPLITS else str(split))
    return [", ".join(named)] if named else []


def _figures(card: Mapping[str, Any]) -> list[list[str]]:
    """Return a block of lines for each section that the card has metrics for."""
    rows = {
        section: [
            (metric, metric.show(card), metric.show_encoder(card))
            for metric in metrics_of([card])
            if metric.section == section and metric.show(card) != MISSING
        ]
        for section in SECTIONS
    }
    every = [row for section in rows.values() for row in section]
    refined = any(encoder != MISSING for _, _, encoder in every)
    width = max((len(metric.header) for metric, _, _ in every), default=0)
    blocks = [
        [_line(width, *row, refined=refined) for row in section]
        for section in rows.values()
        if section
    ]
    if refined:
        blocks[0].insert(0, f"{'':{width}} {'refined':>12}{'':8}{'encoder':>12}")
    return blocks


def _line(width: int, metric: Metric, text: str, encoder: str, refined: bool) -> str:
    value, _, error = text.partition(" ± ")
    line = f"{metric.header:{width}} {value:>12}{f' ± {error}' if error else '':8}"
    if refined:
        line += f"{'' if encoder == MISSING else encoder:>12}"
    return f"{line}  {metric.unit}".rstrip()


def card_notes(card: Mapping[str, Any]) -> list[str]:
    """Return what the metrics are counted in and how they were estimated."""

    def show(key: str) -> str:
        return BY_KEY[key].show(card)

    notes = []
    if card.get("count") is not None:
        counts = [(show("count"), "example" if card["count"] == 1 else "examples")]
        counts += [(show("units"), "words and ends of sentence")] if card.get("units") else []
        counts += [(show("tokens"), "predicted symbols")] if card.get("tokens") else []
        notes.append(", ".join(f"{count} {what}" for count, what in counts))
    if card.get("latent_dim") == 0:
        notes.append("no latent variable: ELBO and IW are log p(x) itself")
    elif card.get("samples"):
        order = f"rec - KL = ELBO <= IW (K = {show('samples')}) <= log p(x)"
        noisy = (card.get("iw") or 0.0) < (card.get("elbo") or -math.inf)
        notes.append(f"{order}, on average over all draws" if noisy else order)
    if card.get("latent_dim") and card.get("au") is not None:
        notes.append(
            f"{show('au')} of {show('latent_dim')} dimensions active (variance of the mean at "
            f"least {show('au_threshold')}); MI is at most {show('mi_max')}"
        )
    if kind := card.get("condition"):
        of = f"{kind} {given}" if (given := card.get("given")) else f"{kind} of each example"
        both = "p(x|y) and q(z|x, y)" if card.get("latent_dim") else "p(x|y)"
        notes.append(f"conditioned on the {of}: {both}")
    if card.get("kl_estimated"):
        notes.append("KL estimated from samples of z: it has no closed form here")
    if card.get("mae") is not None:
        known = [
            f"{name} {decimals(ends[0], 3)} to {decimals(ends[1], 3)}"
            for name, key in (("R²", "r2_interval"), ("MAE", "mae_interval"))
            if (ends := card.get(key))
        ]
        intervals = f"; 95% intervals: {', '.join(known)}" if known else ""
        notes.append(
            f"{card['target']} of {quantity(card['probed'], 'example')}; ridge regression on "
            f"{show('trained_on')} posterior means{intervals}"
        )
    elif card.get("probed") is not None:
        notes.append(
            f"{quantity(card['probed'], 'labeled example')}, {show('classes')} classes; "
            f"classifiers trained on {show('trained_on')} posterior means"
        )
    return notes


def _steps(card: Mapping[str, Any]) -> list[str]:
    path = card.get("elbo_by_step") or ()
    if len(path) < 2:
        return []
    digits = BY_KEY["elbo"].digits
    rows = (path[start : start + PER_LINE] for start in range(0, len(path), PER_LINE))
    return [
        f"ELBO after 0 to {len(path) - 1} refinement steps:",
        *("".join(f"{elbo:10.{digits}f}" for elbo in row) for row in rows),
    ]
