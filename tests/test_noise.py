"""Noise by seed, purpose, and row: independent of everything else, with the right distribution."""

import math

import numpy as np
import pytest
import torch

from textvae.errors import UserError
from textvae.vae.noise import (
    OWN_TURN,
    Purpose,
    RowNoise,
    SeededNoise,
    _mixed,
    second_stream,
    standard_normal,
)

GOLDEN = 0x9E3779B97F4A7C15


def noise(rows=(4, 0, 9), seed=1, purpose=Purpose.BOUND, turn=0):
    return RowNoise(seed, purpose, rows, turn)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_the_numbers_of_a_row_do_not_depend_on_other_rows(kind):
    draws = getattr(noise(), kind)(5, 3)
    assert draws.shape == (5, 3, 3)
    assert getattr(noise((9, 0, 4)), kind)(5, 3).equal(draws.flip(1))
    assert getattr(noise((0,)), kind)(5, 3).equal(draws[:, 1:2])
    assert getattr(noise(torch.tensor([4, 0, 9])), kind)(5, 3).equal(draws)


def test_the_bits_are_those_of_splitmix64():
    """The first three numbers of the seed 1234567 in its reference implementation."""
    states = [(1234567 + step * GOLDEN) % 2**64 for step in (1, 2, 3)]
    assert _mixed(np.array(states, dtype=np.uint64)).tolist() == [
        *(6457827717110365317, 3203168211198807973, 9817491932198370423)
    ]


@pytest.mark.parametrize("seed", [0, 7, -3, -(2**63), 2**64 - 1])
def test_the_numbers_of_a_seed_never_change(seed):
    def mixed(state):
        return int(_mixed(np.array([state % 2**64], dtype=np.uint64))[0])

    expected = []
    for row in (4, 0):
        key = 0
        for number in (seed, Purpose.BOUND, 3, row):
            key = mixed(key + number)
        expected.append([(mixed(key + step * GOLDEN) >> 11) / 2**53 for step in range(1, 5)])
    source = noise((4, 0), seed, turn=3)
    assert source.uniform(2, 2).transpose(0, 1).flatten(1).tolist() == expected
    first, second = torch.tensor(expected, dtype=torch.float64).view(2, 2, 2).unbind(-1)
    radius, angle = (-2 * (1 - first).log()).sqrt(), 2 * math.pi * second
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).float()
    torch.testing.assert_close(source.normal(2, 2).transpose(0, 1), pairs)


@pytest.mark.parametrize("seed", [-(2**63) - 1, 2**64, 1.0, "1"])
def test_a_seed_that_a_generator_would_not_take_is_refused(seed):
    for kind in ("normal", "uniform"):
        with pytest.raises(UserError, match="must be an integer of 64 bits"):
            getattr(noise(seed=seed), kind)(1, 1)


@pytest.mark.parametrize("source", [noise(), SeededNoise(7, 3, torch.device("cpu"))])
def test_a_second_stream_has_other_numbers(source):
    second = second_stream(source)
    assert not second.normal(5, 3).equal(source.normal(5, 3))
    assert not second.uniform(5, 3).equal(source.uniform(5, 3))
    assert second_stream(None) is None
    assert OWN_TURN not in (noise().turn, second_stream(noise()).turn)


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
    assert 0 <= float(source.uniform(200, 4).min()) < 0.05 < 0.95 < source.uniform(200, 4).max() < 1


def test_without_noise_the_global_generator_is_used():
    like = torch.empty(3, 4, dtype=torch.float64)
    torch.manual_seed(0)
    expected = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.manual_seed(0)
    assert standard_normal(None, 2, like).equal(expected)
    assert standard_normal(noise(), 2, like).dtype == torch.float64
