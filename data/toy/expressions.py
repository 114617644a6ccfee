"""Probabilistic regular expressions over words, with exact probabilities and entropies.

An expression denotes a distribution over word sequences:

- ``Literal``   a fixed sequence, with probability 1;
- ``Sequence``  its parts, drawn independently one after another;
- ``Choice``    option k with probability w_k;
- ``Slot``      a name that has to be bound to another expression before use.

A derivation d is the list of options chosen; p(d) is the product of their weights. Several
derivations may spell the same words. With S(e, i, j) the probability that e spells words i..j,

    S(Literal, i, j)  = [words i..j are the literal]
    S(Sequence, i, j) = sum over cuts i = c_0 <= ... <= c_n = j of  prod_k S(part_k, c_{k-1}, c_k)
    S(Choice, i, j)   = sum_k w_k S(option_k, i, j)

the probability of a text is S(e, 0, n), which sums over all its derivations by dynamic programming.
The entropy of the derivation is computed exactly, without any text:

    H(Literal) = 0,   H(Sequence) = sum H(part),   H(Choice) = H(w) + sum_k w_k H(option_k).
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

Memo = dict[tuple[int, int], dict[int, float]]


class NotationError(ValueError):
    """The text files of the grammar are malformed."""


# eq=False throughout: expressions are shared and memoized by identity.
@dataclass(eq=False)
class Literal:
    """A fixed sequence of words."""

    words: tuple[str, ...]

    def sample(self, rng: random.Random, out: list[str]) -> float:
        """Append sampled words to ``out``; return the log-probability of the derivation."""
        out.extend(self.words)
        return 0.0

    def ends(self, words: tuple[str, ...], start: int, memo: Memo) -> dict[int, float]:
        """Return the probability of spelling ``words[start:end]`` for every possible end."""
        end = start + len(self.words)
        return {end: 1.0} if words[start:end] == self.words else {}

    def bind(self, slots: Mapping[str, Expression]) -> Expression:
        """Replace slots by the expressions with their names."""
        return self

    vocabulary = cached_property(lambda self: frozenset(self.words))
    slots = frozenset()
    entropy = 0.0
    mean_words = cached_property(lambda self: float(len(self.words)))


@dataclass(eq=False)
class Sequence:
    """Independent parts, one after another."""

    parts: tuple[Expression, ...]

    def sample(self, rng: random.Random, out: list[str]) -> float:
        """Append sampled words to ``out``; return the log-probability of the derivation."""
        return math.fsum([part.sample(rng, out) for part in self.parts])

    def ends(self, words: tuple[str, ...], start: int, memo: Memo) -> dict[int, float]:
        """Return the probability of spelling ``words[start:end]`` for every possible end."""
        reached = {start: 1.0}
        for part in self.parts:
            onward: dict[int, float] = {}
            for middle, p in reached.items():
                for end, q in part.ends(words, middle, memo).items():
                    onward[end] = onward.get(end, 0.0) + p * q
            if not onward:
                return onward
            reached = onward
        return reached

    def bind(self, slots: Mapping[str, Expression]) -> Expression:
        """Replace slots by the expressions with their names."""
        if self.slots.isdisjoint(slots):
            return self
        return Sequence(tuple(part.bind(slots) for part in self.parts))

    vocabulary = cached_property(lambda self: _union(part.vocabulary for part in self.parts))
    slots = cached_property(lambda self: _union(part.slots for part in self.parts))
    entropy = cached_property(lambda self: math.fsum(part.entropy for part in self.parts))
    mean_words = cached_property(lambda self: math.fsum(part.mean_words for part in self.parts))


@dataclass(eq=False)
class Choice:
    """One of several options, with weights that are normalized; equal weights by default."""

    options: tuple[Expression, ...]
    weights: tuple[float, ...] = ()
    cumulative: list[float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights = self.weights or (1.0,) * len(self.options)
        total = math.fsum(weights)
        self.weights = tuple(weight / total for weight in weights)
        self.cumulative = list(accumulate(self.weights))

    def draw(self, rng: random.Random) -> int:
        """Choose an option at random and return its index."""
        # Only rng.random() is guaranteed to be the same in all Python versions.
        return min(bisect_right(self.cumulative, rng.random()), len(self.options) - 1)

    def sample(self, rng: random.Random, out: list[str]) -> float:
        """Append sampled words to ``out``; return the log-probability of the derivation."""
        k = self.draw(rng)
        return math.log(self.weights[k]) + self.options[k].sample(rng, out)

    def ends(self, words: tuple[str, ...], start: int, memo: Memo) -> dict[int, float]:
        """Return the probability of spelling ``words[start:end]`` for every possible end."""
        key = (id(self), start)
        if key in memo:
            return memo[key]
        reached: dict[int, float] = {}
        for weight, option in zip(self.weights, self.options, strict=True):
            for end, q in option.ends(words, start, memo).items():
                reached[end] = reached.get(end, 0.0) + weight * q
        memo[key] = reached
        return reached

    def bind(self, slots: Mapping[str, Expression]) -> Expression:
        """Replace slots by the expressions with their names."""
        if self.slots.isdisjoint(slots):
            return self
        return Choice(tuple(option.bind(slots) for option in self.options), self.weights)

    vocabulary = cached_property(lambda self: _union(o.vocabulary for o in self.options))
    slots = cached_property(lambda self: _union(option.slots for option in self.options))

    @cached_property
    def entropy(self) -> float:
        """H(derivation) in nats."""
        return entropy_of(self.weights) + self._mean(option.entropy for option in self.options)

    @cached_property
    def mean_words(self) -> float:
        """Expected number of words."""
        return self._mean(option.mean_words for option in self.options)

    def _mean(self, values: Iterable[float]) -> float:
        return math.fsum(w * value for w, value in zip(self.weights, values, strict=True))


@dataclass(eq=False)
class Slot:
    """A name to be bound; until then, there is nothing to sample or compute."""

    name: str
    vocabulary = frozenset()
    entropy = math.nan
    mean_words = math.nan

    def sample(self, rng: random.Random, out: list[str]) -> float:
        """Refuse: the slot has not been bound."""
        raise NotationError(f"nothing fills <{self.name}>")

    def ends(self, words: tuple[str, ...], start: int, memo: Memo) -> dict[int, float]:
        """Refuse: the slot has not been bound."""
        raise NotationError(f"nothing fills <{self.name}>")

    def bind(self, slots: Mapping[str, Expression]) -> Expression:
        """Replace slots by the expressions with their names."""
        return slots.get(self.name, self)

    slots = cached_property(lambda self: frozenset([self.name]))


Expression = Literal | Sequence | Choice | Slot


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)


def entropy_of(probabilities: Iterable[float]) -> float:
    """Compute H(p) = -sum p log p in nats."""
    return 0.0 - math.fsum(p * math.log(p) for p in probabilities if p > 0.0)


# --- notation: words, {a|b@3|} for choices with weights, <name> for slots -----------------------

_TOKEN = re.compile(r"[{}|]|@\d+|<[a-z]+>|[^\s{}|@<>]+")
_WEIGHT = re.compile(r"\s*@(\d+)\s*$")


def parse(notation: str) -> Expression:
    """Parse one line of notation, such as ``try {a|the@3} <thing>``."""
    tokens = _TOKEN.findall(notation)
    if "".join(tokens) != "".join(notation.split()):
        raise NotationError(f"unreadable notation: {notation!r}")
    expression, rest = _parse_sequence(tokens, 0)
    if rest != len(tokens):
        raise NotationError(f"stray {tokens[rest]!r} in {notation!r}")
    return expression


def parse_choice(lines: Iterable[str]) -> Expression:
    """Parse alternatives, one per line, each with an optional weight ``@n`` at the end."""
    options, weights = [], []
    for line in lines:
        weight = _WEIGHT.search(line)
        options.append(parse(_WEIGHT.sub("", line)))
        weights.append(float(weight[1]) if weight else 1.0)
    return options[0] if len(options) == 1 else Choice(tuple(options), tuple(weights))


def _parse_sequence(tokens: list[str], at: int) -> tuple[Expression, int]:
    parts: list[Expression] = []
    run: list[str] = []
    while at < len(tokens) and tokens[at] not in "|}" and tokens[at][0] != "@":
        token = tokens[at]
        if token[0] not in "{<":
            run.append(token)
            at += 1
            continue
        if run:
            parts.append(Literal(tuple(run)))
            run = []
        if token == "{":
            part, at = _parse_braces(tokens, at + 1)
        else:
            part, at = Slot(token[1:-1]), at + 1
        parts.append(part)
    if run or not parts:
        parts.append(Literal(tuple(run)))
    return (parts[0] if len(parts) == 1 else Sequence(tuple(parts))), at


def _parse_braces(tokens: list[str], at: int) -> tuple[Choice, int]:
    options, weights = [], []
    while True:
        option, at = _parse_sequence(tokens, at)
        options.append(option)
        weighted = at < len(tokens) and tokens[at][0] == "@"
        weights.append(float(tokens[at][1:]) if weighted else 1.0)
        at += weighted
        if at == len(tokens) or tokens[at] not in "|}":
            raise NotationError("a brace is not closed")
        at += 1
        if tokens[at - 1] == "}":
            return Choice(tuple(options), tuple(weights)), at
