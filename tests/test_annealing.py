"""Annealed importance sampling against models whose log p(x) is known."""

import math
from dataclasses import replace

import pytest
import torch
from test_estimators import LOADINGS, NOISE_SD, OFFSET, LinearGaussian, batch_of

from textvae.errors import UserError
from textvae.vae.annealing import anneal
from textvae.vae.batch import Batch
from textvae.vae.estimators import importance_bound
from textvae.vae.noise import Purpose, RowNoise


@pytest.fixture
def x():
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def simulated(count: int) -> tuple[Batch, torch.Tensor]:
    """Examples of the linear-Gaussian model, each with the z that it came from."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return batch_of(z @ LOADINGS.t() + OFFSET + NOISE_SD * noise), z


def test_one_step_is_the_importance_weighted_bound(x):
    model, batch = LinearGaussian(shift=0.5, widen=-1.0), batch_of(x)
    found = anneal(model, batch, chains=7, steps=1, seed=3)
    noise = RowNoise(3, Purpose.BOUND, batch.index)
    assert torch.allclose(found.lower, importance_bound(model, batch, 7, noise=noise))


def test_the_exact_posterior_has_the_exact_weight(x):
    found = anneal(LinearGaussian(), batch_of(x), chains=3, steps=4)
    truth = LinearGaussian.log_marginal(x)
    assert torch.allclose(found.log_weights, truth.expand(3, -1))


@pytest.mark.parametrize(("shift", "widen"), [(0.3, -0.5), (-0.3, 1.0)])
def test_weights_have_the_mean_they_should(shift, widen, x):
    """E[w] = p(x) forward, and E[1/w] = 1/p(x) backward, for a wrong q and few, coarse steps."""
    model, batch = LinearGaussian(shift, widen), batch_of(x)
    ratio = (
        anneal(model, batch, chains=4000, steps=6, leapfrogs=3).log_weights
        - LinearGaussian.log_marginal(x)
    ).exp()
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all() and (error < 0.1).all()

    batch, z = simulated(4000)
    back = anneal(model, batch, chains=1, steps=6, leapfrogs=3, exact=z).log_weights[0]
    ratio = (LinearGaussian.log_marginal(batch.x) - back).exp()
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(float(ratio.mean()) - 1) < 4 * error and error < 0.1


def test_more_steps_close_the_gap_from_both_sides():
    batch, z = simulated(200)
    model, truth = LinearGaussian(shift=0.7, widen=-1.0), LinearGaussian.log_marginal(batch.x)
    below, above = [], []
    for steps in (1, 10, 100):
        lower = anneal(model, batch, chains=4, steps=steps).lower
        upper = anneal(model, batch, chains=4, steps=steps, exact=z).upper
        below.append(float((truth - lower).mean()))
        above.append(float((upper - truth).mean()))
    assert below[0] > below[1] > below[2] > -0.02 and above[0] > above[1] > above[2] > -0.02
    assert below[0] > 0.5 and below[2] < 0.1 and above[2] < 0.1


def test_it_does_not_depend_on_the_batches_or_on_how_much_is_computed_at_once(x):
    model, batch = LinearGaussian(shift=0.5), batch_of(x)
    whole = anneal(model, batch, chains=4, steps=5)
    first = anneal(model, batch_of(x[:2]), chains=4, steps=5, max_symbols=1)
    rest = replace(batch_of(x[2:]), index=torch.arange(2, 6))
    second = anneal(model, rest, chains=4, steps=5)
    for part in range(2):
        assert torch.allclose(whole[part], torch.cat([first[part], second[part]], -1))


def test_step_sizes_are_tuned(x):
    """q is a hundred times too narrow or too wide: most proposals are accepted all the same."""
    for widen in (-9.0, 9.0):
        found = anneal(LinearGaussian(widen=widen), batch_of(x), chains=8, steps=60)
        assert (found.accepted > 0.5).all()


def test_numbers_out_of_range(x):
    for wrong in ({"chains": 0}, {"steps": 0}, {"leapfrogs": 0}):
        with pytest.raises(UserError, match="must be"):
            anneal(LinearGaussian(), batch_of(x), **wrong)
