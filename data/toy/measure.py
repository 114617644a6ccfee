"""What the grammar says about the text of a model: is it well-formed, does it keep its topic?

    python data/toy/measure.py runs/toy/lm runs/toy/vae runs/toy/skip_vae-*

Prints a Markdown table with one row per run:

* ``topic kept``: share of test documents whose reconstruction has the topic of its source;
* ``derivable``: share of the texts that the grammar can produce: of the reconstructions, of the
  five texts on the way from one test document to the next, of samples from the prior, and, if a
  sampler has been fitted, of samples from the aggregate posterior; one wrong word in a text is
  enough to fail;
* ``word pairs``: share of the pairs of neighboring words that occur in the training split.

The topic of a text is the most probable one under p(topic | x) if the grammar can derive the text.
Otherwise it is the topic whose words it uses: every word that n of the N topics can say gives
each of these ln(N / n) points. A tie does not count.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path

from grammar import TOPICS, Grammar
from prepare import OneLineParser

BETWEEN = 5  # texts of an interpolation, without its ends


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
        """The most probable topic of a text; None if no word tells, or if several are as good."""
        posterior = self.grammar.score(text).posterior
        points: dict[str, float] = defaultdict(float)
        for factors, p in posterior.items():
            points[factors.topic] += p
        if not points:
            for word in text.split():
                topics = self.topics_of_word.get(word, ())
                for topic in topics:
                    points[topic] += math.log(len(TOPICS) / len(topics))
        most = max(points.values(), default=0.0)
        best = [topic for topic in points if points[topic] == most > 0]
        return best[0] if len(best) == 1 else None

    def topic_kept(self, pairs: Sequence[tuple[str, str]]) -> float:
        """Share of (source, reconstruction) pairs with one topic."""
        return sum(self.topic(source) == self.topic(text) for source, text in pairs) / len(pairs)

    def derivable(self, texts: Sequence[str]) -> float:
        """Share of the texts that the grammar can produce."""
        scores = [self.grammar.score(text).log_prob for text in texts]
        return sum(map(math.isfinite, scores)) / len(texts)

    def known_pairs(self, texts: Sequence[str]) -> float:
        """Share of the pairs of neighboring words that occur in the corpus."""
        pairs = [pair for text in texts for pair in pairwise(_words(text))]
        return sum(pair in self.bigrams for pair in pairs) / len(pairs)


def _words(text: str) -> list[str]:
    return ["<s>", *text.split(), "</s>"]


def read_texts(path: Path) -> list[str]:
    """Reads the documents of a split."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


@cache
def judge_of(data: Path) -> Judge:
    """Returns the judge of a prepared corpus."""
    card = json.loads((data / "grammar.json").read_text(encoding="utf-8"))
    return Judge(Grammar.load(subjects=card["subjects"]), read_texts(data / "train.jsonl"))


def measure(run: Path, judge: Judge, sources: Sequence[str], count: int) -> dict[str, float | None]:
    """Measures the reconstructions and the samples of a run.

    Args:
        run: A run folder.
        judge: The judge.
        sources: Texts to reconstruct.
        count: Number of samples.
    """
    import torch

    import textvae

    model = textvae.load(str(run))
    found: dict[str, float | None] = {}
    if model.latent_dim:
        texts = model.reconstruct(sources)
        found["topic kept"] = judge.topic_kept(list(zip(sources, texts, strict=True)))
        found["derivable (reconstructions)"] = judge.derivable(texts)
        stops = model.encode(sources[: max(2, count // BETWEEN + 1)]).center()
        ways = [model.path(a, b, BETWEEN + 2)[1:-1] for a, b in pairwise(stops)]
        found["derivable (interpolations)"] = judge.derivable(model.decode(torch.cat(ways)))
    texts = model.sample(count)
    found["derivable (samples)"] = judge.derivable(texts)
    found["word pairs (samples)"] = judge.known_pairs(texts)
    if model.sampler is not None:
        texts = model.sample(count, source="aggregate")
        found["derivable (aggregate)"] = judge.derivable(texts)
        found["word pairs (aggregate)"] = judge.known_pairs(texts)
    return found


def table(rows: dict[str, dict[str, float | None]]) -> str:
    """Formats figures by run as Markdown."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [f"| model | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    for name, row in rows.items():
        cells = ("–" if row.get(c) is None else f"{100 * row[c]:.1f}%" for c in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    parser = OneLineParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of the generated corpus")
    parser.add_argument("--data", type=Path, help="the corpus, if it has moved since training")
    parser.add_argument("--count", type=int, default=500, help="texts of each kind")
    args = parser.parse_args(argv)
    if not 1 <= args.count <= 10**6:
        parser.error("--count: must be a number of texts, at least 1")
    from textvae import Config, UserError

    try:
        rows = {}
        for run in args.runs:
            data = args.data or Path(Config.load(run / "config.yaml").data.dir)
            test = read_texts(data / "test.jsonl")[: args.count]
            name = run.resolve().name
            rows[str(run) if name in rows else name] = measure(
                run, judge_of(data), test, args.count
            )
    except UserError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        reason = f"{data} is not the generated corpus: pass its folder with --data"
    else:
        print(table(rows))
        return 0
    print(f"measure.py: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
