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
