"""What ``textvae explain`` found, as text and as numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from unicodedata import combining, east_asian_width

import numpy as np

from textvae.errors import quantity
from textvae.evaluation.metrics.metric import MISSING, decimals
from textvae.evaluation.printed import Printed
from textvae.text.tokenizers import EOS, SPECIALS, Unit

END = SPECIALS[EOS]
BINS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, 20), (21, 50), (51, 10**9))
BEGINNING = 3  # words that z tends to memorize (Bosc & Vincent 2020)
COMMON = 5  # times that a word must occur to be listed
LISTED = 15  # words
WIDTH = 80  # of a line
NOTHING = 0.1  # nats per text, a share of which means nothing
CERTAIN = 2.0  # standard errors below a mean that it is almost certainly above
BLANKS = {" ": "␣", "\n": "\\n", "\t": "\\t", "\r": "\\r"}  # characters as words


@dataclass(frozen=True)
class ExplainedText:
    """The T words of a text, ``</s>`` included, and what z says about each.

    Attributes:
        spelling: (T,) the words, with the space before them, or the tokens.
        log_px: (T,) E_q(z|x)[log p(x_t | x_<t, z)] in nats.
        gain: (T,) what z adds to it, in nats.
    """

    spelling: list[str]
    log_px: np.ndarray
    gain: np.ndarray

    @property
    def words(self) -> list[str]:
        """The words without the space before them, or the tokens, (T,)."""
        return [spelled.strip(" ") or spelled for spelled in self.spelling]

    @property
    def cost(self) -> np.ndarray:
        """-log p(x_t | x_<t) in nats without this z, (T,)."""
        return self.gain - self.log_px

    def __str__(self) -> str:
        """Return the text in columns: the words, their cost without z, and what z gains."""
        rows = [map(_visible, self.words), map(_short, self.cost), map(_short, self.gain)]
        columns = [[str(cell) for cell in column] for column in zip(*rows, strict=True)]
        blocks: list[list[list[str]]] = [[]]
        for column in columns:
            if blocks[-1] and sum(map(_width, blocks[-1])) + _width(column) > WIDTH - 6:
                blocks.append([])
            blocks[-1].append(column)
        return "\n".join(_block(block) for block in blocks)


class Part(NamedTuple):
    """Some of the words of all texts: those at a position, or the occurrences of one of them."""

    name: str
    words: int  # how many
    cost: float  # nats per word without this z
    gain: float  # nats per word
    share: float | None  # of the gain of all words; None if the gain is too small or uncertain


@dataclass(frozen=True)
class Explanation(Printed):
    """Which words of N texts z predicts; ``print`` shows them by position and one by one.

    Attributes:
        texts: The texts.
        draws: Draws of z for each, and of other texts' z.
        name: Name of the model.
        split: What the texts are.
        over_baseline: Whether the gains are those over a language model; otherwise they are those
            over the z of other texts.
        dimensions: The dimensions of z that are those of other texts; None: all of them.
        unit: ``word``, or ``token`` if the figures are those of the tokenizer's tokens.
    """

    texts: Sequence[ExplainedText]
    draws: int
    name: str = ""
    split: str = ""
    over_baseline: bool = False
    dimensions: Sequence[int] | None = None
    unit: Unit = "word"

    @property
    def gain(self) -> float:
        """The mean gain of a text in nats: the shuffle gap, or rec - log p(x) of the baseline."""
        return float(self._gains.mean())

    @property
    def gain_se(self) -> float:
        """Its standard error over texts; NaN for a single one."""
        count = len(self.texts)
        return float(self._gains.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan

    @cached_property
    def _gains(self) -> np.ndarray:
        return np.array([text.gain.sum() for text in self.texts])

    @cached_property
    def _helps(self) -> bool:
        noise = CERTAIN * self.gain_se
        return self.gain > max(NOTHING, 0.0 if math.isnan(noise) else noise)

    def by_position(self) -> list[Part]:
        """Return the words at every position, counted from 1, then the ends of the texts."""
        found: dict[str, list[tuple[float, float]]] = {_position(*ends): [] for ends in BINS}
        for word, position, *values in self._words():
            found.setdefault(END if word == END else _place(position), []).append(tuple(values))
        return self._parts(found)

    def by_word(self, at_least: int = COMMON) -> list[Part]:
        """Return the words that occur so often, those first that certainly gain most each."""
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for word, _, *values in self._words():
            found[word].append(tuple(values))
        found.pop(END, None)
        common = {word: values for word, values in found.items() if len(values) >= at_least}
        ranked = sorted(common, key=lambda word: -_certain_gain(common[word]))
        return self._parts({word: common[word] for word in ranked})

    def beginning(self) -> Part | None:
        """Return the first words of all texts."""
        values = [
            tuple(rest)
            for word, position, *rest in self._words()
            if position <= BEGINNING and word != END
        ]
        return self._part(f"first {BEGINNING}", values) if values else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "model": self.name,
            "split": self.split,
            "count": len(self.texts),
            "draws": self.draws,
            "over": "baseline" if self.over_baseline else "z of other texts",
            "dimensions": self.dimensions,
            "unit": self.unit,
            "gain": self.gain,
            "gain_se": None if math.isnan(self.gain_se) else self.gain_se,
            "by_position": [part._asdict() for part in self.by_position()],
            "by_word": [part._asdict() for part in self.by_word()],
            "texts": [
                {"words": each.words, "cost": each.cost.tolist(), "gain": each.gain.tolist()}
                for each in self.texts
            ],
        }

    def __str__(self) -> str:
        """Return the tables, with what they mean."""
        title = ", ".join(filter(None, (self.name, self.split)))
        lines = [
            f"{title}{': ' if title else ''}{quantity(len(self.texts), 'text')}, {self._in_nats()}",
            "",
            *_table("position", self.by_position(), self.unit),
            "",
            self.in_words(),
        ]
        if self._helps and (common := self.by_word()[:LISTED]):
            lines += ["", *_table(f"{self.unit} ({COMMON} times or more)", common, self.unit)]
            lines += ["", "In the order of the gain minus two standard errors."]
        lines += ["", self.legend()]
        return "\n".join(lines) + "\n"

    def _in_nats(self) -> str:
        error = "" if math.isnan(self.gain_se) else f" ± {decimals(self.gain_se)}"
        figure = f"{decimals(self.gain)}{error} nats per text"
        if self.over_baseline:
            return f"the model gains {figure} over the language model"
        return f"{self._z} {'gain' if self._are_several else 'gains'} {figure} over another text's"

    def in_words(self) -> str:
        """Say in one sentence whether z is about the beginning of the texts."""
        part = self.beginning()
        if part is None or part.share is None:
            return "This gain is too small or too uncertain to explain."
        cost = sum(float(text.cost.sum()) for text in self.texts)
        return (
            f"{part.share:.0%} of the gain, and {part.cost * part.words / cost:.0%} of the "
            f"cost without it, is in the first {BEGINNING} {self.unit}s."
        )

    def legend(self) -> str:
        """Say what the columns mean."""
        if self.over_baseline:
            return (
                f"cost: nats per {self.unit} under the language model; gain: how much less it is "
                "for the model and the text's own z"
            )
        return (
            f"cost: nats per {self.unit} with another text's {self._z}; gain: how much less it is "
            "with the text's own"
        )

    @property
    def _z(self) -> str:
        if self.dimensions is None:
            return "z"
        names = " and ".join(map(str, self.dimensions))
        return f"dimension{'s' if self._are_several else ''} {names} of z"

    @property
    def _are_several(self) -> bool:
        return self.dimensions is not None and len(self.dimensions) > 1

    def _words(self) -> Iterable[tuple[Any, ...]]:
        for text in self.texts:
            figures = zip(text.words, text.cost.tolist(), text.gain.tolist(), strict=True)
            for position, (word, cost, gain) in enumerate(figures, start=1):
                yield word, position, cost, gain

    def _parts(self, values: dict[str, list[tuple[float, float]]]) -> list[Part]:
        return [self._part(name, some) for name, some in values.items() if some]

    def _part(self, name: str, values: list[tuple[float, float]]) -> Part:
        costs, gains = np.array(values).T
        share = None if not self._helps else float(gains.sum()) / (self.gain * len(self.texts))
        return Part(name, len(values), float(costs.mean()), float(gains.mean()), share)


def _certain_gain(values: Sequence[tuple[float, ...]]) -> float:
    """Return the mean of some gains, less the uncertainty of what rarely occurs."""
    gains = np.array([gain for _, gain in values])
    error = gains.std(ddof=1) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return float(gains.mean() - CERTAIN * error)


def _place(position: int) -> str:
    return next(_position(*ends) for ends in BINS if position <= ends[1])


def _position(first: int, last: int) -> str:
    if last == BINS[-1][1]:
        return f"{first} or later"
    return str(first) if first == last else f"{first} to {last}"


def _short(value: float) -> str:
    return decimals(float(value), 1)


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{decimals(100 * share, 1)}%"


def _visible(word: str) -> str:
    word = BLANKS.get(word, word)
    return "".join(c if c.isprintable() else "\ufffd" for c in word)


def _columns(text: str) -> int:
    """Return how wide a text is on a terminal: Chinese characters take two columns."""
    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in text)


def _width(column: Sequence[str]) -> int:
    return max(map(_columns, column)) + 2


def _block(columns: Sequence[Sequence[str]]) -> str:
    lines = []
    for name, row in zip(("", "cost", "gain"), zip(*columns, strict=True), strict=True):
        cells = [
            cell + " " * (_width(column) - _columns(cell))
            for cell, column in zip(row, columns, strict=True)
        ]
        lines.append(f"{name:6}{''.join(cells)}".rstrip())
    return "\n".join(lines)


def _table(name: str, parts: Sequence[Part], unit: Unit) -> list[str]:
    names = [_visible(part.name) for part in parts]
    width = max(map(_columns, [name, *names]))
    header = f"{unit + 's':>8}  {'cost':>6}  {'gain':>6}  {'share of the gain':>17}"
    lines = [f"{name:{width}}  {header}"]
    for shown, part in zip(names, parts, strict=True):
        lines.append(
            f"{shown}{' ' * (width - _columns(shown))}  {part.words:>8,}  "
            f"{decimals(part.cost):>6}  {decimals(part.gain):>6}  {_percent(part.share):>17}"
        )
    return lines
