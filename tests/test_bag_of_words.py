"""The bag of words: what z alone says about which words a text has."""

import json
import math
from dataclasses import replace

import pytest
import torch

import textvae
from textvae.builders.model import build_objective, check_model
from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.text.data.batches import text_batch
from textvae.text.model import TextVAE
from textvae.text.nn.bag_of_words import BagOfWords
from textvae.training.train import train
from textvae.vae.objectives import WithBagOfWords, WithMinimumKL, elbo, iwae

SIZES = {"latent_dim": 3, "embedding_dim": 6, "encoder_hidden": 8, "decoder_hidden": 8}
TEXTS = [[4, 5, 5], [6], [7, 4]]


def model(**options) -> TextVAE:
    torch.manual_seed(0)
    return TextVAE(9, **SIZES, **options)


def batch(texts=TEXTS):
    return text_batch(texts, range(len(texts)))


def bag(weight, bias) -> BagOfWords:
    head = BagOfWords(len(weight[0]), len(weight))
    head.output.weight.data, head.output.bias.data = torch.tensor(weight), torch.tensor(bias)
    return head


def test_it_is_the_sum_of_the_log_probabilities_of_the_words():
    head = bag([[0.0]] * 4 + [[1.0], [2.0], [0.0], [-1.0]], [0.0] * 8)
    z = torch.tensor([[[0.0], [0.0]], [[2.0], [-1.0]]])  # (K, B, Z)
    found = head.log_prob(batch([[4, 5, 5], [7]]), z)
    first = math.log(5 + math.exp(2) + math.exp(4) + math.exp(-2))
    second = math.log(5 + math.exp(-1) + math.exp(-2) + math.exp(1))
    expected = [[-3 * math.log(8), -math.log(8)], [2 + 4 + 4 - 3 * first, 1 - second]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_neither_the_order_of_the_words_nor_padding_matters():
    head, z = BagOfWords(3, 9), torch.randn(2, 1, 3)
    alone = head.log_prob(batch([[4, 5, 7]]), z)
    torch.testing.assert_close(head.log_prob(batch([[7, 4, 5]]), z), alone)
    padded = head.log_prob(batch([[4, 5, 7], [4] * 12]), z.expand(-1, 2, -1))
    torch.testing.assert_close(padded[:, :1], alone)


def test_an_empty_text_has_no_words_to_predict():
    assert head_of_zeros().log_prob(batch([[]]), torch.zeros(1, 1, 3)).tolist() == [[0.0]]


def head_of_zeros() -> BagOfWords:
    return bag([[0.0] * 3] * 9, [0.0] * 9)


def test_its_gradient():
    head, texts = BagOfWords(3, 9).double(), batch()
    z = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: head.log_prob(texts, z), (z,))


@pytest.mark.parametrize("objective", [elbo, iwae])
def test_it_is_added_to_any_objective(objective):
    vae = model(bag_of_words=True).train()
    terms = vae(batch(), samples=4)
    loss = WithBagOfWords(objective, 0.3)(terms, 0.5)
    expected = objective(terms, 0.5) - 0.3 * vae.bag_of_words.log_prob(batch(), terms.z).mean()
    torch.testing.assert_close(loss, expected)


def test_it_trains_the_encoder_but_not_the_decoder():
    vae = model(bag_of_words=True).train()
    (-vae(batch()).log_bag.mean()).backward()
    assert all(p.grad is not None for p in vae.encoder.parameters())
    assert all(p.grad is None for p in vae.decoder.parameters())
    assert vae.bag_of_words.output.weight.grad.abs().sum() > 0


def test_the_other_weights_do_not_depend_on_it():
    vae, plain = model(bag_of_words=True), model()
    assert plain(batch()).log_bag is None and plain.bag_of_words is None
    for name, weight in plain.state_dict().items():
        assert torch.equal(vae.state_dict()[name], weight)
    texts = batch()
    torch.manual_seed(1)
    found = vae.train()(texts)
    torch.manual_seed(1)
    assert torch.equal(found.log_px, plain.train()(texts).log_px)


def test_it_reaches_the_encoder_through_refinement_steps():
    vae = model(bag_of_words=True, dropout_in=0.0, dropout_out=0.0).train()
    how = textvae.Inference(method="semi_amortized", steps=2)
    (-vae(batch(), inference=how).log_bag.mean()).backward()
    assert sum(float(p.grad.abs().sum()) for p in vae.encoder.parameters()) > 0


def test_an_objective_without_the_head_says_what_is_missing():
    with pytest.raises(TypeError, match=r"TextVAE\(bag_of_words=True\)"):
        WithBagOfWords(elbo, 1.0)(model().train()(batch()))


def test_an_adaptive_objective_goes_around_it():
    with pytest.raises(TypeError, match="put WithBagOfWords inside WithMinimumKL"):
        WithBagOfWords(WithMinimumKL(elbo, 1.0), 1.0)


def test_a_language_model_has_no_z_to_predict_from():
    with pytest.raises(UserError, match="bag_of_words needs a latent variable"):
        TextVAE(9, latent_dim=0, injection="none", bag_of_words=True)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"latent_dim": 0, "injection": "none"}}, "bag_of_words needs a latent variable"),
        ({"data": {"kind": "images"}}, "does not apply to images"),
        (
            {"inference": {"method": "svi"}, "model": {"encoder_layers": 0}},
            "bag_of_words trains the encoder",
        ),
    ],
)
def test_a_combination_without_meaning_is_one_line(sections, message):
    with pytest.raises(UserError, match=message) as caught:
        check_model(Config.load(objective={"bag_of_words": 1.0}, **sections))
    assert "\n" not in str(caught.value)


def test_the_config_builds_it():
    terms = model(bag_of_words=True).train()(batch())
    objective = build_objective(Config.load(objective={"bag_of_words": 2.0, "free_bits": 1.0}))
    expected = elbo(terms, 0.5, 1.0) - 2 * terms.log_bag.mean()
    torch.testing.assert_close(objective(terms, 0.5), expected)


def test_a_run_trains_it_and_its_model_is_loaded_with_it(corpus, tmp_path):
    config = Config.load(
        objective={"bag_of_words": 1.0},
        data={"dir": str(corpus), "tokenized": True, "batch_size": 16},
        model=SIZES,
        optim={"name": "adam", "lr": 0.03, "schedule": "constant"},
        train={"epochs": 15, "threads": 1, "samples": 0, "log_every": 6, "precision": "fp32"},
    )
    train(config, tmp_path / "run")
    loaded = textvae.load(str(tmp_path / "run"))
    assert loaded.config["bag_of_words"] and not loaded.training
    rows = list(map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()))
    losses = [row["loss"] for row in rows if row["group"] == "train"]
    assert losses[-1] < losses[0] - 8
    text = "the cat sees the tree"
    texts = text_batch([loaded.tokenizer.encode(text)], [0])
    found = loaded.bag_of_words.log_prob(texts, loaded.encode([text]).mean[None])
    assert found.item() > -5 * math.log(len(loaded.tokenizer)) + 2
    off = replace(config, objective=replace(config.objective, bag_of_words=0.0))
    with pytest.raises(UserError, match="began with this layer of the model"):
        train(off, tmp_path / "run", resume=True)
