"""Dropout: frequency, scale, and seeds."""

import pytest
import torch

from textvae.text.nn.dropout import drop_words, dropout, systematic_mask
from textvae.text.tokenizers import BOS, EOS, PAD, UNK


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1000, 999), (1,), (0,), (7, 3, 5)])
def test_entries_are_zero_or_divided_by_what_is_left(p, shape):
    torch.manual_seed(0)
    x = torch.rand(shape, dtype=torch.float64) + 1
    y = dropout(x, p, training=True)
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / (1 - p), rtol=1e-4, atol=0)
    if x.numel() > 10**5:
        share = kept.double().mean()
        assert abs(share - (1 - p)) < 4 * (p * (1 - p) / x.numel()) ** 0.5


def test_choices_are_independent_of_their_neighbors():
    torch.manual_seed(0)
    kept = (dropout(torch.ones(4, 10**6), 0.5, training=True) > 0).double() - 0.5
    flat = kept.flatten()
    for distance in (1, 2, 3, 4, 5, 64):
        correlation = 4 * (flat[distance:] * flat[:-distance]).mean()
        assert abs(correlation) < 4 / len(flat) ** 0.5


def test_a_seed_gives_the_same_choices_and_the_next_call_different_ones():
    x = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5, training=True), dropout(x, 0.5, training=True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5, training=True), first)
    assert not torch.equal(first, second)


def test_the_gradient_passes_where_the_value_did():
    x = torch.rand(50, requires_grad=True)
    y = dropout(x, 0.3, training=True)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient * x, y)


def test_nothing_is_drawn_where_nothing_is_dropped():
    x, state = torch.rand(5), torch.get_rng_state()
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x
    assert torch.equal(torch.get_rng_state(), state)
    assert dropout(x, 1.0, training=True).abs().sum() == 0


def test_bf16_stays_bf16():
    x = torch.ones(100, dtype=torch.bfloat16)
    assert set(dropout(x, 0.5, training=True).tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4, 1.0])
def test_chosen_time_steps_are_evenly_spaced_and_equally_likely(share):
    steps, columns = 30, 4000
    mask = systematic_mask(steps, columns, share, torch.device("cpu"))
    assert mask.shape == (steps, columns) and mask.dtype == torch.bool
    counts = mask.sum(0)
    assert (
        int(counts.max() - counts.min()) <= 1
        and abs(float(counts.double().mean()) - 30 * share) < 0.1
    )
    error = (share * (1 - share) / columns) ** 0.5
    assert ((mask.double().mean(1) - share).abs() <= 5 * error).all()
    gaps = [torch.diff(column.nonzero()[:, 0]) for column in mask.t()[:100]]
    assert all(int(gap.max() - gap.min()) <= 1 for gap in gaps if len(gap))
    assert share == 1 or len(mask.t().unique(dim=0)) > 1  # every column has its own offset


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_words_are_dropped_as_often_as_asked_for(p):
    tokens = torch.full((100, 300), UNK + 7)
    tokens[:, 0], tokens[:, 1], tokens[:, 2] = BOS, EOS, PAD
    dropped = drop_words(tokens, p)
    assert torch.equal(dropped[:, :3], tokens[:, :3])
    share = float((dropped[:, 3:] == UNK).double().mean())
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / 29_700) ** 0.5)
