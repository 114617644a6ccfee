"""For a given seed, a text has the same posterior in every command."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import textvae
from textvae.builders.data import build_data
from textvae.builders.model import build_model
from textvae.evaluation.latent import map as map_module
from textvae.evaluation.latent import probe as probe_module
from textvae.evaluation.per_example import collect, posteriors
from textvae.vae.batching import LengthBuckets
from textvae.vae.model import Model

SEED = 3


@pytest.fixture(scope="module")
def refined(corpus, tmp_path_factory):
    """A model that refines its posteriors, and its test split, some of whose texts are cut."""
    run = tmp_path_factory.mktemp("run")
    sizes = {"latent_dim": 4, "embedding_dim": 8, "encoder_hidden": 12, "decoder_hidden": 12}
    data = {"dir": str(corpus), "tokenized": True, "max_length": 7}
    config = textvae.Config.load(data=data, model={**sizes, "init_scale": 0.5})
    splits = build_data(config, run, fresh=True)
    assert 0 < splits["test"].truncated < len(splits["test"])
    model = build_model(config, run, splits).eval()
    model.inference = replace(model.inference, method="semi_amortized", steps=4, lr=0.1)
    return model, splits["test"]


@pytest.fixture(scope="module")
def expected(refined):
    model, split = refined
    return model.encode([split.caption(i) for i in range(len(split))], seed=SEED)


def assert_same(found, expected):
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.logvar, expected.logvar, rtol=1e-4, atol=1e-5)


def test_refinement_moves_it_and_depends_on_the_seed(refined, expected):
    model, split = refined
    texts = [split.caption(i) for i in range(len(split))]
    assert not torch.allclose(model.encode(texts, refine_steps=0).mean, expected.mean, atol=1e-3)
    assert not torch.allclose(model.encode(texts, seed=SEED + 1).mean, expected.mean, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_evaluation_sees_what_encode_gives(refined, expected, batch_size):
    model, split = refined
    rows = LengthBuckets(split.lengths, batch_size).sequential()
    batches = (split.batch(r) for r in rows)
    assert_same(collect(model, batches, 2, SEED, model.inference).posterior, expected)


@pytest.mark.parametrize("batch_size", [3, 64])
def test_probe_and_map_see_what_encode_gives(refined, expected, batch_size):
    model, split = refined
    assert probe_module.posteriors is posteriors and map_module.posteriors is posteriors
    assert_same(posteriors(model, split, seed=SEED, batch_size=batch_size), expected)
    first = posteriors(model, split, np.arange(5), seed=SEED, batch_size=batch_size)
    assert_same(first, type(expected)(*(part[:5] for part in expected)))


def test_reconstruct_decodes_what_encode_gives(refined, expected, monkeypatch):
    model, split = refined
    texts, seen = [split.caption(i) for i in range(len(split))], []
    decode = Model.decode
    monkeypatch.setattr(type(model), "decode", lambda self, z, **_: seen.append(z) or list(z))
    model.reconstruct(texts, seed=SEED, batch_size=5)
    assert decode is not type(model).decode
    torch.testing.assert_close(seen[0], expected.mean, rtol=1e-4, atol=1e-5)
