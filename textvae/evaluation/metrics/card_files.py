"""Metrics cards on disk.

A card is the dictionary that ``textvae.evaluation.evaluate.evaluate`` returns, kept as JSON in
``RUN/metrics/<split>.json``. A card from elsewhere (the exact answer for a toy corpus, a published
row) needs only some of the metrics. Several of them, such as the rows of a published table, are a
list in a YAML file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import yaml

from textvae.errors import UserError, did_you_mean
from textvae.evaluation.metrics.bound_files import read_bounds
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.metrics.own import numbers_of
from textvae.evaluation.metrics.table import NUMBERS, RESULTS
from textvae.runs.files import quoted, read_record
from textvae.runs.model_folder import is_number, metrics_path, weights_hash
from textvae.runs.run_folder import CONFIG, config_path, is_run

logger = logging.getLogger(__name__)

# What a published row says besides metrics (textvae.evaluation.comparison.published).
OF_A_ROW = frozenset({"model", "stack", "source", "tolerance", "differs"})
LARGEST = 1e100  # of a metric; a larger one is a mistake
INTERVAL = "iw_gain_interval"
_USUAL = ("elbo", "ppl_iw", "kl")


def load_card(path: Path | str) -> Card:
    """Read a card; one without a model name is named after its file.

    Args:
        path: A JSON file.

    Raises:
        UserError: There is no such file, or it is not a card.
    """
    path = Path(path)
    missing = f"there is no metrics card {path}"
    card = read_record(path, missing=missing, advice="create the card again")
    if mistake := _mistake(card):
        raise UserError(f"{path} {mistake}: create the card again")
    card.pop("summary", None)
    return Card(card if card.get("model") else {**card, "model": path.stem})


def check_numbers_of(card: Mapping[str, Any]) -> None:
    """Check the metrics of a card that was not read from a file.

    Raises:
        UserError: One is not a number.
    """
    for key in card.keys() & numbers_of(card):
        if not isinstance(card[key], Real | None):
            raise UserError(f"a card has {key}={card[key]!r:.50}: it must be a number")


def load_cards(path: Path | str) -> list[Card]:
    """Read a list of cards, such as published rows, from a YAML file.

    Raises:
        UserError: There is no such file, or it is not a list of cards; the message says which.
    """
    path = Path(path)
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as YAML ({reason})") from None
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: a file of published rows is a list of metrics cards")
    for number, row in enumerate(rows, 1):
        mistake = _mistake(row) if isinstance(row, dict) else "is not a mapping of metrics"
        if not mistake and (unknown := sorted(row.keys() - NUMBERS - OF_A_ROW)):
            hint = did_you_mean(unknown[0], NUMBERS | OF_A_ROW)
            mistake = f"has an unknown metric {unknown[0]!r}{hint}"
        mistake = mistake or _mistake_by_figure(row)
        if mistake or not row.get("model"):
            raise UserError(f"{path}: row {number} {mistake or 'has no model'}")
    return [Card(row) for row in rows]


def _mistake_by_figure(row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the tolerances and notes of a published row, if anything."""
    for part in ("model", "stack", "source"):
        if not isinstance(row.get(part, ""), str):
            return f"has a {part} that is not text"
    for part in ("tolerance", "differs"):
        values = row.get(part, {})
        if not isinstance(values, dict):
            return f"has a {part} that is not a mapping of metrics"
        for key, value in values.items():
            if row.get(key) is None or key not in NUMBERS:
                return f"has a {part} for {key!r}, which is not one of its metrics"
            if part == "differs" and not isinstance(value, str):
                return f"must say as text how {key!r} differs"
            if part == "tolerance" and not (value is not None and _is_number_or_none(value)):
                return f"has a tolerance for {key!r} that is not a number"
            if part == "tolerance" and value < 0:
                return f"has a negative tolerance for {key!r}"
    return None


def _mistake(card: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a card, if anything."""
    if odd := [key for key in card if not isinstance(key, str)]:
        return f"is not a metrics card: {odd[0]!r} is not the name of a metric"
    if wrong := sorted(k for k in numbers_of(card) if not _is_number_or_none(card.get(k))):
        numbers = "a finite number" if len(wrong) == 1 else "finite numbers"
        return f"is not a metrics card: {', '.join(wrong)} must be {numbers}"
    interval = card.get(INTERVAL)
    if interval is not None and not (
        isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
    ):
        return f"is not a metrics card: {INTERVAL} must be two numbers"
    if all(card.get(key) is None for key in RESULTS):
        return f"is not a metrics card: it has no metric, such as {', '.join(_USUAL)}"
    return None


def run_folders(given: Iterable[Any]) -> list[Any]:
    """Return the runs in place of a folder of runs, such as that of a sweep.

    Other folders are left out, if there are runs: the corpus among ``runs/*/``.
    """
    found: list[Any] = []
    for each in given:
        inside = _runs_in(Path(each)) if isinstance(each, (str, Path)) else []
        found += inside or [each]
    return _without_other_folders(found)


def _runs_in(folder: Path) -> list[Path]:
    """Return the run folders in a folder that is none itself, sorted by name."""
    if is_run(folder):
        return []
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))


def _without_other_folders(given: list[Any]) -> list[Any]:
    folders = [each for each in given if isinstance(each, (str, Path)) and Path(each).is_dir()]
    others = [each for each in folders if not _may_have_cards(Path(each))]
    if not others or len(others) == len(folders):
        return given
    logger.warning("left out, not run folders: %s", ", ".join(map(str, others)))
    return [each for each in given if each not in others]


def _may_have_cards(folder: Path) -> bool:
    return is_run(folder) or metrics_path(folder).parent.is_dir()


def read_cards(given: Path | str, split: str = "test") -> list[Card]:
    """Read the card of a run for a split, or all cards in a JSON or YAML file.

    A card that was computed from earlier weights is read with a warning.

    Raises:
        UserError: As in ``find_card`` and ``load_cards``.
    """
    if Path(given).suffix.lower() in (".yaml", ".yml") and not Path(given).is_dir():
        return load_cards(given)
    card = find_card(given, split)
    if card.get("stale"):
        logger.warning(
            "the card of %s was computed from earlier weights: update it with %s",
            *(given, _command(given, split)),
        )
    return [card]


def _command(run: Path | str, name: str) -> str:
    """Return the command that writes the card of a split, or of a file with that name."""
    given = options_of(name)
    rest = "and the options of that card" if given is None else " ".join(given)
    return f"textvae evaluate {quoted(run)} {rest}"


def options_of(name: str) -> list[str] | None:
    """Return the options of ``evaluate`` that a card is named after; None if it is of a file."""
    found = re.fullmatch(r"(train|valid|test)(?:-refine(\d+))?(?:-limit(\d+))?", name)
    if found is None:
        return None
    options = zip(("--split", "--refine-steps", "--limit"), found.groups(), strict=True)
    return [word for option, value in options if value is not None for word in (option, value)]


def find_card(given: Path | str, split: str = "test") -> Card:
    """Read the card of a run for a split, with all that belongs to it, or the card in a JSON file.

    To the card of a run belong its probe accuracy and the bounds of its examples, if there are any.

    Args:
        given: A run folder, or a JSON file.
        split: The split, for a run folder.

    Returns:
        The card; ``stale`` is true if the run has other weights by now. A probe accuracy of weights
        other than those of the card is left out, with a warning.

    Raises:
        UserError: There is no card, or it is broken; the message has the command that creates it.
    """
    given = Path(given)
    if not given.is_dir():
        if not given.exists():
            near = did_you_mean(str(given), [str(path) for path in given.parent.glob("*/")])
            raise UserError(f"{given}: there is no such run folder or metrics card{near}")
        if given.suffix.lower() != ".json":
            raise UserError(
                f"{given} is not a run folder, a metrics card (.json), or a list of cards (.yaml)"
            )
        return load_card(given)
    path, command = metrics_path(given, split), _command(given, split)
    if not path.exists():
        config_path(given)  # a folder of runs, or any other folder, cannot be evaluated
        hint = did_you_mean(split, saved_splits(given))
        raise UserError(f"{given} has no metrics for {split!r}: create them with {command}{hint}")
    try:
        card = load_card(path)
    except UserError as error:
        raise UserError(f"{error} with {command}") from error
    card.iw_by_example = read_bounds(given, split, card)
    if card.get("weights") is not None and weights_hash(given) not in (None, card["weights"]):
        card["stale"] = True
    if card["model"] == split:
        card["model"] = given.resolve().name
    card.update(_probe_accuracy(given, split, card))
    return card


def _probe_accuracy(run: Path, split: str, card: Card) -> dict[str, Any]:
    """Return the probe accuracy of the weights of a card; empty if there is none."""
    path = metrics_path(run, f"{split}-probe")
    if not path.exists():
        return {}
    found = load_card(path)
    if len({found.get("weights"), card.get("weights")} - {None}) > 1:
        logger.warning(
            "the probe accuracy of %s is left out, because it is that of other weights: update "
            "it with textvae probe %s --split %s",
            *(run, quoted(run), split),
        )
        return {}
    return {key: found[key] for key in ("accuracy", "accuracy_se") if key in found}


def saved_splits(run: Path) -> list[str]:
    """Return the names of the cards of a run: of splits, or of files."""
    found = [path.stem for path in metrics_path(run).parent.glob("*.json")]
    return sorted(name for name in found if not re.search("-(probe|diagnosis)(-|$)", name))


def is_number_of_a_card(value: Any) -> bool:
    """Return whether a card can hold a number: one that is not infinite, NaN, or excessive."""
    return is_number(value) and abs(value) < LARGEST


def _is_number_or_none(value: Any) -> bool:
    return value is None or is_number_of_a_card(value)
