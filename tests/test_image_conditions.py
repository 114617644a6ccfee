"""Image models conditioned on a label: gradients, samples, likelihoods, commands, errors."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import in_child
from PIL import Image
from torch import nn

from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.evaluate_run import evaluate_run
from textvae.evaluation.open_run import open_run
from textvae.images.datasets import as_batch, read_image_file, read_image_split
from textvae.images.drawings import Drawings, write_drawings
from textvae.images.model import ImageVAE
from textvae.runs.latents import read_labels, read_latents
from textvae.vae.conditioning import codes_of
from textvae.vae.conditions import Classes
from textvae.vae.objectives import elbo

SIDE, LABELS = 8, Classes(("level", "upright"), (1, 1))
SMALL = {"encoder_hidden": 12, "encoder_layers": 2, "decoder_hidden": 12, "decoder_layers": 2}
KINDS = [
    *[("pixelcnn", injection, "resnet") for injection in ("input", "skip")],
    *[("mlp", injection, "mlp") for injection in ("input", "skip")],
]
OPTIONS = [
    *("--data.kind", "images", "--data.batch_size", "16", "--train.threads", "1"),
    *("--model.latent_dim", "2", "--images.encoder_hidden", "16", "--images.encoder_layers", "1"),
    *("--images.decoder_hidden", "16", "--images.decoder_layers", "2", "--images.encoder", "mlp"),
    *("--optim.name", "adam", "--optim.lr", "0.01", "--train.epochs", "20"),
    *("--train.log_every", "50", "--train.samples", "2", "--train.precision", "fp32"),
]


def bars(count: int, seed: int) -> Drawings:
    """A level or upright bar, as the label says, in one of five places."""
    labels, rng = np.arange(count) % 2, np.random.default_rng(seed)
    images = np.full((count, SIDE, SIDE), 5, np.uint8)
    for image, label in zip(images, labels, strict=True):
        at = rng.integers(1, 6)
        (image.T if label else image)[at : at + 2] = 250
    return Drawings(images, labels, list(LABELS.names))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bars")
    for seed, (split, count) in enumerate((("train", 400), ("valid", 40), ("test", 40))):
        write_drawings(folder / f"{split}.npz", bars(count, seed))
    return folder


@pytest.fixture(scope="module", params=["mlp", "pixelcnn"])
def run(request, folder, tmp_path_factory):
    """A trained conditional model; tests must not change it."""
    run = tmp_path_factory.mktemp("runs") / request.param
    options = ["--images.decoder", request.param, "--model.condition", "label"]
    words = ["train", "--out", str(run), "--data.dir", str(folder), *OPTIONS, *options]
    assert in_child(words) == 0
    return run


def build(decoder: str, injection: str, encoder: str, latent_dim: int = 3) -> ImageVAE:
    torch.manual_seed(0)
    options = {"decoder": decoder, "injection": injection, "encoder": encoder}
    given = {"condition": "label", "condition_dim": 5, "num_labels": 3}
    return ImageVAE(SIDE, SIDE, latent_dim, **SMALL, **options, **given).eval()


def batch(condition=(0, 1, 2)):
    pixels = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) < 0.3
    return as_batch(pixels, torch.arange(3), condition=torch.as_tensor(condition))


def levels(images: torch.Tensor) -> torch.Tensor:
    """How much more the rows of each image (N, H, W) differ than its columns."""
    return images.mean(2).var(1) - images.mean(1).var(1)


@pytest.mark.parametrize(("decoder", "injection", "encoder"), KINDS)
def test_the_gradient_reaches_the_vectors_of_the_labels_that_occur(decoder, injection, encoder):
    model = build(decoder, injection, encoder)
    elbo(model(batch((0, 2, 2))), beta=1.0).backward()
    for part in (model.encoder, model.decoder):
        norms = part.condition.weight.grad.norm(dim=1)
        assert norms[0] > 0 and norms[2] > 0 and norms[1] == 0


@pytest.mark.parametrize(("decoder", "injection", "encoder"), KINDS)
def test_the_gradient_of_a_vector_equals_finite_differences(decoder, injection, encoder):
    model, z = build(decoder, injection, encoder).double(), torch.randn(2, 3, 3).double()
    given = batch()
    given = replace(given, x=given.x.double())
    weight = model.decoder.condition.weight
    (gradient,) = torch.autograd.grad(model.decoder.log_prob(given, z).sum(), weight)
    for place in ((0, 0), (1, 3), (2, 4)):
        values = []
        for step in (1e-3, -1e-3):  # log p(x|z) is rounded to fp32, in which smaller ones drown
            with torch.no_grad():
                weight[place] += step
                values.append(float(model.decoder.log_prob(given, z).double().sum()))
                weight[place] -= step
        found = (values[0] - values[1]) / 2e-3
        assert found == pytest.approx(float(gradient[place]), rel=0.01, abs=0.02)


@pytest.mark.parametrize(("decoder", "injection", "encoder"), KINDS)
def test_encoder_and_decoder_read_the_label_of_their_own_image(decoder, injection, encoder):
    model, z = build(decoder, injection, encoder), torch.randn(1, 3, 3)
    for compute in (lambda b: model.log_likelihood(b, z)[0], lambda b: model.posterior(b).mean):
        own, changed = compute(batch((0, 1, 2))), compute(batch((1, 1, 2)))
        assert (own[0] - changed[0]).abs().max() > 1e-4
        torch.testing.assert_close(own[1:], changed[1:])


@pytest.mark.parametrize("injection", ["input", "skip"])
def test_pixel_by_pixel_sampling_takes_the_label_as_training_does(injection):
    decoder, codes = build("pixelcnn", injection, "resnet").decoder, torch.tensor([0, 1, 2])
    z = decoder.with_condition(torch.randn(3, 3), codes)
    images = decoder.sample(z)
    assert torch.equal(images, (decoder(images[:, None], z) > 0).float())


def test_a_pixelcnn_with_a_label_and_no_latent_variable():
    model, given = build("pixelcnn", "input", "resnet", latent_dim=0), batch()
    own = model.log_likelihood(given, torch.zeros(1, 3, 0))[0]
    other = model.log_likelihood(batch((1, 1, 2)), torch.zeros(1, 3, 0))[0]
    assert own[0] != other[0] and torch.equal(own[1:], other[1:])
    model.condition = Classes(("a", "b", "c"), (1, 1, 1))
    assert model.sample(2, condition="b").shape == (2, SIDE, SIDE)
    with pytest.raises(UserError, match="input or skip, not none"):
        build("pixelcnn", "none", "resnet", latent_dim=0)


def test_samples_follow_the_label(run):
    model = ImageVAE.from_pretrained(run)
    for label, sign in (("level", 1), ("upright", -1)):
        images = model.sample(40, condition=label, seed=1)
        assert (sign * levels(images) > 0).float().mean() > 0.9
        assert torch.equal(images, model.sample(40, condition=[label] * 40, seed=1, batch_size=7))
    drawn = (levels(model.sample(200, seed=2)) > 0).float().mean()
    assert drawn == pytest.approx(0.5, abs=0.15)


def test_the_bound_is_one_on_log_p_given_the_label(run, folder):
    card = evaluate_run(run, samples=20)
    assert card["condition"] == "label" and card["elbo"] <= card["iw"] + 1e-6
    wrong = bars(40, 2)
    wrong = wrong._replace(labels=1 - wrong.labels)
    write_drawings(run.parent / "wrong.npz", wrong)
    other = evaluate_run(run, samples=20, data=run.parent / "wrong.npz")
    same = evaluate_run(run, samples=20, data=folder / "test.npz")
    assert same["iw"] == pytest.approx(card["iw"], abs=0.2) and other["iw"] < card["iw"] - 5


def picture(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


@pytest.mark.parametrize("run", ["mlp"], indirect=True)
@pytest.mark.parametrize(
    "command",
    [
        ["sample", "-n", "4", "--greedy"],
        ["sample", "--walk", "3", "--greedy"],
        ["interpolate", "0", "2", "--steps", "3"],
        ["traverse", "0", "--dim", "0", "--steps", "3"],
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_commands_take_a_condition(run, command, tmp_path):
    name, *rest = command
    files = []
    for label in ("level", "0", "upright"):
        files.append(tmp_path / f"{label}.png")
        options = ["--condition", label, "--out", str(files[-1])]
        assert main([name, str(run), *rest, *options]) == 0
    level, number, upright = map(picture, files)
    assert (level == number).all() and (level != upright).any()


@pytest.mark.parametrize("run", ["mlp"], indirect=True)
def test_images_bring_their_labels(run, folder, tmp_path, capsys):
    test, out = str(folder / "test.npz"), tmp_path / "means.npz"
    assert main(["encode", str(run), test, "--out", str(out)]) == 0
    images = read_image_file(folder / "test.npz").inputs
    names = [LABELS.names[label] for label in bars(40, 2).labels]
    ours = ImageVAE.from_pretrained(run).encode(images, condition=names).mean.numpy()
    assert np.abs(read_latents(out) - ours).max() < 1e-5
    by_index, by_file = tmp_path / "a.png", tmp_path / "b.png"
    rows = [str(row) for row in range(40)]
    assert main(["reconstruct", str(run), *rows, "--out", str(by_index)]) == 0
    assert main(["reconstruct", str(run), "--file", test, "--out", str(by_file)]) == 0
    assert (picture(by_index) == picture(by_file)).all()
    assert main(["interpolate", str(run), "0", "1", "--out", str(tmp_path / "c.png")]) == 2
    assert "pass it with --condition" in capsys.readouterr().err


def test_what_is_missing_is_one_line(folder, tmp_path, capsys):
    plain = tmp_path / "plain"
    plain.mkdir()
    for split in ("train", "valid", "test"):
        write_drawings(plain / f"{split}.npz", Drawings(bars(20, 0).images))
    words = ["train", "--out", str(tmp_path / "run"), *OPTIONS, "--model.condition", "label"]
    assert main([*words, "--data.dir", str(plain)]) == 2
    assert "train examples have no labels" in capsys.readouterr().err
    assert main([*words, "--data.dir", str(folder), "--model.prior", "vamp"]) == 2
    assert "condition label does not fit prior vamp" in capsys.readouterr().err


def test_labels_of_data_are_names_and_only_an_option_may_be_a_number():
    digits = Classes(("5", "7", "9"), (3, 1, 0))
    assert digits.codes(["7", 0]).tolist() == [1, 0]
    assert Classes(("a", "b"), (3, 1)).codes(["1", "a"], by_number=True).tolist() == [1, 0]
    with pytest.raises(UserError, match="choose from 5, 7"):
        digits.codes(["0"], by_number=True)  # the names are numbers: it is no digit of these
    for wrong in ("0", "9", 2, None):  # an index, a label without examples, its index, no label
        with pytest.raises(UserError, match="choose from 5, 7"):
            digits.codes([wrong])
    assert codes_of(digits, np.array([0, 1]), 2).tolist() == [0, 1]
    assert codes_of(digits, torch.tensor(1), 2).tolist() == [1, 1]


@pytest.mark.parametrize("run", ["mlp"], indirect=True)
def test_other_data_is_read_with_the_labels_of_the_model(run, folder, tmp_path):
    """The same images and integers, but the order of the label names is another one."""
    for split in ("train", "valid", "test"):
        there = read_image_split(folder / f"{split}.npz")
        drawings = Drawings(there.gray, 1 - there.labels, ["upright", "level"])
        write_drawings(tmp_path / f"{split}.npz", drawings)
    cards = [evaluate_run(run, samples=2, data=data) for data in (folder, tmp_path / "test.npz")]
    assert cards[0]["iw"] == pytest.approx(cards[1]["iw"], abs=1e-4)
    opened = open_run(run, data=folder)
    assert opened.split("test").conditions[:4].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("run", ["mlp"], indirect=True)
@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_decode_takes_the_labels_in_the_file(run, folder, ending, tmp_path):
    out, own, given = tmp_path / f"l.{ending}", tmp_path / "own.png", tmp_path / "given.png"
    assert main(["encode", str(run), str(folder / "test.npz"), "--out", str(out)]) == 0
    assert main(["decode", str(run), str(out), "--out", str(own)]) == 0
    model, names = ImageVAE.from_pretrained(run), [LABELS.names[x] for x in bars(40, 2).labels]
    assert read_labels(out, 40) == names
    with model.presenter(out=given, format="text", show_sources=False) as shown:
        shown.show(model.decode(torch.from_numpy(read_latents(out)), condition=names))
    assert (picture(own) == picture(given)).all()


@pytest.mark.parametrize("run", ["mlp"], indirect=True)
def test_a_grid_has_one_label(run):
    model = ImageVAE.from_pretrained(run)
    drawn = model.walk(4, seed=3)
    assert any(torch.equal(drawn, model.walk(4, seed=3, condition=name)) for name in LABELS.names)


@pytest.mark.parametrize("run", ["mlp"], indirect=True)
def test_a_wrong_condition_is_refused_before_any_work(run, trained, tmp_path, capsys):
    for folder, label in ((run, "sideways"), (trained, "level"), (run, "9" * 5000)):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        assert main(["sample", str(copy), "--from", "aggregate", f"--condition={label}"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert not (copy / "sampler.safetensors").exists()
        shutil.rmtree(copy)


@pytest.mark.parametrize("run", ["mlp"], indirect=True)
def test_a_condition_that_does_not_fit_the_model_is_refused(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    record = {"names": ["a", "b", "c"], "counts": [1, 1, 1]}
    (copy / "condition.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="does not describe a condition"):
        ImageVAE.from_pretrained(copy)


def test_a_decoder_of_your_own_needs_no_condition():
    class Plain(nn.Module):
        def log_prob(self, batch, z):
            return -z.square().sum(-1)

        def sample(self, z, uniforms=None):
            return torch.zeros(len(z), SIDE, SIDE)

    class Model(ImageVAE):
        def make_decoder(self, config):
            return Plain()

    assert Model(SIDE, SIDE, 2, **SMALL).sample(3).shape == (3, SIDE, SIDE)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (np.arange(4.0), None, "must be integers"),
        (np.arange(4), "abc", "label_names has shape"),
    ],
)
def test_labels_of_images_that_are_none(labels, names, message, tmp_path):
    arrays = {"images": np.zeros((4, SIDE, SIDE), np.uint8), "labels": labels}
    np.savez(tmp_path / "x.npz", **arrays, **({} if names is None else {"label_names": names}))
    with pytest.raises(UserError, match=message):
        read_image_split(tmp_path / "x.npz")


@pytest.mark.parametrize("run", ["mlp"], indirect=True)
def test_no_latent_vectors_are_no_images(run):
    model = ImageVAE.from_pretrained(run)
    shape = (0, model.config["height"], model.config["width"])
    assert model.decode(torch.zeros(0, model.latent_dim)).shape == shape


@pytest.mark.parametrize("run", ["mlp"], indirect=True)
def test_an_image_is_looked_up_where_the_data_is_now(run, folder, tmp_path, monkeypatch):
    moved, copy = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(folder, moved)
    shutil.copytree(run, copy)
    config = (copy / "config.yaml").read_text().replace(str(folder), str(tmp_path / "gone"))
    (copy / "config.yaml").write_text(config)
    words = [*("neighbors", str(copy), "3", "-n", "2"), "--condition", LABELS.names[0]]
    assert main(words) == 2
    assert main([*words, "--data", str(moved)]) == 0


def test_a_grid_is_one_over_the_prior(tmp_path, capsys):
    model = ImageVAE(8, 8, latent_dim=2, decoder="mlp", decoder_hidden=8, encoder_hidden=8)
    model.save_pretrained(tmp_path)
    words = ["sample", str(tmp_path), "--walk", "3", "--out", str(tmp_path / "a.png")]
    assert main([*words, "--from", "aggregate"]) == 2
    assert "--walk shows the quantiles of the prior" in capsys.readouterr().err
