"""The notes below a table of cards: units, bounds, and why cards cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from textvae.evaluation.comparison.gains import GAIN
from textvae.evaluation.comparison.seeds import SPREAD
from textvae.evaluation.metrics.metric import MISSING, Metric
from textvae.evaluation.metrics.own import own_metrics_of_different_code
from textvae.evaluation.metrics.table import BY_KEY


def name_of(card: Mapping[str, Any]) -> str:
    """Return the name of a row."""
    return str(card.get("model") or MISSING)


def notes_on(cards: Sequence[Mapping[str, Any]], shown: Sequence[Metric]) -> list[str]:
    """Return the notes below a table, as sentences.

    Args:
        cards: One for every row.
        shown: The metrics in its columns.
    """
    facts = " ".join(_facts(cards, shown))
    notes = [facts] if facts else []
    if any(card.get("encoder_au") is not None for card in cards):
        notes.append(
            "In parentheses: the encoder's posterior before refinement. gap: what refinement adds "
            "to the ELBO."
        )
    if compared := {str(card["baseline"]) for card in cards if card.get("baseline")}:
        several = any(GAIN + SPREAD in card for card in cards)
        interval = "" if several else ", with its 95% interval over examples"
        baselines = " / ".join(sorted(compared))
        notes.append(f"IW gain: IW minus that of {baselines} on the same examples{interval}.")
    if any(key.endswith(SPREAD) for card in cards for key in card):
        notes.append("±: standard deviation over seeds.")
    if estimated := [name_of(card) for card in cards if card.get("kl_estimated")]:
        notes.append(f"KL estimated from samples of z: {', '.join(estimated)}.")
    if any(metric.key == "accuracy" for metric in shown):
        notes.append(f"accuracy: {BY_KEY['accuracy'].help}")
    if conditional := [name_of(card) for card in cards if card.get("condition")]:
        notes.append(f"log p(x|y), given labels or numbers: {', '.join(conditional)}.")
    if stale := [name_of(card) for card in cards if card.get("stale")]:
        notes.append(f"**Computed from earlier weights**: {', '.join(stale)}.")
    differing = [m.key for m in shown if m.key in own_metrics_of_different_code(cards)]
    if differing:
        notes.append(f"**Computed by different code**: {', '.join(differing)}.")
    return notes + _differences(cards)


def _facts(cards: Sequence[Mapping[str, Any]], shown: Sequence[Metric]) -> Iterator[str]:
    """Yield what a reader has to know about the metrics that are shown."""
    latent = [card for card in cards if card.get("latent_dim") != 0]  # without z, K is meaningless
    models = [card for card in latent if card.get("latent_dim")]  # a true distribution has factors
    bounded = [card for card in models if card.get("mi_max") is not None]
    whose = "" if bounded == models else f" of {', '.join(map(name_of, bounded))}"
    keys = [metric.key for metric in shown]
    if units := _units(shown):
        yield units
    if any(key.endswith(("elbo", "iw")) for key in keys):
        yield "ELBO and IW are lower bounds on log p(x)."
    if any(key.endswith("iw") or key == GAIN for key in keys):
        yield from _with_values(
            "IW with K = {}.", "samples", [c for c in latent if c.get("samples")]
        )
    if "mi" in keys:
        yield from _with_values(f"MI{whose} is at most {{}}.", "mi_max", models)
    if "au" in keys:
        active = "AU: the posterior mean of an active dimension has variance {} or more."
        yield from _with_values(active, "au_threshold", latent)


def _with_values(fact: str, key: str, cards: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a fact with the values that the cards have for a setting, if they have any."""
    if (values := _values(key, cards)) != MISSING:
        yield fact.replace("{}", values)


def _differences(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why the cards cannot be compared, if they are not of the same examples."""
    found = []
    for key, name in (("count", "examples"), ("units", "words and ends of sentence")):
        if "/" in (values := _values(key, cards)):
            found.append(f"**Not comparable**: different numbers of {name} ({values}).")
    if not found and len({card.get("corpus_hash") for card in cards} - {None}) > 1:
        found.append("**Not comparable**: the cards were computed on different texts or labels.")
    return found


def _units(shown: Sequence[Metric]) -> str:
    """Return the units of the columns as sentences."""
    by_unit: dict[str, list[str]] = {}
    for metric in shown:
        if metric.section in ("likelihood", "latent") and metric.unit != BY_KEY["au"].unit:
            by_unit.setdefault(metric.unit, []).append(metric.header)
    return " ".join(f"{', '.join(headers)}: {unit}." for unit, headers in by_unit.items())


def _values(key: str, cards: Sequence[Mapping[str, Any]]) -> str:
    """Return the values that the cards have for a setting."""
    digits = BY_KEY[key].digits
    values = [f"{card[key]:,.{digits}f}" for card in cards if card.get(key) is not None]
    return " / ".join(dict.fromkeys(values)) or MISSING  # in the order of the rows
