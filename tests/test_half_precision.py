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


def test_draws_of_a_von_mises_fisher_posterior_have_its_precision():
    torch.manual_seed(0)
    model = textvae.TextVAE(
        12, latent_dim=3, encoder_hidden=4, decoder_hidden=4, posterior="vmf", injection="skip"
    )
    model.tokenizer = textvae.WordTokenizer.train(["a b c d e f g h"])
    model.eval().to(torch.bfloat16)
    q = model.encode(["a b", "c"])
    z = q.rsample(5)
    assert z.dtype == torch.bfloat16
    torch.testing.assert_close(z.float().norm(dim=-1), torch.ones(5, 2), rtol=0.02, atol=0.02)
    assert textvae.score(model, ["a b"], samples=2)["iw"][0] < 0
