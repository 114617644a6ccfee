"""One metric on a card: its names, its unit, and how it is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

MISSING = "–"
TOO_LONG = 1e9  # a number that is shown as a power of 10
Section = Literal["likelihood", "latent", "text", "probe", "own", "setup"]


class Metric(NamedTuple):
    """One metric on a card.

    Attributes:
        key: Its name in the JSON file.
        header: Its name in a table.
        unit: Its unit; empty for counts that explain themselves.
        help: One sentence for the documentation.
        section: Where it belongs; ``own`` holds the user's own metrics, and ``setup`` constants of
            an evaluation, not results.
        digits: Decimals shown.
        better: Which direction is better.
        column: Whether ``textvae compare`` shows it: always, if some card has it, or never.
        needs_latent: Whether it is meaningless for a model without a latent variable.
        error: The key of its standard error.
        encoder: The key of the same metric before refinement.
        scale: The factor it is multiplied by when it is shown.
    """

    key: str
    header: str
    unit: str
    help: str
    section: Section
    digits: int = 2
    better: Literal["higher", "lower", "neither"] = "neither"
    column: Literal["always", "if present", "never"] = "never"
    needs_latent: bool = False
    error: str | None = None
    encoder: str | None = None
    scale: float = 1.0

    def show(self, card: Mapping[str, Any]) -> str:
        """Return the metric of a card as text, with its standard error, or a dash without one."""
        value = card.get(self.key)
        if value is None or not math.isfinite(value) or not self.applies(card):
            return MISSING
        error = card.get(self.error) if self.error else None
        text = self._number(value)
        return text if error is None else f"{text} ± {self._number(error)}"

    def _number(self, value: float) -> str:
        """Return a value as text; a metric of the user's own may be of any size."""
        if self.section == "own" and 0 < abs(value) < 0.5 * 10.0**-self.digits:
            return f"{value:.1e}"
        return decimals(self.scale * value, self.digits)

    def show_encoder(self, card: Mapping[str, Any]) -> str:
        """Return the same metric before refinement as text, or a dash without one."""
        if self.encoder is None:
            return MISSING
        return self.show({**card, self.key: card.get(self.encoder), self.error or "": None})

    def applies(self, card: Mapping[str, Any]) -> bool:
        """Return whether the metric is meaningful for the model of the card."""
        return not (self.needs_latent and card.get("latent_dim") == 0)


def decimals(value: float, digits: int = 2) -> str:
    """Format a number with a fixed number of decimals, and zero without a minus sign.

    Without decimals, it is a count, which has a comma between its thousands.
    A perplexity per word has no meaning where a text has no spaces; its power of 10 is enough.
    """
    if abs(value) >= TOO_LONG:
        return f"{value:.1e}"
    return f"{round(value, digits) + 0.0:{'' if digits else ','}.{digits}f}"


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
