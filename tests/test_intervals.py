"""Intervals cover the truth as often as they say."""

import math

import numpy as np
import pytest
import torch

from textvae.evaluation import intervals
from textvae.evaluation.intervals import (
    FEW,
    Interval,
    of_means,
    of_share,
    of_statistic,
    of_variances,
)


def draws(repetitions: int, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, repetitions, generator=generator, dtype=torch.float64)


def covered(intervals: list[Interval], truth: float) -> float:
    inside = [interval.low <= truth <= interval.high for interval in intervals]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("count", [10, 30, 200])
def test_the_mean_of_normal_draws_is_covered_95_times_in_100(count):
    """1500 datasets: the standard error of the coverage is 0.6 %."""
    assert covered(of_means(3.0 + draws(1500, count)), 3.0) == pytest.approx(0.95, abs=0.02)


def test_the_mean_of_skewed_draws_is_covered_nearly_as_often():
    skewed = draws(1500, 100).exp()  # log-normal
    assert 0.88 < covered(of_means(skewed), math.exp(0.5)) < 0.97


@pytest.mark.parametrize("count", [10, 30, 200])
def test_variances_are_covered(count):
    """Ten examples: without the widening, 80%."""
    each, _ = of_variances(draws(1500, count), threshold=1.0)
    assert 0.93 < covered(each, 1.0) <= 1.0
    if count < FEW:
        assert all(e.value / e.low == pytest.approx(e.high / e.value) for e in each)
    skewed, _ = of_variances(-torch.log(draws(1500, count).abs()), threshold=1.0)
    assert covered(skewed, float((-torch.log(draws(1, 10**6).abs())).var())) > 0.87


def test_few_outliers_among_many_examples_do_not_make_a_variance_uncertain():
    values = 0.003 * draws(1, 10_000)
    values[:3, 0] = torch.tensor([2.0, -2.0, 2.0])
    ((interval,), _) = of_variances(values, 0.01)
    assert interval.below(0.01)


def test_the_number_of_large_variances_is_covered_and_is_certain_far_from_the_threshold():
    scales = torch.tensor([0.01, 0.05, 1.0, 2.0], dtype=torch.float64)
    _, certain = of_variances(scales * draws(4, 100), threshold=0.01)
    assert certain == Interval(2.0, 2.0, 2.0)
    near = torch.tensor([0.1, 0.1, 1.0, 2.0], dtype=torch.float64)
    _, open_ = of_variances(near * draws(4, 100), threshold=0.01)
    assert open_.low == 2 and open_.high == 4


def test_an_interval_contains_its_value_even_at_the_threshold():
    values = draws(16, 40)
    variances = values.var(0, unbiased=False)
    _, count = of_variances(values, threshold=float(variances.min()))
    assert count.value == 16 and count.low <= 16 <= count.high


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_interval_contains_a_value_that_no_resample_reaches(sign):
    found = of_statistic(draws(1, 10), lambda means: np.full(len(means), sign / len(means)))
    assert found.value == sign and sorted(found[1:]) == sorted([sign, sign / 1000])


def test_a_variance_at_the_threshold_counts():
    each, count = of_variances(torch.tensor([[1.0], [-1.0]] * 5), threshold=1.0)
    assert each[0].value == count.value == 1


def test_wilsons_interval_of_a_published_example():
    """81 of 263: Newcombe 1998, table I, method 3."""
    found = of_share(81 / 263, 263)
    assert (found.low, found.high) == (
        pytest.approx(0.2553, abs=1e-4),
        pytest.approx(0.3662, abs=1e-4),
    )
    assert of_share(0.0, 10).low == 0.0 and of_share(1.0, 10).high == 1.0


def test_an_interval_narrows_with_the_square_root_of_the_number_of_examples():
    few, many = (of_means(draws(1, count))[0] for count in (100, 10_000))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.25)


def test_one_example_says_nothing():
    (found,) = of_means(torch.tensor([[2.0]]))
    assert found == (2.0, -math.inf, math.inf)
    assert found.below(100.0) is None


def test_a_threshold_inside_the_interval_is_undecided():
    interval = Interval(1.0, 0.5, 1.5)
    assert [interval.below(threshold) for threshold in (0.4, 0.5, 1.0, 1.5, 1.6)] == [
        *(False, False, None, None, True)
    ]


def test_the_value_decides_if_the_interval_is_narrow_and_close_to_the_threshold():
    assert [Interval(value, 0.8, 1.3).below(1.0) for value in (0.9, 1.1)] == [True, False]
    assert Interval(0.9, 0.4, 1.3).below(1.0) is None
    assert Interval(0.9, 0.8, 1.6).below(1.0) is None
    assert Interval(-0.1, -0.2, 0.2).below(0.0) is None
    assert Interval(-0.1, -0.2, 0.2).below(0.0, margin=0.3) is True
    assert [Interval(value, -1.3, -0.8).below(-1.0) for value in (-1.1, -0.9)] == [True, False]
    assert Interval(1.0, 0.9, 1.1).below(1.0) is False


def test_percentiles_of_few_examples_are_moved_outward():
    """The t quantile of 9 degrees of freedom is -2.262: Phi(-2.262 sqrt(10 / 9)) = 0.00855."""
    found = of_statistic(draws(1, 10), lambda means: np.linspace(0, 1, len(means)))
    assert found == (0, 0, pytest.approx(1 - 0.00855, abs=1e-5))


def test_a_variance_does_not_depend_on_the_mean():
    (near, _), (far, _) = (of_variances(draws(2, 50) + mean, 1.0) for mean in (0.0, 1e6))
    for one, other in zip(far, near, strict=True):
        assert one == pytest.approx(other, rel=1e-6)


def test_resamples_are_a_function_of_the_seed():
    values = draws(2, 50)
    assert of_means(values, seed=1) == of_means(values, seed=1) != of_means(values, seed=2)
    assert of_variances(values, 1.0, seed=1) != of_variances(values, 1.0, seed=2)
    first, again, other = (of_statistic(values, lambda m: m[:, 0], seed=s) for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("at_once", [5, 120])
def test_intervals_do_not_depend_on_how_many_resamples_are_held(at_once, monkeypatch):
    values = draws(2, 10)
    expected = of_means(values)
    monkeypatch.setattr(intervals, "AT_ONCE", at_once)  # fewer than one, or 12
    for found, whole in zip(of_means(values), expected, strict=True):
        assert found == pytest.approx(whole)


def test_active_columns_far_above_the_threshold_are_certain():
    _, active = of_variances(1.2 * draws(3, 1000), threshold=1.0)
    assert active == (3, 3, 3)


def test_the_standard_error_of_a_share_is_never_zero_and_the_usual_one_of_many():
    assert of_share(1.0, 1).standard_error > 0.15
    usual = math.sqrt(0.3 * 0.7 / 10_000)
    assert of_share(0.3, 10_000).standard_error == pytest.approx(usual, rel=1e-3)
