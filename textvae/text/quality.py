"""Quality and diversity of generated text: pure functions over lists of words.

* corpus BLEU-4 of reconstructions against their sources (Papineni et al. 2002), from 0 to 1;
* exact: the share of reconstructions that equal their source;
* distinct-n: distinct n-grams / all n-grams of a set of samples (Li et al. 2016);
* self-BLEU: mean BLEU-4 of each sample against all others (Zhu et al. 2018, Texygen): 1 if all
  samples are the same, so lower is more diverse.

BLEU is nltk's with smoothing method 1: an n-gram order without a match counts as 0.1 matches. (In
corpus BLEU, nltk counts one missed 4-gram for every text of fewer than four words.) Self-BLEU is
computed here, because nltk would count the n-grams of every sample again for each of the others.
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
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    if len(hypotheses) != len(sources):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(sources)} sources")
    longest = max(map(len, hypotheses), default=0)
    if not longest:
        return 0.0 if hypotheses else None
    order = min(4, longest)  # texts of fewer than four words have no 4-grams
    bleu: Any = corpus_bleu(
        [[list(source)] for source in sources],
        [list(hypothesis) for hypothesis in hypotheses],
        weights=[1 / order] * order,
        smoothing_function=SmoothingFunction().method1,
    )
    return float(bleu)


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
    matches = [_matches([_ngrams(sample, order) for sample in samples]) for order in ORDERS]
    lengths = [len(sample) for sample in samples]
    scores = [
        _bleu(length, lengths[:i] + lengths[i + 1 :], found)
        for i, (length, found) in enumerate(zip(lengths, zip(*matches, strict=True), strict=True))
    ]
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


def _bleu(length: int, others: Sequence[int], matches: Sequence[int]) -> float:
    """BLEU of a text from its matches of each order, with nltk's smoothing and brevity penalty."""
    from nltk.translate.bleu_score import brevity_penalty

    if not length:  # an empty text is only like another empty one
        return float(0 in others)
    if not matches[0]:
        return 0.0
    closest = min(others, key=lambda other: (abs(other - length), other))
    possible = [max(1, length - order + 1) for order in ORDERS]  # n-grams of the text
    precisions = [(found or NO_MATCH) / n for found, n in zip(matches, possible, strict=True)]
    logs = [math.log(precision) for precision in precisions[:length]]  # of the orders it has
    mean = math.fsum(1 / len(logs) * log for log in logs)
    return float(brevity_penalty(closest, length) * math.exp(mean))


def _equal(hypotheses: Sequence[Words], sources: Sequence[Words]) -> float | None:
    pairs = list(zip(hypotheses, sources, strict=True))
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def text_quality(
    texts: Sequence[str],
    *,
    reconstruct: Callable[[Sequence[str]], Sequence[str]],
    sample: Callable[[int], Sequence[str]],
    split: Callable[[str], list[str]] = str.split,
    max_texts: int = 1000,
    samples: int = 200,
) -> dict[str, Any]:
    """Compute the text metrics of the metrics card.

    Args:
        texts: Sources to reconstruct.
        reconstruct: Maps texts to their greedy reconstructions.
        sample: Maps n to n samples.
        split: Splits a text into words; applied to generated texts and sources alike.
        max_texts: Maximum number of texts that are reconstructed.
        samples: Number of samples.

    Returns:
        ``bleu``, ``exact``, ``distinct_1``, ``distinct_2``, ``self_bleu``, and the numbers of texts
        they were computed from, ``bleu_texts`` and ``sampled``.
    """
    sources = list(texts[:max_texts])
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
