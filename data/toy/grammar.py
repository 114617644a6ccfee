"""The toy corpus as an exact distribution: questions and answers from a probabilistic grammar.

A document x is drawn from four global factors f and many local choices:

    topic ~ p(topic),  subject ~ p(subject | topic),  intent ~ p(intent),  tone ~ p(tone)
    scene ~ Uniform(scenes of that subject and intent)       (a task with its tips, a problem ...)
    x     ~ document expression of (subject, scene, intent, tone)

The last line is a probabilistic regular expression (see ``expressions``), so the following are
exact:

    p(x)      = sum_f p(f) p(x | f),   also summed over scenes and derivations
    p(f | x)  = p(f) p(x | f) / p(x)
    H(f)      = H(topic) + H(subject | topic) + H(intent) + H(tone)
    I(x; f)   = H(f) - E_x[H(f | x)]

Words are in ``lexicon/<topic>.txt``, sentence frames in ``frames.txt``.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import product
from operator import and_
from pathlib import Path
from typing import NamedTuple

from expressions import Choice, Expression, Memo, entropy_of
from scenes import Frames, Topic, Turns, read_frames, read_topic

HERE = Path(__file__).resolve().parent
CODE = ("expressions.py", "scenes.py", "grammar.py")

TOPICS = {
    "cooking": 14,
    "computers": 14,
    "pets": 12,
    "travel": 11,
    "fitness": 11,
    "gardening": 10,
    "music": 9,
    "cars": 8,
    "money": 6,
    "astronomy": 5,
}
SUBJECT_WEIGHTS = (28, 24, 20, 16, 12)  # in the order of the lexicon file
SUBJECTS = len(SUBJECT_WEIGHTS)  # of every topic
INTENTS = {
    "how-to": 28,
    "why": 22,
    "recommendation": 16,
    "opinion": 14,
    "definition": 12,
    "comparison": 8,
}
TONES = {"casual": 30, "polite": 26, "grumpy": 16, "enthusiastic": 16, "worried": 12}


class Factors(NamedTuple):
    """The global factors f of a document."""

    topic: str
    subject: str
    intent: str
    tone: str


class Scored(NamedTuple):
    """What the grammar knows about a text: log p(x) and the posterior of the factors."""

    log_prob: float
    posterior: dict[Factors, float]


@dataclass
class Cell:
    """One combination of factors and scene: its probability and the documents it can spell."""

    factors: Factors
    prob: float
    document: Expression


class Grammar:
    """A distribution over documents: samples, p(x), p(f | x) and H(f).

    Args:
        frames: The sentence frames.
        topics: The topics with their scenes.
        version: Identifies everything that defines the grammar.
    """

    def __init__(self, frames: Frames, topics: list[Topic], version: str = "") -> None:
        self.version = version
        self.p_topic = normalized({topic.name: TOPICS[topic.name] for topic in topics})
        self.p_subject = {topic.name: _subject_weights(topic) for topic in topics}
        self.p_intent = normalized(INTENTS)
        self.p_tone = normalized(TONES)
        self.cells = list(self._cells(frames, topics))
        # The whole grammar as one expression: first the cell, then its document.
        self.root = Choice(
            tuple(cell.document for cell in self.cells), tuple(cell.prob for cell in self.cells)
        )

    @classmethod
    def load(cls, folder: Path = HERE, subjects: int = SUBJECTS) -> Grammar:
        """Load the grammar of the corpus; its version is a digest of everything that defines it.

        Args:
            folder: Where the frames and the lexicon are.
            subjects: Only the first subjects of every topic are used.
        """
        frames = (folder / "frames.txt").read_text(encoding="utf-8")
        lexicon = {
            name: (folder / "lexicon" / f"{name}.txt").read_text(encoding="utf-8")
            for name in TOPICS
        }
        code = [(HERE / name).read_text(encoding="utf-8") for name in CODE]
        digest = hashlib.sha256("\0".join([frames, *lexicon.values(), *code]).encode("utf-8"))
        topics = [read_topic(name, text) for name, text in lexicon.items()]
        for topic in topics:
            del topic.subjects[subjects:]
        version = digest.hexdigest()[:16] + (f"-{subjects}" if subjects < SUBJECTS else "")
        return cls(read_frames(frames), topics, version)

    def _cells(self, frames: Frames, topics: list[Topic]) -> Iterator[Cell]:
        turns = Turns(frames)
        for topic in topics:
            for subject in topic.subjects:
                for intent, scenes in subject.scenes.items():
                    for scene, tone in product(scenes, TONES):
                        factors = Factors(topic.name, subject.name, intent, tone)
                        document = turns.document(topic, scene, intent, tone)
                        yield Cell(factors, self.prior(factors) / len(scenes), document)

    # --- the factors ----------------------------------------------------------------------------

    def prior(self, factors: Factors) -> float:
        """Compute p(f) = p(topic) p(subject | topic) p(intent) p(tone)."""
        return (
            self.p_topic[factors.topic]
            * self.p_subject[factors.topic][factors.subject]
            * self.p_intent[factors.intent]
            * self.p_tone[factors.tone]
        )

    @cached_property
    def factor_entropies(self) -> dict[str, float]:
        """Entropy of each factor in nats, for the subject given its topic; they add up to H(f)."""
        subject = math.fsum(
            p * entropy_of(self.p_subject[topic].values()) for topic, p in self.p_topic.items()
        )
        return {
            "topic": entropy_of(self.p_topic.values()),
            "subject": subject,
            "intent": entropy_of(self.p_intent.values()),
            "tone": entropy_of(self.p_tone.values()),
        }

    @property
    def factor_entropy(self) -> float:
        """H(f) in nats: the most that a latent code could know about the factors."""
        return math.fsum(self.factor_entropies.values())

    # --- texts ----------------------------------------------------------------------------------

    def sample(self, rng: random.Random) -> tuple[str, Factors, float]:
        """Sample a text, its factors, and the log-probability of this derivation."""
        k = self.root.draw(rng)
        words: list[str] = []
        log_prob = self.cells[k].document.sample(rng, words)
        return " ".join(words), self.cells[k].factors, log_prob + math.log(self.cells[k].prob)

    def score(self, text: str) -> Scored:
        """Compute log p(x) and p(f | x), summing over all cells and derivations of the text."""
        words = tuple(text.split())
        memo: Memo = {}
        joint: dict[Factors, float] = {}
        for cell in self._candidates(words):
            p = cell.prob * cell.document.ends(words, 0, memo).get(len(words), 0.0)
            if p > 0.0:
                joint[cell.factors] = joint.get(cell.factors, 0.0) + p
        total = math.fsum(joint.values())
        if total == 0.0:
            return Scored(-math.inf, {})
        return Scored(math.log(total), {factors: p / total for factors, p in joint.items()})

    def _candidates(self, words: tuple[str, ...]) -> Iterator[Cell]:
        """The cells whose vocabulary has every word; all others give the text probability 0."""
        everyone = (1 << len(self.cells)) - 1
        found = reduce(and_, (self._owners.get(word, 0) for word in words), everyone)
        while found:
            lowest = found & -found
            yield self.cells[lowest.bit_length() - 1]
            found ^= lowest

    @cached_property
    def _owners(self) -> dict[str, int]:
        """For each word, the set of cells that can say it, as the bits of an integer."""
        owners: dict[str, int] = {}
        for k, cell in enumerate(self.cells):
            for word in cell.document.vocabulary:
                owners[word] = owners.get(word, 0) | 1 << k
        return owners


def normalized(weights: Mapping[str, float]) -> dict[str, float]:
    """Divide weights by their sum."""
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _subject_weights(topic: Topic) -> dict[str, float]:
    names = (subject.name for subject in topic.subjects)
    return normalized(dict(zip(names, SUBJECT_WEIGHTS, strict=False)))
