"""Whole models on a GPU: what they compute there is what they compute on the CPU.

``TEXTVAE_GPU_TESTS=cpu`` compares the CPU with itself, which shows that the tests can run.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from textvae import load
from textvae.config.inference import AMORTIZED, Inference
from textvae.evaluation.evaluate_run import evaluate_run
from textvae.images.datasets import as_batch
from textvae.images.model import ImageVAE
from textvae.text.data.batches import text_batch
from textvae.text.decode.generate import generate
from textvae.text.model import TextVAE
from textvae.vae.contracts import Terms
from textvae.vae.estimators import importance_estimate
from textvae.vae.inference import infer
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.objectives import WithBagOfWords, WithDensityGap, WithMMD, elbo, iwae
from textvae.vae.posteriors import kl

DEVICE = os.environ.get("TEXTVAE_GPU_TESTS", "cuda")
ABSENT = DEVICE == "cuda" and not torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(ABSENT, reason="needs a GPU")]

ROWS = range(8)
KINDS = {
    "language model": {"latent_dim": 0, "injection": "none"},
    "init": {"injection": "init", "initial_state": "cell"},
    "input, two layers": {"injection": "input", "encoder_layers": 2, "decoder_layers": 2},
    "skip": {},
    "pooled": {"bidirectional": True, "pooling": "mean"},
    "maximum": {"pooling": "max", "tie_embeddings": True, "embedding_dim": 20},
    # With small weights, normalization would multiply rounding errors; it takes out the bias.
    "batch-normalized": {"head": "batch_norm", "init_scale": 0.5, "head_bias": False},
    "dispersed": {"head": "du", "init_scale": 0.5, "head_bias": False},
    "scaled": {"head": "scale", "init_scale": 0.5},
    "mixture": {"prior": "mixture", "prior_components": 3},
    "vamp": {"prior": "vamp", "prior_components": 3},
    "sphere": {"posterior": "vmf"},
    "bag of words": {"bag_of_words": True},
    "no encoder": {"encoder_layers": 0},
    "label": {"condition": "label", "condition_dim": 3, "num_labels": 2},
    "number": {"condition": "number", "injection": "input"},
    "pixels": {"decoder": "pixelcnn"},
    "pixels, mlp": {"decoder": "mlp", "encoder": "mlp"},
    "pixels, label": {"decoder": "pixelcnn", "condition": "label", "num_labels": 2},
}
CONDITIONS = {
    "label": np.arange(len(ROWS)) % 2,
    "number": np.linspace(-1, 1, len(ROWS), dtype=np.float32),
}
REFINED = Inference("semi_amortized", steps=3, lr=0.5)
HOW = [
    REFINED,
    replace(REFINED, decoder_terms="all"),
    replace(REFINED, decoder_terms="sample"),
    replace(REFINED, hvp="exact", decoder_terms="all"),
    replace(REFINED, encoder="kl"),
]


@pytest.fixture(autouse=True)
def fp32_without_tf32():
    """cuDNN rounds fp32 to 11 significant bits by default."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def build(kind="skip"):
    """A small model without dropout, in fp32, and a batch of its data."""
    torch.manual_seed(0)
    options = {"latent_dim": 5, "encoder_hidden": 20, "decoder_hidden": 20} | KINDS[kind]
    y = CONDITIONS.get(options.get("condition"))
    if "decoder" in options:
        pixels = torch.rand(len(ROWS), 8, 8) < 0.3
        shape = {"encoder_layers": 2, "decoder_layers": 2}
        y = None if y is None else torch.from_numpy(y)
        return ImageVAE(8, 8, **options, **shape), as_batch(pixels, torch.tensor(ROWS), condition=y)
    options = {"embedding_dim": 12, "dropout_in": 0.0, "dropout_out": 0.0} | options
    rng = np.random.default_rng(0)
    sentences = [rng.integers(4, 60, rng.integers(3, 9)) for _ in ROWS]
    return TextVAE(60, **options), text_batch(sentences, ROWS, condition=y)


def terms(model, batch, inference=AMORTIZED):
    """The terms of an objective, with random numbers that do not depend on the device."""
    noise = RowNoise(0, Purpose.STEPS, ROWS)
    torch.manual_seed(0)
    q, encoder_loss, path = infer(model, batch, inference, noise=noise)
    z = q.rsample(2, RowNoise(0, Purpose.LATENT, ROWS))
    log_px, log_pz = model.log_likelihood(batch, z), model.prior.log_prob(z)
    rest = {"encoder_loss": encoder_loss, "path": path, "prior": model.prior}
    if (bag := getattr(model, "bag_of_words", None)) is not None:
        rest["log_bag"] = bag.log_prob(batch, z)
    return Terms(q, z, log_px, log_pz, q.log_prob(z), kl(q, model.prior, z), **rest)


def loss_and_gradients(device, kind, inference=AMORTIZED, objective=elbo, training=True, cast=None):
    """On the CPU in the end, gradients by name."""
    model, batch = build(kind)
    model.to(device).train(training)
    with torch.autocast(torch.device(device).type, cast, enabled=cast is not None):
        loss = objective(terms(model, batch.to(device), inference))
    loss.backward()
    named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach().cpu().float(), {name: grad.cpu().float() for name, grad in named.items()}


def assert_close(found, expected, tolerance):
    """Compare losses, and gradients by their norms over the whole model."""
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=0)
    assert found[1].keys() == expected[1].keys()
    largest = max(float(grad.norm()) for grad in expected[1].values())
    for name, grad in expected[1].items():
        error = float((found[1][name] - grad).norm())
        assert error <= tolerance * (float(grad.norm()) + 0.01 * largest), name


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients(kind):
    for objective in (elbo, iwae):
        found = loss_and_gradients(DEVICE, kind, objective=objective)
        assert_close(found, loss_and_gradients("cpu", kind, objective=objective), 1e-3)


@pytest.mark.parametrize("objective", [WithMMD(elbo, 10.0), WithDensityGap(elbo, 1.0)])
def test_an_objective_that_draws_from_the_prior_or_the_posterior(objective):
    loss, gradients = loss_and_gradients(DEVICE, "skip", objective=objective)
    assert loss.isfinite() and all(grad.isfinite().all() for grad in gradients.values())


def test_an_objective_with_a_layer_of_its_own():
    kind, objective = "bag of words", WithBagOfWords(elbo, 0.5)
    found = loss_and_gradients(DEVICE, kind, objective=objective)
    assert_close(found, loss_and_gradients("cpu", kind, objective=objective), 1e-3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("how", range(len(HOW)))
def test_refinement(how, training):
    found = loss_and_gradients(DEVICE, "skip", HOW[how], training=training)
    expected = loss_and_gradients("cpu", "skip", HOW[how], training=training)
    assert_close(found, expected, 0.02 if HOW[how].hvp == "difference" else 2e-3)


@pytest.mark.parametrize("kind", ["pixels", "no encoder"])
def test_refinement_of_other_models(kind):
    how = REFINED if kind == "pixels" else replace(REFINED, method="svi")
    assert_close(loss_and_gradients(DEVICE, kind, how), loss_and_gradients("cpu", kind, how), 0.02)


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inference", [AMORTIZED, REFINED], ids=["amortized", "refined"])
@pytest.mark.parametrize("kind", ["skip", "input, two layers", "pixels"])
def test_half_precision(kind, inference, cast):
    found = loss_and_gradients(DEVICE, kind, inference, cast=cast)
    expected = loss_and_gradients("cpu", kind, inference)
    assert_close(found, expected, 0.3)  # a wrong gradient has an error of about 1
    torch.testing.assert_close(found[0], expected[0], rtol=0.01, atol=0)


@pytest.mark.parametrize("kind", ["skip", "input, two layers", "language model"])
@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True},
        {"do_sample": True, "temperature": 0.7, "top_k": 5},
        {"do_sample": True, "top_p": 0.8},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
        {"num_beams": 3},
    ],
)
def test_the_same_sentences_under_a_seed(kind, options):
    found = []
    for device in (DEVICE, "cpu"):
        model, _ = build(kind)
        z = model.draw_z(40, seed=1).to(device)
        found.append(generate(model.to(device).decoder, z, max_new_tokens=12, seed=1, **options))
    assert torch.equal(found[0].cpu(), found[1])


@pytest.mark.parametrize("kind", ["pixels", "pixels, mlp"])
def test_the_same_images_under_a_seed(kind):
    images = [build(kind)[0].eval().to(device).sample(12, seed=1) for device in (DEVICE, "cpu")]
    assert torch.equal(*images)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bound(kind):
    estimates = []
    for device in (DEVICE, "cpu"):
        model, batch = build(kind)
        noise = RowNoise(0, Purpose.BOUND, ROWS)
        with torch.no_grad():
            here = batch.to(device)
            estimates.append(importance_estimate(model.eval().to(device), here, 30, noise=noise))
    for found, expected in zip(*estimates, strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def train(device, *options):
    """Run the command in a process of its own, because accelerate keeps its device."""
    environment = os.environ | ({"ACCELERATE_USE_CPU": "true"} if device == "cpu" else {})
    command = [sys.executable, "-m", "textvae", "train", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f" parameters on {device}" in done.stderr


@pytest.fixture(scope="module")
def half_done(tiny, tmp_path_factory):
    """Runs of 6 of 12 steps, by device."""
    runs, adam = {}, ["--optim.name", "adam", "--optim.lr", "0.01", "--train.max_steps", "6"]
    for device in {DEVICE, "cpu"}:
        runs[device] = tmp_path_factory.mktemp("runs") / device
        train(device, "--out", str(runs[device]), *tiny, *adam)
    return runs


def test_a_run_is_evaluated_alike(half_done):
    run, texts = str(half_done[DEVICE]), ["the cat sees the tree", "a dog"]
    models = [load(run).to(device) for device in (DEVICE, "cpu")]
    encoded = [model.encode(texts).center() for model in models]
    torch.testing.assert_close(*encoded, rtol=1e-4, atol=1e-4)
    cards = [evaluate_run(run, model=model, samples=8, generations=5) for model in models]
    for key in ("elbo", "iw", "kl", "mi", "mi_max", "units", "self_bleu"):
        assert cards[0][key] == pytest.approx(cards[1][key], rel=1e-3), key
    assert cards[0]["au"] == cards[1]["au"]


@pytest.mark.parametrize("first, then", [(DEVICE, "cpu"), ("cpu", DEVICE)])
def test_a_run_is_resumed_on_another_device(first, then, half_done, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half_done[first], run)
    train(then, "--resume", str(run), "--train.max_steps", "12")
    assert json.loads((run / "training.json").read_text())["steps"] == 12
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bounds = [line["elbo"] for line in lines if line["group"] == "valid"]
    assert bounds[-1] > bounds[0]


@pytest.mark.parametrize(
    "precision, method",
    [("fp32", "semi_amortized"), ("bf16", "amortized"), ("fp16", "semi_amortized")],
)
def test_a_run_in_every_precision(precision, method, tiny, tmp_path):
    if DEVICE == "cpu" and precision == "fp16":
        pytest.skip("a CPU does not train in fp16")
    run, how = tmp_path / "run", ["--inference.method", method, "--inference.steps", "2"]
    how += ["--optim.name", "adam", "--optim.lr", "0.01", "--train.precision", precision]
    train(DEVICE, "--out", str(run), *tiny, *how)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bounds = [line["elbo"] for line in lines if line["group"] == "valid"]
    assert bounds[-1] > bounds[0]
