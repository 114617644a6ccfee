"""Metrics cards: saved, loaded, shown one by one, and side by side as the table of a paper.

A card is the dictionary that ``textvae.evaluation.card.evaluate`` returns, kept as JSON in a run
folder under ``metrics/<split>.json``. Cards from elsewhere (an exact answer that a corpus comes with, a
published row) may leave out everything but ``model``; what is missing or null shows as "–".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.evaluation.metrics import decimals
from textvae.runs.files import write_json

Card = Mapping[str, Any]
NONE = "–"
_TELLING = dict.fromkeys(("model", "elbo", "iw", "ppl_elbo", "ppl_iw")).keys()  # in a card


def save_card(run: Path | str, split: str, card: Card) -> Path:
    """Writes ``RUN/metrics/<split>.json``, whole or not at all; numbers that are not finite become
    null, which JSON can hold. Returns the path."""
    path = Path(run) / "metrics" / f"{split}.json"
    write_json(path, _finite(dict(card)))
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


def load_card(path: Path | str) -> dict[str, Any]:
    """The card in a JSON file; without a name of its own it takes the file's.

    Raises:
        UserError: there is no such file, or it is no card.
    """
    path = Path(path)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no metrics card {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); make the card again") from error
    if not isinstance(card, dict):
        raise UserError(f"{path}: a metrics card is one JSON object; make the card again")
    if wrong := [key for key in _NUMBERS if not _is_number_or_none(card.get(key))]:
        raise UserError(f"{path}: {', '.join(wrong)} must be a number; make the card again")
    if not card.keys() & _TELLING:
        raise UserError(f"{path}: no metrics card, for it has none of {', '.join(_TELLING)}")
    return card if card.get("model") else {**card, "model": path.stem}


def find_card(given: Path | str, split: str = "test") -> dict[str, Any]:
    """The card of a run folder for a split (named after the folder), or that of a JSON file.

    Raises:
        UserError: there is no card, or it is broken; the message has the command that makes it.
    """
    given = Path(given)
    if not given.is_dir():
        if not given.exists():
            raise UserError(f"{given}: there is no such run folder or metrics card")
        return load_card(given)
    path, command = given / "metrics" / f"{split}.json", f"textvae evaluate {given} --split {split}"
    if not path.exists():
        raise UserError(f"{given} has no metrics for {split!r}: make them with {command}")
    try:
        card = load_card(path)
    except UserError as error:
        raise UserError(f"{error} with {command}") from error
    card = card if card["model"] != split else {**card, "model": given.resolve().name}
    probed = path.with_name(f"{split}-probe.json")
    if probed.exists():
        found = load_card(probed)
        card |= {key: found[key] for key in ("accuracy", "accuracy_se") if key in found}
    return card


def _is_number_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _number(key: str, digits: int) -> Callable[[Card], str]:
    def cell(card: Card) -> str:
        value = card.get(key)
        if value is None or not math.isfinite(value):
            return NONE
        return decimals(value, digits)

    return cell


def _latent(cell: Callable[[Card], str], encoder: str | None = None) -> Callable[[Card], str]:
    """A cell that says nothing where there is no z, and has the encoder's own value in brackets
    where the posterior was refined."""

    def shown(card: Card) -> str:
        if card.get("latent_dim") == 0:
            return NONE
        own = cell({encoder[8:]: card.get(encoder)}) if encoder else NONE
        return cell(card) if own == NONE else f"{cell(card)} ({own})"

    return shown


def _without_words(cell: Callable[[Card], str]) -> Callable[[Card], str]:
    """A cell of examples that have no words to count a perplexity by."""
    return lambda card: cell(card) if card.get("units") == 0 else NONE


def _accuracy(card: Card) -> str:
    if card.get("accuracy") is None:
        return NONE
    share, error = (100 * (card.get(key) or 0) for key in ("accuracy", "accuracy_se"))
    return f"{share:.2f} ± {error:.2f}"


# header, cell, whether the column stays when no card has a value
_COLUMNS: tuple[tuple[str, Callable[[Card], str], bool], ...] = (
    ("model", lambda card: str(card.get("model") or NONE).replace("|", r"\|"), True),
    ("z", _latent(_number("latent_dim", 0)), True),
    ("PPL (ELBO)", _number("ppl_elbo", 2), False),
    ("PPL (IW)", _number("ppl_iw", 2), False),
    ("bits/byte (IW)", _number("bits_per_byte_iw", 3), False),
    ("bits/dim (IW)", _without_words(_number("bits_per_dim_iw", 4)), False),
    ("rec", _number("rec", 2), True),
    ("ELBO", _number("elbo", 2), True),
    ("IW", _number("iw", 2), True),
    ("KL", _latent(_number("kl", 2), "encoder_kl"), True),
    ("MI", _latent(_number("mi", 2), "encoder_mi"), True),
    ("AU", _latent(_number("au", 0), "encoder_au"), True),
    ("gap", _latent(_number("gap", 2)), False),
    ("shuffle gap", _latent(_number("shuffle_gap", 2)), False),
    ("accuracy %", _accuracy, False),
    ("BLEU", _number("bleu", 3), False),
    ("self-BLEU", _number("self_bleu", 3), False),
)
_NUMBERS = (
    *("latent_dim", "ppl_elbo", "ppl_iw", "bits_per_byte_iw", "rec", "elbo", "iw", "kl", "mi"),
    *("mi_max", "au", "au_threshold", "shuffle_gap", "bleu", "self_bleu", "count", "units"),
    *("samples", "encoder_kl", "encoder_mi", "encoder_au", "gap", "bits_per_dim_iw"),
    *("accuracy", "accuracy_se"),
)


def compare(cards: Sequence[Card]) -> str:
    """The table of a paper in Markdown, one row per card in the order given, with its units below
    it and a warning where the cards do not count the same text."""
    if not cards:
        raise UserError("nothing to compare: give one or more run folders or cards")
    columns = []
    for header, cell, always in _COLUMNS:
        cells = [cell(card) for card in cards]
        if always or any(text != NONE for text in cells):
            columns.append([header, *cells])
    widths = [max(map(len, column)) for column in columns]
    lines = [_line(row, widths) for row in zip(*columns, strict=True)]
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([lines[0], rule + "|", *lines[1:], "", *_notes(cards)]) + "\n"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0])]
    cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
    return "| " + " | ".join(cells) + " |"


def _notes(cards: Sequence[Card]) -> list[str]:
    latent = [card for card in cards if card.get("latent_dim") != 0]  # K means nothing without z

    def all_of(key: str, digits: int = 0, cards: Sequence[Card] = cards) -> str:
        values = {f"{card[key]:,.{digits}f}" for card in cards if card.get(key) is not None}
        return " / ".join(sorted(values)) or NONE

    lines = [
        "rec, ELBO, IW, KL, MI: nats per example; ELBO and IW are lower bounds of log p(x). "
        f"{'' if _are_images(cards) else 'PPL: per word and end of sentence. '}"
        f"IW with K = {all_of('samples', cards=latent)}; MI at most {all_of('mi_max', 2, latent)}; "
        f"AU: variance of a mean >= {all_of('au_threshold', 2)}.",
    ]
    if any(card.get("encoder_au") is not None for card in cards):
        lines.append(
            "In brackets: the encoder's own q(z|x), before refinement, and gap: what that adds to "
            "its ELBO."
        )
    if any(card.get("accuracy") is not None for card in cards):
        lines.append(
            "Accuracy: a classifier of two layers on posterior means, with standard error."
        )
    for key, name in (("count", "examples"), ("units", "words and ends of sentence")):
        if "/" in all_of(key):
            lines.append(f"**Not comparable**: the cards count different {name} ({all_of(key)}).")
    return lines


def _are_images(cards: Sequence[Card]) -> bool:
    return all(card.get("units") == 0 for card in cards)


def render_card(card: Card) -> str:
    """One card as plain text: the bounds; the same per word, token and byte; the latent; text."""

    def show(key: str, digits: int = 2) -> str:
        return _number(key, digits)(card)

    width = 12
    names = ("rec", "kl", "elbo", "iw")
    head = "".join(name.rjust(width) for name in names)
    lines = [
        f"{'':12}{head}",
        f"{'nats/example':12}{''.join(show(name).rjust(width) for name in names)}",
        "",
    ]
    rates = {
        "ppl/word": ("ppl", 2),
        "ppl/token": ("ppl_token", 2),
        "bits/byte": ("bits_per_byte", 3),
    }
    if _are_images([card]):
        rates = {"bits/dim": ("bits_per_dim", 4)}
    lines.append(f"{'':12}{''.join(name.rjust(width) for name in rates)}")
    for name in ("elbo", "iw"):
        cells = (show(f"{key}_{name}", digits) for key, digits in rates.values())
        lines.append(f"by {name:9}{''.join(text.rjust(width) for text in cells)}")
    lines += ["", *_latent_lines(card, show), *_closing_lines(card, show)]
    return "\n".join(lines) + "\n"


def _closing_lines(card: Card, show: Callable[..., str]) -> list[str]:
    """Text quality, what was counted, and the warning."""
    lines = []
    if card.get("bleu") is not None or card.get("self_bleu") is not None:
        lines.append(
            f"text: reconstruction BLEU {show('bleu', 3)}, distinct-1 {show('distinct_1', 3)}, "
            f"distinct-2 {show('distinct_2', 3)}, self-BLEU {show('self_bleu', 3)}"
        )
    symbols = (
        f"{show('units', 0)} words and ends of sentence (ppl/word), {show('tokens', 0)} tokens"
    )
    if _are_images([card]):
        symbols = f"{show('tokens', 0)} pixels"
    lines.append(
        f"{show('count', 0)} examples, {symbols}; "
        f"elbo = rec - kl <= iw (K = {show('samples', 0)}) <= log p(x)"
    )
    if card.get("collapse"):
        lines += ["", f"warning: {card['collapse']}"]
    return lines


def _latent_lines(card: Card, show: Callable[..., str]) -> list[str]:
    if card.get("latent_dim") == 0:
        return ["no latent: elbo and iw are log p(x) itself"]
    lines = [
        f"latent: MI {show('mi')} ± {show('mi_se')} nats (at most {show('mi_max')}), "
        f"KL(q(z)||p) {show('marginal_kl')}",
        f"        {show('au', 0)} of {show('latent_dim', 0)} units active at {show('au_threshold')}"
        f", {show('au_02', 0)} at 0.02",
    ]
    if card.get("shuffle_gap") is not None:
        lines.append(f"        the z of another example costs {show('shuffle_gap')} nats")
    if card.get("encoder_au") is not None:
        lines.append(
            f"        before refinement: ELBO {show('encoder_elbo')} (gap {show('gap')}), KL "
            f"{show('encoder_kl')}, MI {show('encoder_mi')}, {show('encoder_au', 0)} units active"
        )
    if card.get("elbo_by_step"):
        steps = card["elbo_by_step"]
        lines += ["", f"ELBO after 0 to {len(steps) - 1} refinement steps:"]
        rows = (steps[start : start + 7] for start in range(0, len(steps), 7))
        lines += ["".join(f"{elbo:10.2f}" for elbo in row) for row in rows]
    return lines
