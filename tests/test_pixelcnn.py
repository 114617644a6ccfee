"""The PixelCNN: causal, consistent with its samples, and with a fast sampler."""

import math
from dataclasses import replace

import pytest
import torch

from textvae.images.datasets import as_batch
from textvae.images.pixelcnn import PixelCNN, _gate
from textvae.vae.noise import Purpose, RowNoise

SIZE, LATENT = (5, 4), 3
INJECTIONS = ("none", "input", "skip")


def build(injection: str = "skip", layers: int = 3, kernel_size: int = 3, size=SIZE) -> PixelCNN:
    torch.manual_seed(0)
    model = PixelCNN(size, LATENT, injection, maps=6, layers=layers, kernel_size=kernel_size)
    with torch.no_grad():
        for parameter in model.parameters():  # far from 0, so that every path can be seen
            parameter.mul_(3)
    return model.double()


def pixels(count: int, size=SIZE) -> torch.Tensor:
    return torch.randint(2, (count, 1, *size), generator=torch.Generator().manual_seed(1)).double()


def latents(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, LATENT, generator=torch.Generator().manual_seed(2)).double()


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize(("layers", "kernel_size"), [(1, 3), (3, 3), (2, 5), (2, 1)])
def test_the_jacobian_is_strictly_causal_in_raster_order(injection, layers, kernel_size):
    model, z = build(injection, layers, kernel_size), latents(1)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: model(x.view(1, 1, *SIZE), z).flatten(), pixels(1).flatten()
    )  # (outputs, inputs)
    assert bool((jacobian.triu() == 0).all())


@pytest.mark.parametrize("injection", INJECTIONS)
def test_deep_enough_every_earlier_pixel_is_seen(injection):
    model, z = build(injection, layers=6), latents(1)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: model(x.view(1, 1, *SIZE), z).flatten(), pixels(1).flatten()
    )
    earlier = torch.ones_like(jacobian).tril(-1).bool()
    assert bool((jacobian[earlier] != 0).all())  # no blind spot


@pytest.mark.parametrize("injection", INJECTIONS)
def test_where_z_enters(injection):
    model = build(injection)
    z = latents(1).requires_grad_()
    model(pixels(1), z).square().sum().backward()
    used = z.grad is not None and bool((z.grad != 0).any())
    assert used == (injection != "none")
    assert len(model.z_maps) == {"none": 0, "input": 1, "skip": 4}[injection]
    assert all(bool((p.grad != 0).any()) for p in model.parameters())


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_log_prob_is_the_sum_of_a_loop_over_pixels(injection):
    model, x, z = build(injection), pixels(2), latents(3, 2)
    batch = replace(as_batch(x[:, 0], torch.arange(2)), x=x)  # in double precision
    found = model.log_prob(batch, z)
    assert found.shape == (3, 2)
    for k in range(3):
        for b in range(2):
            total = 0.0
            for i in range(SIZE[0]):
                for j in range(SIZE[1]):
                    so_far = x[b : b + 1].clone().flatten()
                    so_far[i * SIZE[1] + j :] = 0.5  # what comes later must not matter
                    logit = model(so_far.view(1, 1, *SIZE), z[k, b : b + 1])[0, i, j]
                    chance = torch.sigmoid(logit) if x[b, 0, i, j] else torch.sigmoid(-logit)
                    total += float(chance.log())
            assert float(found[k, b]) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_probabilities_of_all_images_sum_to_one(injection):
    size = (2, 3)
    model = build(injection, size=size)
    every = torch.tensor([[n >> k & 1 for k in range(6)] for n in range(64)]).view(64, 2, 3)
    batch = as_batch(every, torch.arange(64))
    model = model.float()
    log_p = model.log_prob(batch, latents(1, 1).float().expand(1, 64, LATENT))
    assert float(log_p.double().logsumexp(1)) == pytest.approx(0, abs=1e-5)


def sample_naively(model: PixelCNN, z: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """A complete forward pass for every pixel."""
    x = torch.zeros(len(z), 1, *model.size, dtype=z.dtype)
    for n in range(uniforms.size(1)):
        logits = model(x, z).flatten(1)[:, n]
        x.view(len(z), -1)[:, n] = (uniforms[:, n] < logits.sigmoid()).to(x.dtype)
    return x[:, 0]


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize(("layers", "kernel_size"), [(1, 3), (3, 3), (2, 5), (2, 1)])
@torch.no_grad()
def test_the_fast_sampler_draws_what_whole_passes_draw(injection, layers, kernel_size):
    model, z = build(injection, layers, kernel_size), latents(9)
    uniforms = RowNoise(0, Purpose.TOKENS, range(9)).uniform(1, SIZE[0] * SIZE[1])[0]
    assert bool((model.sample(z, uniforms) == sample_naively(model, z, uniforms)).all())
    likeliest = sample_naively(model, z, torch.full_like(uniforms, 0.5))
    assert bool((model.sample(z) == likeliest).all())


@torch.no_grad()
def test_samples_are_as_frequent_as_they_are_scored():
    size, count = (2, 2), 40_000
    model = build("skip", size=size).float()
    z = latents(1).float()
    drawn = model.sample(z.expand(count, LATENT), torch.rand(count, 4).double())
    numbers = (drawn.flatten(1) * torch.tensor([1.0, 2, 4, 8])).sum(1).long()
    found = torch.bincount(numbers, minlength=16) / count
    every = torch.tensor([[n >> k & 1 for k in range(4)] for n in range(16)]).view(16, 2, 2)
    batch = as_batch(every, torch.arange(16))
    expected = model.log_prob(batch, z[None].expand(1, 16, LATENT))[0].exp()
    errors = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 5 * errors + 1e-9).all())


def test_the_first_half_is_the_signal_and_the_second_the_gate():
    features = torch.tensor([[0.5, -1.0]])[..., None]
    assert float(_gate(features)) == pytest.approx(math.tanh(0.5) / (1 + math.exp(1.0)))
