"""Models that a user has converted to another precision."""

import pytest
import torch

import textvae


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_converted_model_does_everything(trained, dtype):
    model = textvae.load(str(trained)).to(dtype)
    texts = ["the cat sees the tree", "a dog"]
    assert len(model.sample(3)) == 3
    assert len(model.sample(2, num_beams=2)) == 2
    q = model.encode(texts)
    assert q.center().shape == (2, 4) and q.center().isfinite().all()
    assert len(model.reconstruct(texts)) == 2
    assert len(model.interpolate(*texts, steps=3)) == 3
    expected = textvae.load(str(trained)).encode(texts).center()
    torch.testing.assert_close(q.center().float(), expected, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("encoder", ["mlp", "resnet"])
@pytest.mark.parametrize("decoder", ["mlp", "pixelcnn"])
def test_a_converted_image_model_has_the_same_elbo(encoder, decoder, dtype):
    torch.manual_seed(0)
    model = textvae.ImageVAE(8, 8, latent_dim=2, encoder=encoder, decoder=decoder).eval()
    images = torch.rand(3, 8, 8) > 0.5
    batches = list(model.batches(images, 3))
    expected = textvae.evaluate(model, batches, samples=2)["elbo"]
    model.to(dtype)
    assert textvae.evaluate(model, batches, samples=2)["elbo"] == pytest.approx(expected, abs=0.2)
    assert model.reconstruct(images).shape == model.sample(3).shape == (3, 8, 8)
