"""Traversals: what changes, what stays, which dimensions are worth it, and what is refused."""

import json
from types import SimpleNamespace

import pytest
import torch

import textvae
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.latent.traversal import leading_dimensions, traverse
from textvae.evaluation.open_run import open_run
from textvae.images.model import ImageVAE
from textvae.vae.interpolation import along
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.priors import MixturePrior


@pytest.fixture(scope="module")
def opened(trained):
    return open_run(trained, device="cpu")


def test_only_the_chosen_dimension_changes():
    z, values = torch.tensor([1.0, 2.0, 3.0, 4.0]), [-1.5, 0.0, 7.0]
    points = along(z, [2, 0], values)
    assert points.shape == (6, 4)
    assert points[:3, 2].tolist() == values and points[3:, 0].tolist() == values
    assert (points[:3, [0, 1, 3]] == z[[0, 1, 3]]).all()
    assert (points[3:, 1:] == z[1:]).all()
    assert z.tolist() == [1, 2, 3, 4]


def test_the_points_are_decoded_in_order(opened):
    model, z = opened.model, torch.tensor([0.5, -1.0, 2.0, 0.0])
    moved = z.repeat(3, 1)
    moved[:, 1] = torch.tensor([-2.0, 0.0, 2.0])
    assert traverse(model, z, 1, [-2, 0, 2], seed=3) == model.decode(moved, seed=3)
    both = traverse(model, z, [1, 3], torch.tensor([-2.0, 0.0, 2.0]))
    assert both[:3] == traverse(model, z, 1, [-2, 0, 2]) and len(both) == 6


def test_sampled_images_of_a_traversal_differ_only_because_of_z():
    torch.manual_seed(0)
    model = ImageVAE(4, 4, 2, encoder_layers=1, decoder_hidden=4, decoder_layers=2).eval()
    images = traverse(model, torch.zeros(2), 0, [0.0, 0.0, 9.0], do_sample=True)
    assert (images[0] == images[1]).all() and not (images[0] == images[2]).all()


@pytest.mark.parametrize(
    ("dimension", "values", "message"),
    [
        (4, [0.0], "dimension 4: this model has 4 latent dimensions, 0 to 3"),
        (-1, [0.0], "dimension -1"),
        ([], [0.0], "at least one dimension"),
        (0, [], "finite values"),
        (0, [float("nan")], "finite values"),
    ],
)
def test_what_a_traversal_refuses(opened, dimension, values, message):
    with pytest.raises(UserError, match=message):
        traverse(opened.model, torch.zeros(4), dimension, values)


def test_a_sphere_has_no_single_dimensions():
    model = ImageVAE(4, 4, 3, posterior="vmf", encoder_layers=1, decoder_layers=1)
    with pytest.raises(UserError, match="sphere"):
        traverse(model, torch.tensor([1.0, 0.0, 0.0]), 0, [0.5])


@pytest.fixture
def known(monkeypatch):
    """Posteriors whose dimension 1 has the largest KL but does not vary, and 3 has collapsed."""
    mean = torch.tensor([[0.5, 9.0, 2.0, 0.0], [-0.5, 9.0, -2.0, 0.0]])
    q = DiagGaussian(mean, torch.zeros(2, 4))
    monkeypatch.setattr("textvae.evaluation.latent.traversal.posteriors", lambda *_, **__: q)


def test_the_leading_dimensions_are_the_active_ones_with_the_largest_kl(opened, known):
    found = leading_dimensions(opened.model, opened.split("test"))
    assert list(found) == [2, 0]
    assert found == pytest.approx({2: 2.0, 0: 0.125})
    assert list(leading_dimensions(opened.model, opened.split("test"), 1)) == [2]


def test_without_dim_the_command_changes_the_leading_dimensions(trained, known, capsys):
    assert main(["traverse", str(trained), "a cat", "--steps", "2", "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["dimension"] for row in rows] == [2, 2, 0, 0]


def test_a_collapsed_model_has_no_leading_dimension(opened, monkeypatch):
    q = DiagGaussian(torch.ones(9, 4), torch.zeros(9, 4))
    monkeypatch.setattr("textvae.evaluation.latent.traversal.posteriors", lambda *_, **__: q)
    with pytest.raises(UserError, match="no latent dimension is active"):
        leading_dimensions(opened.model, opened.split("valid"))


def test_a_kl_that_is_only_estimated_leads_nowhere(known):
    model = SimpleNamespace(on_sphere=False, latent_dim=4, prior=MixturePrior(4))
    with pytest.raises(UserError, match=r"cannot be divided .* active: 0, 2"):
        leading_dimensions(model, "2 examples")


def test_the_command(trained, capsys):
    argv = ["traverse", str(trained), "the cat sees the tree", "--steps", "3", "--span", "2"]
    assert main([*argv, "--dim", "3", "0", "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    places = [(row["dimension"], row["value"]) for row in rows]
    assert places == [(3, -2), (3, 0), (3, 2), (0, -2), (0, 0), (0, 2)]
    model = textvae.load(str(trained))
    z = model.encode(["the cat sees the tree"]).mean[0]
    assert [row["text"] for row in rows] == traverse(model, z, [3, 0], [-2, 0, 2])
    assert main([*argv, "--dim", "3"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["dimension", "value"]
    assert [line.split()[:2] for line in lines] == [["3", "-2.00"], ["3", "0.00"], ["3", "2.00"]]
    assert main([*argv, "--dim", "7"]) == 2
    assert "dimension 7" in capsys.readouterr().err
    assert main([*argv, "--dim", "-1"]) == 2
    assert "--dim -1: must be at least 0" in capsys.readouterr().err
    assert main([*argv, "--span", "1e40"]) == 2
    assert "--span 1e40: must be above 0 and at most 1000000" in capsys.readouterr().err
    assert main([*argv[:3], "--steps", "1"]) == 2
    assert "--steps 1: must be at least 2" in capsys.readouterr().err
