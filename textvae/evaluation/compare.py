"""Metrics cards on disk, and cards side by side as a table for a paper.

A card is the dictionary that ``textvae.evaluation.card.evaluate`` returns, kept as JSON in
``RUN/metrics/<split>.json``. A card from elsewhere (the exact answer for a toy corpus, a published
row) needs only some of the figures; missing or null ones are shown as a dash.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.evaluation.metrics import BY_KEY, METRICS, MISSING, NUMBERS, Metric
from textvae.evaluation.presentation import Card, summary
from textvae.runs.files import write_json
from textvae.runs.run_folder import config_path

_REQUIRED = ("model", "elbo", "iw", "ppl_elbo", "ppl_iw")  # a card has at least one of these


def save_card(run: Path | str, name: str, card: Mapping[str, Any]) -> Path:
    """Write ``RUN/metrics/NAME.json``, completely or not at all.

    Figures that are not finite become null, because JSON cannot represent them. ``summary`` is what
    the README of the model shows.

    Args:
        run: A run folder.
        name: The split, or the split and a suffix for a special card.
        card: The figures.

    Returns:
        The path of the file.
    """
    path = Path(run) / "metrics" / f"{name}.json"
    rows = summary(card)
    write_json(path, _finite({**card, **({"summary": rows} if rows else {})}))
    return path


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_finite(entry) for entry in value]
    return value


def load_card(path: Path | str) -> Card:
    """Read a card; one without a model name is named after its file.

    Args:
        path: A JSON file.

    Raises:
        UserError: There is no such file, or it is not a card.
    """
    path = Path(path)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no metrics card {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as JSON ({error}): create the card again"
        ) from error
    if not isinstance(card, dict):
        raise UserError(f"{path}: a metrics card is a JSON object: create the card again")
    if wrong := sorted(key for key in NUMBERS if not _is_number_or_none(card.get(key))):
        raise UserError(f"{path}: {', '.join(wrong)} must be a number: create the card again")
    if not card.keys() & set(_REQUIRED):
        raise UserError(f"{path} is not a metrics card: it has none of {', '.join(_REQUIRED)}")
    card.pop("summary", None)
    return Card(card if card.get("model") else {**card, "model": path.stem})


def find_card(given: Path | str, split: str = "test") -> Card:
    """Read the card of a run for a split, with its probe accuracy, or the card in a JSON file.

    Args:
        given: A run folder, or a JSON file.
        split: The split, for a run folder.

    Raises:
        UserError: There is no card, or it is broken; the message has the command that creates it.
    """
    given = Path(given)
    if not given.is_dir():
        if not given.exists():
            raise UserError(f"{given}: there is no such run folder or metrics card")
        return load_card(given)
    path, command = given / "metrics" / f"{split}.json", f"textvae evaluate {given} --split {split}"
    if not path.exists():
        config_path(given)  # a folder of runs, or any other folder, cannot be evaluated
        raise UserError(f"{given} has no metrics for {split!r}: create them with {command}")
    try:
        card = load_card(path)
    except UserError as error:
        raise UserError(f"{error} with {command}") from error
    if card["model"] == split:
        card["model"] = given.resolve().name
    probed = path.with_name(f"{split}-probe.json")
    if probed.exists():
        accuracies = load_card(probed)
        card |= {key: accuracies[key] for key in ("accuracy", "accuracy_se") if key in accuracies}
    return card


def _is_number_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def compare(runs_or_cards: Sequence[Path | str | Mapping[str, Any]], split: str = "test") -> str:
    """Return a Markdown table with one row per run or card, in the order given.

    Below the table are the units, and a warning if the cards were not computed on the same data.

    Args:
        runs_or_cards: Run folders, JSON files with a card, or cards.
        split: Which card of a run folder to read.

    Raises:
        UserError: There is nothing to compare, or a card is missing or broken.
    """
    if isinstance(runs_or_cards, (str, Path)):
        runs_or_cards = [runs_or_cards]
    if not runs_or_cards:
        raise UserError("nothing to compare: give one or more run folders or cards")
    cards = [
        given if isinstance(given, Mapping) else find_card(given, split) for given in runs_or_cards
    ]
    columns = [["model", *(_name(card) for card in cards)]]
    shown = []
    for metric in METRICS:
        cells = [_cell(metric, card) for card in cards]
        present = any(cell != MISSING for cell in cells)
        if metric.column == "always" or (metric.column == "if present" and present):
            columns.append([metric.header, *cells])
            shown.append(metric)
    widths = [max(map(len, column)) for column in columns]
    lines = [_line(row, widths) for row in zip(*columns, strict=True)]
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([lines[0], rule + "|", *lines[1:], "", *_notes(cards, shown)]) + "\n"


def _name(card: Mapping[str, Any]) -> str:
    return str(card.get("model") or MISSING).replace("|", r"\|")


def _cell(metric: Metric, card: Mapping[str, Any]) -> str:
    if metric.section == "latent":  # its standard error is shown only on the card
        metric = metric._replace(error=None)
    encoder = metric.show_encoder(card) if metric.needs_latent else MISSING
    return metric.show(card) + ("" if encoder == MISSING else f" ({encoder})")


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0])]
    cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
    return "| " + " | ".join(cells) + " |"


def _notes(cards: Sequence[Mapping[str, Any]], shown: Sequence[Metric]) -> list[str]:
    latent = [card for card in cards if card.get("latent_dim") != 0]  # without z, K is meaningless
    facts = [_units(shown), "ELBO and IW are lower bounds on log p(x)."]
    for key, fact in (
        ("samples", "IW with K = {}."),
        ("mi_max", "MI is at most {}."),
        ("au_threshold", "AU: the posterior mean of an active dimension has variance {} or more."),
    ):
        if (values := _values(key, latent)) != MISSING:
            facts.append(fact.format(values))
    notes = [" ".join(facts)]
    if any(card.get("encoder_au") is not None for card in cards):
        notes.append(
            "In parentheses: the encoder's posterior before refinement. gap: what refinement adds "
            "to the ELBO."
        )
    if estimated := [_name(card) for card in cards if card.get("kl_estimated")]:
        notes.append(f"KL estimated from samples of z: {', '.join(estimated)}.")
    if any(metric.key == "accuracy" for metric in shown):
        notes.append(f"accuracy: {BY_KEY['accuracy'].help}")
    for key, name in (("count", "examples"), ("units", "words and ends of sentence")):
        if "/" in (values := _values(key, cards)):
            notes.append(f"**Not comparable**: the cards count different {name} ({values}).")
    return notes


def _units(shown: Sequence[Metric]) -> str:
    """Return the units of the columns as sentences."""
    by_unit: dict[str, list[str]] = {}
    for metric in shown:
        if metric.section in ("likelihood", "latent") and metric.unit != BY_KEY["au"].unit:
            by_unit.setdefault(metric.unit, []).append(metric.header)
    return " ".join(f"{', '.join(headers)}: {unit}." for unit, headers in by_unit.items())


def _values(key: str, cards: Sequence[Mapping[str, Any]]) -> str:
    """Return the values that the cards have for a setting."""
    values = {f"{card[key]:,.{BY_KEY[key].digits}f}" for card in cards if card.get(key) is not None}
    return " / ".join(sorted(values)) or MISSING
