"""BLEU, distinct-n and self-BLEU against values worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu

from textvae.text.quality import distinct, reconstruction_bleu, self_bleu, text_quality

DEFAULT = (0.25, 0.25, 0.25, 0.25)  # the weights that nltk adapts to short texts


def words(*texts):
    return [text.split() for text in texts]


def test_a_perfect_reconstruction_has_bleu_1():
    texts = words("a b c d e", "f g h i")
    assert reconstruction_bleu(texts, texts) == pytest.approx(1)


def test_short_perfect_reconstructions_have_bleu_1():
    assert reconstruction_bleu(words("a b", "c d"), words("a b", "c d")) == pytest.approx(1)


def test_bleu_by_hand():
    # matches of a b c d x in a b c d e: 4/5, 3/4, 2/3, 1/2
    expected = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert reconstruction_bleu(words("a b c d x"), words("a b c d e")) == pytest.approx(expected)


def test_bleu_punishes_brevity():
    bleu = reconstruction_bleu(words("a b c d"), words("a b c d e f g h"))
    assert bleu == pytest.approx(math.exp(1 - 8 / 4))


def test_bleu_is_pooled_over_the_corpus():
    # 1-grams 6/8, 2-grams 4/6, 3-grams 2/4, 4-grams 1/2: not the mean of two sentences' BLEU
    hypotheses, sources = words("a b c d", "e f x y"), words("a b c d", "e f g h")
    assert reconstruction_bleu(hypotheses, sources) == pytest.approx(
        (6 / 8 * 4 / 6 * 2 / 4 * 1 / 2) ** 0.25
    )


def test_perfect_reconstructions_of_short_and_long_texts_have_bleu_1():
    texts = words("yes", "a b", "c d e f g h")
    assert reconstruction_bleu(texts, texts) == pytest.approx(1)  # 0.93 by nltk


PAIR = st.tuples(*[st.lists(st.sampled_from("abcd"), min_size=4, max_size=8)] * 2)


@given(st.lists(PAIR, min_size=1, max_size=5))
def test_bleu_of_texts_of_at_least_four_words_is_that_of_nltk(pairs):
    hypotheses, sources = zip(*pairs, strict=True)
    smoothing = SmoothingFunction().method1
    expected = corpus_bleu([[x] for x in sources], hypotheses, DEFAULT, smoothing)
    assert reconstruction_bleu(hypotheses, sources) == pytest.approx(expected, rel=1e-12)


def test_bleu_of_nothing():
    assert reconstruction_bleu([], []) is None
    assert reconstruction_bleu([[], []], words("a b", "c d")) == 0.0
    assert reconstruction_bleu(words("x y z w v"), words("a b c d e")) == pytest.approx(0, abs=0.05)
    with pytest.raises(ValueError, match="1 hypotheses for 2 sources"):
        reconstruction_bleu(words("a"), words("a", "b"))


def test_distinct_by_hand():
    samples = words("a b a b", "a c")
    assert distinct(samples, 1) == pytest.approx(3 / 6)  # a b c
    assert distinct(samples, 2) == pytest.approx(3 / 4)  # ab ba ac; none across sentences
    assert distinct(words("a", "b"), 2) is None
    assert distinct([], 1) is None


def test_self_bleu_of_equal_and_of_different_samples():
    assert self_bleu(words(*["a b c d e"] * 3)) == pytest.approx(1)
    assert self_bleu(words(*["a b"] * 3)) == pytest.approx(1)
    assert self_bleu([[], []]) == 1
    assert self_bleu(words("a b c d e", "f g h i j", "k l m n o")) < 0.1
    assert self_bleu(words("a b c d")) is None


def test_self_bleu_by_hand():
    # orders 1 to 4; one without a match counts 0.1
    first = (5 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25  # its x is in the third
    second = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    third = (1 / 5 * 0.1 / 4 * 0.1 / 3 * 0.1 / 2) ** 0.25
    found = self_bleu(words("a b c d x", "a b c d e", "p q r s x"))
    assert found == pytest.approx((first + second + third) / 3)


@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=7), min_size=2, max_size=6),
)
def test_self_bleu_is_that_of_nltk(samples):
    smoothing = SmoothingFunction().method1
    expected = [
        sentence_bleu(samples[:i] + samples[i + 1 :], text, DEFAULT, smoothing, auto_reweigh=True)
        for i, text in enumerate(samples)
    ]
    assert self_bleu(samples) == pytest.approx(sum(expected) / len(expected), rel=1e-12)


def test_self_bleu_uses_the_first_samples():
    samples = words("a b c d", "a b c d", "p q r s")
    assert self_bleu(samples, max_samples=2) == pytest.approx(1)


def test_text_quality_of_a_copier_that_always_says_the_same():
    keys = text_quality(
        ["a b c d", "e f g h"],
        reconstruct=list,
        sample=lambda n: ["a b c d"] * n,
        samples=4,
    )
    assert keys["bleu"] == pytest.approx(1)
    assert keys["self_bleu"] == pytest.approx(1)
    assert (keys["distinct_1"], keys["distinct_2"]) == (4 / 16, 3 / 12)
    assert (keys["bleu_texts"], keys["sampled"]) == (2, 4)


def test_text_quality_of_a_language_model_has_no_bleu():
    def reconstruct(texts):
        raise AssertionError("nothing to reconstruct")

    keys = text_quality([], reconstruct=reconstruct, sample=lambda n: ["a b"] * n, samples=2)
    assert keys["bleu"] is None
    assert keys["self_bleu"] == pytest.approx(1)
