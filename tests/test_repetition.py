"""Repetition control: the rules by hand, and in every way of decoding."""

import itertools
import math

import pytest
import torch
from test_generate import decoder, latents

from textvae.errors import UserError
from textvae.text.decode.generate import generate
from textvae.text.decode.repetition import Repetition
from textvae.text.tokenizers import EOS, PAD


def test_the_penalty_divides_positive_logits_and_multiplies_negative_ones():
    logits = torch.tensor([[-math.inf, -2.0, 4.0, 1.0, -3.0, 2.0, 5.0]])
    ids = torch.tensor([[4, 6, 6, PAD]])  # 6 twice, penalized once
    changed = Repetition(penalty=2.0).apply(logits.clone(), ids)
    assert changed.tolist() == [[-math.inf, -2.0, 4.0, 1.0, -6.0, 2.0, 2.5]]


def test_what_is_excluded_stays_excluded():
    logits = torch.full((1, 7), -math.inf)
    changed = Repetition(penalty=2.0).apply(logits.clone(), torch.tensor([[5, 6]]))
    assert torch.equal(changed, logits)


@pytest.mark.parametrize(
    "size, ids, banned",
    [
        (1, [5, 6, 5], {5, 6}),
        (2, [5, 6, 7, 5], {6}),
        (2, [5, 6, 5, 7, 5], {6, 7}),
        (2, [5, 5], {5}),
        (3, [5, 6, 7, 5, 6], {7}),
        (3, [5, 6], set()),
        (2, [5], set()),
        (2, [], set()),
    ],
)
def test_words_that_would_repeat_an_ngram_are_banned(size, ids, banned):
    ids = torch.tensor([ids, [9] * len(ids)], dtype=torch.long)
    logits = Repetition(ngram=size).apply(torch.zeros(2, 10), ids)
    assert {word for word in range(10) if logits[0, word] == -math.inf} == banned
    assert {word for word in range(10) if logits[1, word] == -math.inf} <= {9}


@pytest.mark.parametrize("how", [{}, {"do_sample": True}, {"num_beams": 3}])
@pytest.mark.parametrize("size", [1, 2])
def test_no_sentence_repeats_an_ngram(how, size):
    model, z = decoder(), latents(12, seed=4)
    plain = generate(model, z, max_new_tokens=20, **how)
    assert any(repeats(sentence, size) for sentence in plain.tolist())
    ids = generate(model, z, max_new_tokens=20, no_repeat_ngram_size=size, **how)
    assert not any(repeats(sentence, size) for sentence in ids.tolist())


def repeats(sentence: list[int], size: int) -> bool:
    words = [word for word in sentence if word not in (PAD, EOS)]
    ngrams = list(itertools.pairwise(words)) if size == 2 else words
    return len(set(ngrams)) < len(ngrams)


def test_a_large_penalty_avoids_used_words_and_one_changes_nothing():
    model, z = decoder(), latents(12, seed=4)
    plain = generate(model, z, max_new_tokens=10)
    assert torch.equal(generate(model, z, max_new_tokens=10, repetition_penalty=1.0), plain)
    varied = generate(model, z, max_new_tokens=10, repetition_penalty=50.0)
    assert distinct(varied) > distinct(plain)


def distinct(ids: torch.Tensor) -> float:
    kept = [[word for word in sentence if word != PAD] for sentence in ids.tolist()]
    return sum(len(set(words)) / len(words) for words in kept) / len(kept)


@pytest.mark.parametrize(
    "option",
    [{"repetition_penalty": 0}, {"repetition_penalty": 1e-38}, {"no_repeat_ngram_size": -1}],
)
def test_options_out_of_range_are_errors(option):
    with pytest.raises(UserError, match=next(iter(option))):
        generate(decoder(), latents(1, seed=0), max_new_tokens=3, **option)
