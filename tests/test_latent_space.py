"""Arithmetic with labels and nearest neighbors: on known latent vectors, and as commands."""

import json
import shutil

import numpy as np
import pytest
import torch

import textvae
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.latent import arithmetic, classification
from textvae.evaluation.latent.arithmetic import attribute_vector, moved
from textvae.evaluation.latent.neighbors import nearest, neighbors
from textvae.images.model import ImageVAE
from textvae.vae.posteriors import DiagGaussian

SENTENCE = "the cat sees the tree"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_in_another_precision_is_probed_mapped_and_searched(trained, tmp_path, dtype):
    model = textvae.load(trained).to(dtype)
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert 0 <= textvae.probe(run, model=model)["linear_accuracy"] <= 1
    assert len(textvae.neighbors(run, "the cat likes the tree", 2, model=model)) == 2
    textvae.map(run, tmp_path / "map.png", model=model)
    assert (tmp_path / "map.png").exists()


@pytest.mark.parametrize("seed", [-(2**63), -1, np.int64(7), 2**64 - 1])
def test_seeds_at_their_limits_are_accepted(trained, tmp_path, seed):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    textvae.diagnose_run(run, samples=1, seed=seed)
    textvae.evaluate_run(run, samples=2, generations=2, seed=seed)
    textvae.fit_sampler(run, seed=seed)
    textvae.optimize(run, len, budget=3, method="evolution", seed=seed)


@pytest.mark.parametrize(
    "result",
    [
        lambda run, seed: textvae.evaluate_run(run, samples=2, generations=0, seed=seed)["iw"],
        lambda run, seed: textvae.diagnose_run(run, samples=1, seed=seed).evidence,
        lambda run, seed: textvae.fit_sampler(run, seed=seed).means.tolist(),
        lambda run, seed: textvae.score(textvae.load(run), ["the cat"], seed=seed)["iw"].tolist(),
        lambda run, seed: textvae.load(run).sample(5, seed=seed),
    ],
    ids=["evaluate_run", "diagnose_run", "fit_sampler", "score", "sample"],
)
def test_results_are_a_function_of_the_seed(trained, tmp_path, result):
    run = shutil.copytree(trained, tmp_path / "run")
    first = result(run, 1)
    assert result(run, 1) == first and result(run, 2) != first


def test_a_probe_starts_from_its_seed_and_leaves_the_global_one(monkeypatch):
    starts = []
    monkeypatch.setattr(
        classification, "_fit", lambda network, *_: starts.append(network[0].weight.tolist())
    )
    part = classification.Labeled(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    before = torch.get_rng_state()
    for seed in (1, 1, 2):
        classification._mlp_correct(part, part, part, seed)
    assert starts[0] == starts[1] != starts[2]
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture
def known(monkeypatch):
    """Posteriors whose means are the label in dimension 0, and its square in dimension 2."""

    def known_posteriors(model, split, rows, **options):
        labels = torch.from_numpy(split.labels[rows]).float()
        same = torch.ones(len(rows))
        mean = torch.stack([labels, 5 * same, labels.square(), -same], dim=1)
        return DiagGaussian(mean, mean)

    monkeypatch.setattr(arithmetic, "posteriors", known_posteriors)


def test_the_vector_is_the_difference_of_the_class_means(trained, known):
    vector = attribute_vector(trained, "0", "2")
    assert vector.tolist() == pytest.approx([2, 0, 4, 0], abs=1e-6)
    assert attribute_vector(trained, 2, 1).tolist() == pytest.approx([-1, 0, -3, 0], abs=1e-6)


def test_the_means_of_the_training_split(trained, corpus):
    lines = [line.split("\t") for line in (corpus / "train.txt").read_text().splitlines()]
    model = textvae.load(str(trained))
    means = {
        label: model.encode([text for own, text in lines if own == label]).mean for label in "012"
    }
    expected = means["1"].mean(0) - means["0"].mean(0)
    assert torch.allclose(attribute_vector(trained, "0", "1"), expected, atol=1e-5)
    spaced = [0, 16, 31]  # of 32
    few = means["1"][spaced].mean(0) - means["0"][spaced].mean(0)
    assert torch.allclose(attribute_vector(trained, "0", "1", limit=3), few, atol=1e-5)


def test_moving():
    torch.manual_seed(0)
    flat = ImageVAE(4, 4, 2, encoder_layers=1, decoder_layers=1)
    z, vector = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([1.0, -2.0])
    assert moved(flat, z, vector, -0.5).tolist() == [[0.5, 1.0], [-0.5, 1.0]]
    sphere = ImageVAE(4, 4, 2, posterior="vmf", encoder_layers=1, decoder_layers=1)
    assert moved(sphere, z[:1], torch.tensor([2.0, 4.0]))[0].tolist() == pytest.approx([0.6, 0.8])


def test_arithmetic_as_a_command(trained, capsys):
    argv = ["arithmetic", str(trained), "--from", "0", "--to", "1", SENTENCE, "a dog eats"]
    assert main([*argv, "--strength", "2", "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    model = textvae.load(str(trained))
    z = model.encode([SENTENCE, "a dog eats"]).mean + 2 * attribute_vector(trained, "0", "1")
    assert [row["text"] for row in rows] == model.decode(z)
    assert [row["source"] for row in rows] == [SENTENCE, "a dog eats"]
    assert main(["arithmetic", str(trained), "--from", "0", "--to", "9", SENTENCE]) == 2
    assert "no example has the label '9': choose from 0, 1, 2" in capsys.readouterr().err
    assert main(["arithmetic", str(trained), "--from", "0", "--to", "0", SENTENCE]) == 2
    assert "the same label" in capsys.readouterr().err


def test_the_nearest_points():
    points = np.array([[1.0, 0.0], [0.0, 2.0], [10.0, 1.0], [-1.0, 0.0]])
    distances, rows = nearest(points, np.array([[2.0, 0.0]]), 2)
    assert rows.tolist() == [[0, 1]] and distances[0] == pytest.approx([1, 8**0.5])
    distances, rows = nearest(points, np.array([[2.0, 0.0]]), 9, "cosine")
    assert rows.tolist() == [[0, 2, 1, 3]]
    assert distances[0] == pytest.approx([0, 1 - 10 / 101**0.5, 1, 2])
    with pytest.raises(UserError, match="choose euclidean or cosine"):
        nearest(points, points, 1, "manhattan")


def test_a_sentence_is_its_own_nearest_neighbor(trained, corpus):
    text = (corpus / "test.txt").read_text().splitlines()[4].split("\t")[1]
    first, second = neighbors(trained, text, 2)
    assert first["text"] == text and first["distance"] == pytest.approx(0, abs=1e-3)
    assert second["distance"] >= first["distance"]
    assert len(neighbors(trained, text, 50, split="valid")) == 20
    with pytest.raises(UserError, match="n=0"):
        neighbors(trained, text, 0)


def test_neighbors_in_a_file_as_a_command(trained, tmp_path, capsys):
    (tmp_path / "other.txt").write_text(f"my dog eats the house\n{SENTENCE}\n")
    argv = ["neighbors", str(trained), SENTENCE, "--data", str(tmp_path / "other.txt")]
    assert main([*argv, "-n", "1", "--format", "jsonl"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["row"] == 1 and row["text"] == SENTENCE
    assert row["distance"] == pytest.approx(0, abs=1e-3)
    assert main(argv) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["distance", "row", "text"]
    assert first.split()[1] == "1" and second.endswith("my dog eats the house")
    (tmp_path / "other.csv").write_text(f"id,said\n1,my dog eats the house\n2,{SENTENCE}\n")
    argv = [*argv[:3], "--data", str(tmp_path / "other.csv"), "--data.text_column", "said"]
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [first, second]


@pytest.mark.parametrize("command", ["reconstruct", "interpolate", "traverse", "neighbors", "map"])
def test_commands_that_encode_warn_if_z_is_not_used(trained, tmp_path, command, caplog):
    run = shutil.copytree(trained, tmp_path / "run")
    card = run / "metrics" / "test.json"
    options = {"map": ["--out", str(tmp_path / "map.svg")], "traverse": [SENTENCE, "--dim", "0"]}
    options["interpolate"] = [SENTENCE, SENTENCE]
    for verdict in (None, "z is not used"):
        card.write_text(json.dumps(json.loads(card.read_text()) | {"collapse": verdict}))
        caplog.clear()
        assert main([command, str(run), *options.get(command, [SENTENCE])]) == 0
        assert (f"{run}: z is not used" in caplog.messages) == (verdict is not None)


@pytest.mark.parametrize(
    "argv",
    [["neighbors", SENTENCE], ["arithmetic", "--from", "0", "--to", "1", SENTENCE]],
    ids=lambda argv: argv[0],
)
def test_a_language_model_has_no_latent_space(language_model, argv, capsys):
    assert main([argv[0], str(language_model), *argv[1:]]) == 2
    assert "no latent variable" in capsys.readouterr().err
