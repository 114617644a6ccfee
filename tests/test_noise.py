"""Noise by seed, purpose, and row: independent of everything else, with the right distribution."""

import math

import pytest
import torch

from textvae.vae.noise import Purpose, RowNoise, SeededNoise, standard_normal


def noise(rows=(4, 0, 9), seed=1, purpose=Purpose.BOUND, turn=0):
    return RowNoise(seed, purpose, rows, turn)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_the_numbers_of_a_row_do_not_depend_on_other_rows(kind):
    draws = getattr(noise(), kind)(5, 3)
    assert draws.shape == (5, 3, 3)
    assert getattr(noise((9, 0, 4)), kind)(5, 3).equal(draws.flip(1))
    assert getattr(noise((0,)), kind)(5, 3).equal(draws[:, 1:2])
    assert getattr(noise(torch.tensor([4, 0, 9])), kind)(5, 3).equal(draws)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_first_draws_of_many_are_those_of_a_few(kind, width):
    many = getattr(noise(), kind)(20, width)
    for few in (1, 2, 7):
        assert getattr(noise(), kind)(few, width).equal(many[:few])


def test_another_seed_purpose_or_turn_gives_other_numbers():
    first = noise().normal(5, 3)
    others = [noise(seed=2), noise(purpose=Purpose.MIXTURE), noise(turn=1), noise(seed=2**63 - 1)]
    assert all(not other.normal(5, 3).equal(first) for other in others)


def test_normal_draws_are_standard_normal_and_unrelated():
    draws = noise(range(2000)).normal(4, 6).double()  # (4, 2000, 6)
    count = draws.numel()
    assert abs(float(draws.mean())) < 4 / math.sqrt(count)
    assert abs(float(draws.var()) - 1) < 4 * math.sqrt(2 / count)
    assert abs(float((draws**4).mean()) - 3) < 4 * math.sqrt(96 / count)
    assert float(draws.abs().max()) > 3.5
    columns = draws.transpose(0, 1).reshape(2000, -1)  # one column per position
    correlations = torch.corrcoef(columns.t()) - torch.eye(24)
    assert float(correlations.abs().max()) < 5 / math.sqrt(2000)
    rows = torch.corrcoef(columns[:100]) - torch.eye(100)  # neighboring rows
    assert float(rows.abs().max()) < 5 / math.sqrt(24)


def test_uniform_draws_cover_the_interval_evenly():
    draws = noise(range(5000)).uniform(2, 2)
    assert draws.dtype == torch.float64
    assert float(draws.min()) >= 0 and float(draws.max()) < 1
    counts = torch.histc(draws.float(), 20, 0, 1)
    assert float((counts - 1000).abs().max()) < 5 * math.sqrt(1000)


def test_no_rows_and_no_width_are_possible():
    assert noise(()).normal(2, 3).shape == (2, 0, 3)
    assert noise().normal(2, 0).shape == (2, 3, 0)


def test_seeded_noise_is_replayed():
    source = SeededNoise(7, 3, torch.device("cpu"), torch.float64)
    assert source.normal(2, 4).equal(source.normal(2, 4))
    assert not source.normal(2, 4).equal(source._replace(seed=8).normal(2, 4))
    assert source.uniform(2, 4).dtype == torch.float64


def test_without_noise_the_global_generator_is_used():
    like = torch.empty(3, 4, dtype=torch.float64)
    torch.manual_seed(0)
    expected = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.manual_seed(0)
    assert standard_normal(None, 2, like).equal(expected)
    assert standard_normal(noise(), 2, like).dtype == torch.float64
