"""How much better than a baseline a model is on the same examples, and how certain that is.

The bounds on log p(x) of two models vary far more between examples than between the models: long
and unusual texts are unlikely under both. The difference of the bounds of the same example varies
little, so the mean of the differences has a narrow interval (a paired comparison). The interval is
that of the choice of examples. Of runs with several seeds, the standard deviation is given as well.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from textvae.errors import UserError
from textvae.evaluation.comparison.seeds import SPREAD
from textvae.evaluation.intervals import of_means
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.metrics.card_files import INTERVAL

logger = logging.getLogger(__name__)
GAIN, BASELINE = "iw_gain", "baseline"


def add_gains(cards: Sequence[Card], baseline: Card) -> None:
    """Add ``iw_gain``, its 95% interval, and the name of the baseline to other cards, in place.

    A card without the bounds of its examples, or of other examples, has none, with a warning.

    Args:
        cards: Cards with ``iw_by_example``; of runs that differ in their seed, its mean.
        baseline: The card to compare with.

    Raises:
        UserError: The baseline has no bounds of single examples.
    """
    reference = baseline.iw_by_example
    if reference is None:
        raise UserError(
            f"{baseline.get('model') or 'the card'} cannot be the baseline, because it has no "
            "bounds of single examples: evaluate it again with textvae evaluate"
        )
    for card in cards:
        for key in (GAIN, GAIN + SPREAD, INTERVAL, BASELINE):  # over another one, saved as JSON
            card.pop(key, None)
        is_run = card.iw_by_example is not None or card.get("corpus_hash")  # not a published result
        if card.iw_by_example is reference or not is_run:
            continue
        if why := _not_comparable(card, baseline):
            logger.warning("no IW gain for %s: %s", card.get("model"), why)
            continue
        _warn_of_other_samples(card, baseline)
        bounds = card.iw_by_example
        assert bounds is not None
        (gain,) = of_means((bounds.double() - reference.double())[:, None])
        card[GAIN], card[INTERVAL] = gain.value, [gain.low, gain.high]
        card[BASELINE] = str(baseline.get("model"))
        spreads = [each.get("iw" + SPREAD) for each in (card, baseline)]
        if any(spreads):  # over seeds: those of both vary independently, unlike the examples
            card[GAIN + SPREAD] = math.hypot(*(spread or 0.0 for spread in spreads))
            del card[INTERVAL]


def _warn_of_other_samples(card: Card, baseline: Card) -> None:
    """Warn if the bounds of two latent variable models have different numbers of samples."""
    counts = [each.get("samples") for each in (card, baseline) if each.get("latent_dim")]
    if len(set(counts)) > 1:
        logger.warning(
            "IW gain of %s over %s: the bounds have K = %s and K = %s samples, and a bound rises "
            "with K: evaluate both with the same --samples",
            *(card.get("model"), baseline.get("model"), *counts),
        )


def add_gains_over_language_model(cards: Sequence[Card]) -> None:
    """Add the gains over the language model, if there is exactly one with bounds of examples."""
    found = [c for c in cards if c.get("latent_dim") == 0 and c.iw_by_example is not None]
    if len(found) == 1:
        add_gains(cards, found[0])


def _not_comparable(card: Card, baseline: Card) -> str | None:
    """Return why two cards cannot be compared example by example, if they cannot."""
    bounds, reference = card.iw_by_example, baseline.iw_by_example
    if bounds is None:
        return (
            "it has no bounds of single examples; give its run folder, or evaluate it again with "
            "textvae evaluate"
        )
    assert reference is not None
    if card.get("corpus_hash") != baseline.get("corpus_hash") or len(bounds) != len(reference):
        return f"it was evaluated on other examples than {baseline.get('model')}"
    return None
