"""A training step away from the CPU, where there is no GPU.

Tensors on torch's meta device have shapes but no values. An operation fails there if it mixes
devices, or if it needs a value on the host, for which a GPU would have to be waited for.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from test_gpu import HOW, KINDS, build, terms
from torch._subclasses.fake_tensor import FakeTensorMode

from textvae.config.inference import AMORTIZED
from textvae.text.nn.softmax import _usual_chunk
from textvae.vae.objectives import elbo, iwae

WAITS = {"mixture", "vamp", "sphere"}  # for the smallest variance, and for the values of kappa


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch):
    """There is none for this device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)


def step(kind, inference=AMORTIZED, objective=elbo, training=True):
    model, batch = build(kind)
    model.to("meta").train(training)
    objective(terms(model, batch.to("meta"), inference)).backward()
    return model


def test_what_would_fail():
    here, there = torch.zeros(3), torch.zeros(3, device="meta")
    with pytest.raises(RuntimeError, match="device"):
        torch.add(here, there)
    with pytest.raises(RuntimeError, match="meta"):
        bool(there.all())
    with pytest.raises(NotImplementedError):
        there.cpu()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("objective", [elbo, iwae])
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - WAITS))
def test_every_model_computes_gradients(kind, objective, training):
    model = step(kind, objective=objective, training=training)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(grad.device.type == "meta" for grad in grads)


@pytest.mark.parametrize("how", [how for how in HOW if how.decoder_terms != "sample"])
def test_refinement(how):
    """Of images: a text's softmax asks whether all of its tokens have the same weight."""
    step("pixels", how)


def test_a_gpu_with_more_memory_takes_more_rows_at_once(monkeypatch):
    rows = []
    for gigabytes in (8, 80):
        card = SimpleNamespace(total_memory=gigabytes * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, card=card: card)
        with FakeTensorMode():
            weight = torch.empty(10_000, 8, device="cuda")
        rows.append(_usual_chunk(weight, torch.bfloat16))
    assert rows[0] > 1000 and rows[1] == pytest.approx(10 * rows[0], abs=10)
