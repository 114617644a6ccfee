"""Quality and diversity of generated text: pure functions over lists of words.

* corpus BLEU-4 of reconstructions against their sources (Papineni et al. 2002), from 0 to 1;
* exact: the share of reconstructions that equal their source;
* distinct-n: distinct n-grams / all n-grams of a set of samples (Li et al. 2016);
* self-BLEU: mean BLEU-4 of each sample against all others (Zhu et al. 2018, Texygen): 1 if all
  samples are the same, so lower is more diverse.

Both are smoothed as by nltk's method 1: an order of n-grams without a match counts as 0.1 matches.
BLEU is computed here, because nltk counts a missed 4-gram for every text of fewer than four words,
so that perfect reconstructions would not have a BLEU of 1, and because it would count the n-grams
of every sample again for each of the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

Words = Sequence[str]
ORDERS = (1, 2, 3, 4)
NO_MATCH = 0.1  # smoothing method 1


def reconstruction_bleu(hypotheses: Sequence[Words], sources: Sequence[Words]) -> float | None:
    """Compute the corpus BLEU of hypotheses, each against its source.

    Args:
        hypotheses: The words of each reconstruction.
        sources: The words of each source.

    Returns:
        BLEU from 0 to 1; None if there are no texts.

    Raises:
        ValueError: If the numbers of hypotheses and sources differ.
    """
    if len(hypotheses) != len(sources):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(sources)} sources")
    if not hypotheses:
        return None
    matches, possible = [], []
    for order in ORDERS:
        pairs = [
            (_ngrams(hypothesis, order), _ngrams(source, order))
            for hypothesis, source in zip(hypotheses, sources, strict=True)
        ]
        matches.append(sum((found & wanted).total() for found, wanted in pairs))
        possible.append(sum(found.total() for found, _ in pairs))
    return _bleu(matches, possible, sum(map(len, hypotheses)), sum(map(len, sources)))


def distinct(samples: Sequence[Words], n: int) -> float | None:
    """Compute the fraction of n-grams that are distinct, from 0 to 1; None if there are none."""
    ngrams = [tuple(sample[i : i + n]) for sample in samples for i in range(len(sample) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def self_bleu(samples: Sequence[Words], max_samples: int = 200) -> float | None:
    """Compute the mean BLEU of each sample against all others.

    Args:
        samples: The words of each sample.
        max_samples: Maximum number of samples used. The more there are, the higher the value: only
            compare sets of the same size.

    Returns:
        Self-BLEU from 0 to 1; None if there are fewer than two samples.
    """
    samples = samples[:max_samples]
    if len(samples) < 2:
        return None
    counts = [[_ngrams(sample, order) for sample in samples] for order in ORDERS]
    matches = zip(*map(_matches, counts), strict=True)
    possible = zip(*([c.total() for c in of_order] for of_order in counts), strict=True)
    lengths = [len(sample) for sample in samples]
    scores = []
    for i, (found, n) in enumerate(zip(matches, possible, strict=True)):
        others = lengths[:i] + lengths[i + 1 :]
        closest = min(others, key=lambda other: (abs(other - lengths[i]), other))
        scores.append(_bleu(found, n, lengths[i], closest))
    return sum(scores) / len(scores)


def _ngrams(words: Words, order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def _matches(texts: Sequence[Counter[tuple[str, ...]]]) -> list[int]:
    """Count each text's n-grams, every one at most as often as any other text has it."""
    largest: Counter[tuple[str, ...]] = Counter()
    second: Counter[tuple[str, ...]] = Counter()
    for counts in texts:
        for ngram, count in counts.items():
            second[ngram] = max(second[ngram], min(count, largest[ngram]))
            largest[ngram] = max(largest[ngram], count)
    return [
        sum(
            min(count, second[ngram] if count == largest[ngram] else largest[ngram])
            for ngram, count in counts.items()
        )
        for counts in texts
    ]


def _bleu(
    matches: Sequence[int], possible: Sequence[int], length: int, reference_length: int
) -> float:
    """Compute BLEU from the matches of each order.

    Args:
        matches: N-grams of each order that the references have as well.
        possible: All n-grams of each order.
        length: Number of words.
        reference_length: Number of words in the references.
    """
    from nltk.translate.bleu_score import brevity_penalty

    if not length:  # an empty text is only like another empty one
        return float(not reference_length)
    if not matches[0]:
        return 0.0
    pairs = [(found, n) for found, n in zip(matches, possible, strict=True) if n]
    mean = math.fsum(math.log((found or NO_MATCH) / n) for found, n in pairs) / len(pairs)
    return float(brevity_penalty(reference_length, length) * math.exp(mean))


def _equal(hypotheses: Sequence[Words], sources: Sequence[Words]) -> float | None:
    pairs = list(zip(hypotheses, sources, strict=True))
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def text_quality(
    texts: Sequence[str],
    *,
    reconstruct: Callable[[Sequence[str]], Sequence[str]],
    sample: Callable[[int], Sequence[str]],
    split: Callable[[str], list[str]] = str.split,
    samples: int = 200,
) -> dict[str, Any]:
    """Compute the text metrics of the metrics card.

    Args:
        texts: Sources to reconstruct.
        reconstruct: Maps texts to their greedy reconstructions.
        sample: Maps n to n samples.
        split: Splits a text into words; applied to generated texts and sources alike.
        samples: Number of samples.

    Returns:
        ``bleu``, ``exact``, ``distinct_1``, ``distinct_2``, ``self_bleu``, and the numbers of texts
        they were computed from, ``bleu_texts`` and ``sampled``.
    """
    sources = list(texts)
    hypotheses = [split(text) for text in reconstruct(sources)] if sources else []
    originals = [split(text) for text in sources]
    drawn = [split(text) for text in sample(samples)] if samples else []
    return {
        "bleu": reconstruction_bleu(hypotheses, originals),
        "exact": _equal(hypotheses, originals),
        "distinct_1": distinct(drawn, 1),
        "distinct_2": distinct(drawn, 2),
        "self_bleu": self_bleu(drawn),
        "bleu_texts": len(sources),
        "sampled": len(drawn),
    }
