"""Samplers fitted to the aggregate posterior, and the holes that other draws fall into."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import in_child
from safetensors.torch import save_file
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import textvae
from textvae.errors import UserError
from textvae.evaluation.latent import fit_sampler
from textvae.evaluation.latent.fit_sampler import fit_mixture, fit_opened
from textvae.evaluation.open_run import open_run
from textvae.evaluation.per_example import posteriors
from textvae.runs.model_folder import SAMPLER, WEIGHTS
from textvae.vae.aggregate import consistent_units, hole_shares, marginal_kls
from textvae.vae.mixtures import mixture_log_prob
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.posteriors import DiagGaussian, select
from textvae.vae.priors import StandardNormal
from textvae.vae.samplers import MixtureSampler

PRIOR = StandardNormal(2)


def known(covariance="full") -> MixtureSampler:
    means = torch.tensor([[-4.0, 0.0], [4.0, 1.0], [0.0, 6.0]]).double()
    factors = torch.tensor([[[1.0, 0.0], [0.9, 0.5]], [[0.5, 0.0], [-0.4, 1.0]]]).double()
    factors = torch.cat([factors, torch.eye(2).double()[None]])
    if covariance == "diag":
        factors = torch.diag_embed(factors.diagonal(dim1=1, dim2=2))
    return MixtureSampler(torch.tensor([0.5, 0.3, 0.2]).double(), means, factors)


def noise(count, seed=0):
    return RowNoise(seed, Purpose.LATENT, range(count))


def test_the_density_is_that_of_torch():
    sampler, z = known(), torch.randn(4, 5, 2).double()
    parts = MultivariateNormal(sampler.means, scale_tril=sampler.factors)
    expected = MixtureSameFamily(Categorical(sampler.weights), parts).log_prob(z)
    torch.testing.assert_close(sampler.log_prob(z), expected)
    assert sampler.latent_dim == 2


def test_draws_have_the_moments_of_the_mixture():
    sampler, count = known(), 40_000
    z = sampler.sample(count, noise(count))
    assert z.dtype == torch.float32 and torch.equal(z[:5], sampler.sample(5, noise(5)))
    mean = sampler.weights @ sampler.means
    second = sampler.factors @ sampler.factors.mT + torch.einsum(
        "ci,cj->cij", sampler.means, sampler.means
    )
    covariance = torch.einsum("c,cij->ij", sampler.weights, second) - torch.outer(mean, mean)
    torch.testing.assert_close(z.double().mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(z.double().T.cov(), covariance, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_a_fitted_sampler_recovers_a_known_mixture(covariance):
    truth = known(covariance)
    fitted = fit_mixture(truth.sample(4000, noise(4000)))
    unseen = truth.sample(4000, noise(4000, seed=1)).double()
    gap = (truth.log_prob(unseen) - fitted.log_prob(unseen)).mean()  # KL(truth || fitted)
    assert 0 <= float(gap) < 0.02
    assert len(fitted.weights) == 3
    order = fitted.means[:, 0].argsort()  # left, middle, right
    torch.testing.assert_close(fitted.means[order], truth.means[[0, 2, 1]], atol=0.2, rtol=0)
    torch.testing.assert_close(fitted.weights[order], truth.weights[[0, 2, 1]], atol=0.03, rtol=0)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3])
def test_the_scale_of_z_does_not_matter(scale):
    z = scale * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    fitted = fit_mixture(z)
    deviation = fitted.sample(4000, noise(4000)).std(0) / scale
    torch.testing.assert_close(deviation, torch.ones(2), atol=0.05, rtol=0)


def test_a_sampler_needs_some_examples():
    with pytest.raises(UserError, match="cannot be fitted to 9 examples: use at least 10"):
        fit_mixture(torch.randn(9, 2))
    assert fit_mixture(torch.randn(10, 2)).sample(3, noise(3)).shape == (3, 2)


def test_a_collapsed_aggregate_can_be_fitted():
    fitted = fit_mixture(torch.zeros(50, 3))
    assert fitted.sample(100, noise(100)).abs().max() < 0.1


def test_a_sampler_is_saved_and_checked(tmp_path):
    path, sampler = tmp_path / SAMPLER, known()
    assert MixtureSampler.load(path, 2) is None
    sampler.save(path)
    loaded = MixtureSampler.load(path, 2)
    assert all(torch.equal(a, b) for a, b in zip(loaded, sampler, strict=True))
    with pytest.raises(UserError, match="means is \\(3, 2\\) where \\(3, 5\\) is expected"):
        MixtureSampler.load(path, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.full((3, 2), torch.nan)}, "means is not finite"),
        ({"means": torch.zeros(2, 2)}, "means is"),
        ({"weights": torch.zeros(0)}, "weights is"),
        ({"weights": torch.ones(3)}, "add up to 1"),
        ({"factors": torch.ones(3, 2, 2)}, "lower triangular"),
        ({"factors": -torch.eye(2).expand(3, 2, 2)}, "positive diagonal"),
        ({"more": torch.zeros(1)}, "not a fitted sampler"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_sampler_is_one_line(change, message, tmp_path):
    path = tmp_path / SAMPLER
    parts = {**known()._asdict(), **change}
    save_file({name: part.contiguous() for name, part in parts.items()}, str(path))
    with pytest.raises(UserError, match=message):
        MixtureSampler.load(path, 2)
    path.write_bytes(b"garbage")
    with pytest.raises(UserError, match="is not a fitted sampler"):
        MixtureSampler.load(path, 2)


# Holes


def posteriors_of(spread, var, count=2000, center=0.0, latent_dim=2) -> DiagGaussian:
    """Posteriors whose means are N(center, spread^2), all with the same variance."""
    generator = torch.Generator().manual_seed(0)
    mean = center + spread * torch.randn(count, latent_dim, generator=generator)
    return DiagGaussian(mean, torch.full((count, latent_dim), var).log())


def holes(q, *samplers, draws=1000):
    return hole_shares(q, samplers or (PRIOR,), torch.arange(len(q.mean)), draws=draws)


@pytest.mark.parametrize("var", [1.0, 0.5, 0.01], ids=["collapsed", "wide", "narrow"])
def test_an_aggregate_that_fits_the_prior_leaves_a_share_of_1_percent(var):
    q = posteriors_of((1 - var) ** 0.5, var)
    assert holes(q, draws=4000)[0] == pytest.approx(0.01, abs=0.007)
    assert consistent_units(marginal_kls(q, PRIOR)) == 2


def test_an_aggregate_in_a_corner_leaves_holes_everywhere_else():
    q = posteriors_of(0.1, 0.01, center=3.0)
    assert holes(q)[0] > 0.99
    assert consistent_units(marginal_kls(q, PRIOR)) == 0


def test_the_share_of_a_prior_whose_left_half_is_missing_is_that_on_a_grid():
    mean = torch.randn(6000, 2, generator=torch.Generator().manual_seed(0))
    mean[:, 0] = mean[:, 0].abs()
    q = DiagGaussian(mean, torch.full((6000, 2), 0.04).log())

    ticks = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    inner = torch.linspace(0, 6, 601, dtype=torch.float64)  # the mean in the first dimension
    smeared = (-0.5 * ((ticks[:, None] - inner) / 0.2) ** 2 - 0.5 * inner**2).exp().sum(1)
    other = (-0.5 * ticks**2 / 1.04).exp()
    mass = torch.outer(smeared / smeared.sum(), other / other.sum()).flatten()
    order = mass.argsort()
    outside = order[mass[order].cumsum(0) <= 0.01]
    prior = (-0.5 * ticks**2).exp() / (-0.5 * ticks**2).exp().sum()
    expected = float(torch.outer(prior, prior).flatten()[outside].sum())

    assert 0.3 < expected < 0.5
    assert holes(q, draws=4000)[0] == pytest.approx(expected, abs=0.03)
    kls = marginal_kls(q, PRIOR)
    assert kls[0] > 1 and kls[1] < 0.03 and consistent_units(kls) == 1


def test_a_fitted_sampler_falls_into_fewer_holes_than_the_prior():
    generator = torch.Generator().manual_seed(0)
    rings = torch.randint(4, (2000,), generator=generator)
    mean = torch.tensor([[-2.0, 0], [2, 0], [0, 2], [0, -2]])[rings]
    mean += 0.1 * torch.randn(2000, 2, generator=generator)
    q = DiagGaussian(mean, torch.full((2000, 2), 0.02).log())
    sampler = fit_mixture(q.rsample(1, RowNoise(0, Purpose.MIXTURE, range(2000)))[0])
    prior, fitted = holes(q, PRIOR, sampler)
    assert prior > 0.8 and fitted < 0.03


def test_the_kl_of_a_marginal_is_that_of_a_gaussian():
    """q(z_d) = N(m_d, v_d), whose KL from N(0, 1) is known."""
    mean, var = torch.tensor([[0.0, 0.2, 0.5]]), torch.tensor([[1.0, 0.8, 0.5]])
    q = DiagGaussian(mean.expand(7, 3), var.log().expand(7, 3))
    expected = 0.5 * ((1 + mean.square()) / var - 1 + var.log())
    found = marginal_kls(q, StandardNormal(3), draws=100_000)
    torch.testing.assert_close(found, expected[0].double(), atol=3e-3, rtol=0.02)
    assert consistent_units(found) == 1 and consistent_units(found, threshold=0.1) == 2


def test_holes_do_not_depend_on_the_order_of_the_examples_nor_on_chunks():
    q, order = posteriors_of(0.7, 0.3, count=150), torch.randperm(150)
    shuffled = hole_shares(select(q, order), [PRIOR], order, draws=300)
    assert shuffled == pytest.approx(holes(q, draws=300), abs=0.02)
    z = torch.randn(9, 2).double()
    double = DiagGaussian(*(part.double() for part in q))
    without = torch.arange(9)
    found = mixture_log_prob(double, z, without=without)
    torch.testing.assert_close(mixture_log_prob(double, z, without=without, max_pairs=300), found)
    rest = torch.stack(
        [mixture_log_prob(select(double, torch.arange(150) != i), z[i : i + 1])[0] for i in without]
    )
    torch.testing.assert_close(found, rest)


def test_holes_are_those_of_all_examples_however_they_are_sorted():
    q = posteriors_of(0.95, 0.1, count=2000)
    inside_out = select(q, q.mean.norm(dim=1).argsort())
    assert holes(inside_out, draws=200)[0] == pytest.approx(0.01, abs=0.05)


def test_one_example_or_no_latent_has_no_holes():
    assert hole_shares(posteriors_of(1, 1.0, count=1), [PRIOR], torch.zeros(1)) is None
    nothing = DiagGaussian(torch.zeros(3, 0), torch.zeros(3, 0))
    assert hole_shares(nothing, [StandardNormal(0)], torch.arange(3)) is None
    assert marginal_kls(nothing, StandardNormal(0)) is None


# In a run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_sampling_from_the_aggregate_fits_once(run, capfd):
    model = textvae.load(str(run))
    with pytest.raises(UserError, match="no fitted sampler yet"):
        model.sample(2, source="aggregate")
    with pytest.raises(UserError, match="choose prior or aggregate"):
        model.sample(2, source="posterior")
    assert in_child(["sample", str(run), "-n", "3", "--from", "aggregate"]) == 0
    printed = capfd.readouterr().out.splitlines()
    written = (run / SAMPLER).read_bytes()
    assert in_child(["sample", str(run), "-n", "3", "--from", "aggregate"]) == 0
    assert capfd.readouterr().out.splitlines() == printed
    assert (run / SAMPLER).read_bytes() == written
    model = textvae.load(str(run))
    assert model.sample(3, source="aggregate") == printed
    assert not torch.equal(model.draw_z(3, 0), model.draw_z(3, 0, "aggregate"))


def test_a_sampler_is_fitted_to_draws_from_the_posteriors_not_to_their_means(run, monkeypatch):
    opened, seen = open_run(run), []
    monkeypatch.setattr(fit_sampler, "fit_mixture", lambda z, seed: seen.append(z) or known())
    fit_sampler.fit_opened(opened)
    train = opened.split("train")
    q = posteriors(opened.model, train, np.arange(len(train)))
    (z,) = seen
    assert z.shape == q.mean.shape
    scaled = (z - q.mean) / (q.logvar / 2).exp()  # standard normal
    assert abs(float(scaled.mean())) < 0.2 and float(scaled.var()) == pytest.approx(1, abs=0.2)


def test_a_card_reports_the_holes_of_the_sampler(run):
    before = json.loads((run / "metrics" / "test.json").read_text())
    assert 0 <= before["hole_share"] <= 1 and 0 <= before["cu"] <= 4
    assert "hole_share_aggregate" not in before
    assert in_child(["evaluate", str(run), "--samples", "4", "--fit-sampler"]) == 0
    after = json.loads((run / "metrics" / "test.json").read_text())
    assert after["hole_share"] == before["hole_share"]
    assert 0 <= after["hole_share_aggregate"] <= 1


def test_new_weights_are_saved_without_the_old_sampler(run, tmp_path):
    textvae.fit_sampler(run)
    fitted = textvae.load(str(run))
    fitted.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / SAMPLER).exists()
    fitted.sampler = None
    fitted.save_pretrained(run)
    assert not (run / SAMPLER).exists()


def test_a_sampler_never_lies_next_to_other_weights(run, tmp_path, monkeypatch):
    fitted = textvae.load(str(run))
    fitted.sampler = None
    textvae.fit_sampler(run)
    before = (run / WEIGHTS).read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(fitted), "_save_more", killed)
    with torch.no_grad():
        next(fitted.parameters()).add_(1)
    with pytest.raises(KeyboardInterrupt):
        fitted.save_pretrained(run)
    assert (run / WEIGHTS).read_bytes() != before and not (run / SAMPLER).exists()


def test_a_language_model_has_nothing_to_fit(language_model):
    with pytest.raises(UserError, match="no latent variable"):
        textvae.fit_sampler(language_model)


def test_a_sampler_of_another_model_is_not_saved_and_that_is_said(run, caplog):
    model = textvae.load(run)
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    assert textvae.fit_sampler(run, model=model) is model.sampler
    assert "the model is not the one in" in caplog.text
    assert not (run / "sampler.safetensors").exists()


def test_a_sampler_of_weights_that_were_replaced_meanwhile_is_not_saved(run, caplog):
    opened = open_run(run)
    shutil.copyfile(run / "model.safetensors", run / "copy")
    (run / "model.safetensors").write_bytes((run / "copy").read_bytes() + b" ")
    fit_opened(opened)
    assert not (run / SAMPLER).exists() and "has been trained in the meantime" in caplog.text


def test_the_card_has_the_holes_of_each_sampler():
    class Far(torch.nn.Module):
        """q(z|x) = N(x, 0.1), far from the prior; the decoder does not matter."""

        def forward(self, batch):
            return DiagGaussian(batch.x, torch.full_like(batch.x, -2.3))

        def log_prob(self, batch, z):
            return -(z - batch.x).square().sum(-1)

    torch.manual_seed(0)
    model, x = textvae.VAE(Far(), Far(), prior=2), 4 + torch.randn(200, 2)
    model.sampler = fit_mixture(x)
    card = textvae.evaluate(model, x.split(50), samples=2)
    assert card["hole_share"] > 0.9 and card["hole_share_aggregate"] < 0.1


def test_sorted_draws_are_held_out_at_random():
    torch.manual_seed(0)
    angles = torch.arange(10) * math.tau / 10
    centers = 30 * torch.stack([angles.cos(), angles.sin()], 1)
    z = (torch.randn(10, 100, 2) + centers[:, None]).flatten(0, 1)  # one cluster is a tenth of them
    best = -math.log(10) - math.log(math.tau * math.e)  # the mean log density of the true mixture
    assert float(fit_mixture(z).log_prob(z).mean()) == pytest.approx(best, abs=0.3)


def test_marginals_depend_on_the_seed():
    q = posteriors_of(0.8, 0.2, count=50)
    first, second = (marginal_kls(q, StandardNormal(2), seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)
