"""What the grammar says about generated text: is it well-formed, and does it keep its topic?

    textvae sample RUN -n 500 --format jsonl > samples.jsonl
    textvae reconstruct RUN --file test.txt --format jsonl > reconstructions.jsonl
    python data/toy/measure.py --samples samples.jsonl --reconstructions reconstructions.jsonl

* ``derivable``: share of the samples to which the grammar gives a probability above 0, and their
  mean log p(x).
* ``bigrams``: share of the word pairs of the samples that the grammar can produce anywhere.
* ``topic_kept``: share of the reconstructions with the topic of their source.

The topic of a text is the most probable one under p(topic | x) if the grammar can derive the text.
Otherwise it is the topic whose words it uses: every word that n of the N topics can say gives
each of these ln(N / n) points.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from grammar import TOPICS, Grammar


class Judge:
    """Measures generated text with the grammar.

    Args:
        grammar: The grammar of the corpus.
        corpus: Documents of the grammar, for the word pairs that it can produce.
    """

    def __init__(self, grammar: Grammar, corpus: Sequence[str] = ()) -> None:
        self.grammar = grammar
        self.bigrams = {pair for text in corpus for pair in pairwise(_words(text))}

    @cached_property
    def topics_of_word(self) -> dict[str, set[str]]:
        """The topics that can say each word."""
        found: dict[str, set[str]] = defaultdict(set)
        for cell in self.grammar.cells:
            for word in cell.document.vocabulary:
                found[word].add(cell.factors.topic)
        return found

    def topic(self, text: str) -> str | None:
        """The most probable topic of a text; None if no word tells."""
        posterior = self.grammar.score(text).posterior
        points: dict[str, float] = defaultdict(float)
        for factors, p in posterior.items():
            points[factors.topic] += p
        if not points:
            for word in text.split():
                topics = self.topics_of_word.get(word, ())
                for topic in topics:
                    points[topic] += math.log(len(TOPICS) / len(topics))
        best = max(points, key=lambda topic: points[topic], default=None)
        return best if best is not None and points[best] > 0 else None

    def topic_kept(self, pairs: Sequence[tuple[str, str]]) -> float:
        """Share of (source, reconstruction) pairs with one topic."""
        return sum(self.topic(source) == self.topic(text) for source, text in pairs) / len(pairs)

    def well_formed(self, texts: Sequence[str]) -> dict[str, float | None]:
        """How much of some texts the grammar can derive."""
        scores = [self.grammar.score(text).log_prob for text in texts]
        derived = [score for score in scores if math.isfinite(score)]
        pairs = [pair for text in texts for pair in pairwise(_words(text))]
        known = sum(pair in self.bigrams for pair in pairs)
        return {
            "derivable": len(derived) / len(texts),
            "mean_log_p": math.fsum(derived) / len(derived) if derived else None,
            "bigrams": known / len(pairs) if self.bigrams and pairs else None,
        }


def _words(text: str) -> list[str]:
    return ["<s>", *text.split(), "</s>"]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads a JSON-lines file as ``textvae sample`` and ``textvae reconstruct`` write it."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the figures as one JSON object; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=Path, help="a .jsonl file with a text per line")
    parser.add_argument("--reconstructions", type=Path, help="a .jsonl file with source and text")
    parser.add_argument("--corpus", type=Path, help="train.jsonl, for the known word pairs")
    args = parser.parse_args(argv)
    try:
        corpus = [row["text"] for row in read_rows(args.corpus)] if args.corpus else []
        judge, found = Judge(Grammar.load(), corpus), {}
        if args.samples:
            found |= judge.well_formed([row["text"] for row in read_rows(args.samples)])
        if args.reconstructions:
            rows = read_rows(args.reconstructions)
            found["topic_kept"] = judge.topic_kept([(row["source"], row["text"]) for row in rows])
    except (OSError, ValueError, KeyError) as error:
        print(f"measure.py: {_reason(error)}", file=sys.stderr)
        return 2
    print(json.dumps(found))
    return 0


def _reason(error: Any) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return f"not a file that textvae wrote ({error})"


if __name__ == "__main__":
    sys.exit(main())
