"""How good and how varied generated text is; pure functions over lists of words.

* corpus BLEU-4 of reconstructions against their sources (Papineni et al. 2002), 0 to 1;
* distinct-n: different n-grams / all n-grams of a set of samples (Li et al. 2016);
* self-BLEU: mean BLEU-4 of each sample against all the others (Zhu et al. 2018, Texygen): 1 when
  all samples are alike, so lower is more varied.

BLEU is nltk's, smoothed by its method 1: an n-gram order without a match counts 0.1 of one. (In
corpus BLEU nltk counts one missed 4-gram for every text of fewer than four words.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Words = Sequence[str]


def reconstruction_bleu(hypotheses: Sequence[Words], sources: Sequence[Words]) -> float | None:
    """Corpus BLEU of each hypothesis against its one source, 0 to 1; None without any.

    Raises:
        ValueError: not as many hypotheses as sources.
    """
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    if len(hypotheses) != len(sources):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(sources)} sources")
    longest = max(map(len, hypotheses), default=0)
    if not longest:
        return 0.0 if hypotheses else None
    order = min(4, longest)  # texts of fewer than four words have no 4-grams
    return float(
        corpus_bleu(
            [[list(source)] for source in sources],
            [list(hypothesis) for hypothesis in hypotheses],
            weights=[1 / order] * order,
            smoothing_function=SmoothingFunction().method1,
        )
    )


def distinct(samples: Sequence[Words], n: int) -> float | None:
    """Share of different n-grams among all n-grams, 0 to 1; None where there is no n-gram."""
    ngrams = [tuple(sample[i : i + n]) for sample in samples for i in range(len(sample) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def self_bleu(samples: Sequence[Words], max_samples: int = 200) -> float | None:
    """Mean BLEU of each sample against all others, 0 to 1; None with fewer than two.

    The work grows with the square of the number of samples: the first ``max_samples`` are used,
    and figures compare only between sets of the same size.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    samples = [list(sample) for sample in samples[:max_samples]]
    if len(samples) < 2:
        return None
    smoothing = SmoothingFunction().method1
    scores = []
    for i, sample in enumerate(samples):
        others = samples[:i] + samples[i + 1 :]
        if not sample:  # nltk gives 0 to an empty text, though two of them are alike
            scores.append(float(any(not other for other in others)))
            continue
        score = sentence_bleu(others, sample, smoothing_function=smoothing, auto_reweigh=True)
        scores.append(float(score))
    return sum(scores) / len(scores)


def text_quality(
    texts: Sequence[str],
    *,
    reconstruct: Callable[[Sequence[str]], Sequence[str]],
    sample: Callable[[int], Sequence[str]],
    split: Callable[[str], list[str]] = str.split,
    max_texts: int = 1000,
    samples: int = 200,
) -> dict[str, Any]:
    """The card's text keys: ``bleu``, ``distinct_1``, ``distinct_2``, ``self_bleu`` and the numbers
    of texts behind them, ``bleu_texts`` and ``sampled``.

    Args:
        texts: sources to reconstruct; the first ``max_texts`` are used.
        reconstruct: texts -> their greedy reconstructions; ``sample``: n -> n samples.
        split: a text -> its words; decoded and source text pass through the same one.
    """
    sources = list(texts[:max_texts])
    hypotheses = [split(text) for text in reconstruct(sources)] if sources else []
    drawn = [split(text) for text in sample(samples)] if samples else []
    return {
        "bleu": reconstruction_bleu(hypotheses, [split(text) for text in sources]),
        "distinct_1": distinct(drawn, 1),
        "distinct_2": distinct(drawn, 2),
        "self_bleu": self_bleu(drawn),
        "bleu_texts": len(sources),
        "sampled": len(drawn),
    }
