"""A run does not depend on the settings of the process that starts it, and leaves them alone."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import textvae
from textvae.cli.arguments import parse
from textvae.config.experiment import Config
from textvae.evaluation.evaluate_run import GENERATIONS
from textvae.runs import model_folder
from textvae.runs.model_folder import weights_hash
from textvae.runs.origin import own_command, recorded_as


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS = {
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "another device": lambda: default_device("meta"),  # where nothing can be computed
}


@pytest.fixture(scope="module")
def config(corpus):
    small = {"embedding_dim": 8, "encoder_hidden": 8, "decoder_hidden": 8, "latent_dim": 4}
    return textvae.Config.load(
        data={"dir": str(corpus), "tokenized": True},
        model=small,
        train={"epochs": 2, "precision": "fp32", "samples": 2, "max_steps": 4, "threads": 1},
    )


@pytest.fixture(scope="module")
def plain(config, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "plain"
    textvae.train(config, run)
    return run


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_settings_of_the_caller_do_not_change_a_run(setting, config, plain, tmp_path):
    with SETTINGS[setting]():
        model = textvae.train(config, tmp_path / "run")
    assert weights_hash(tmp_path / "run") == weights_hash(plain)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("setting", ["float64", "float16", "another device", "inference mode"])
def test_nor_what_a_model_answers(setting, plain):
    expected = textvae.load(plain)
    with SETTINGS[setting]():
        model = textvae.load(plain)
        texts = model.sample(3, seed=1)
        means = model.encode(["the cat", "a dog"]).center()
        scores = textvae.score(model, ["the cat"], samples=3, regret_steps=0)["iw"]
    assert texts == expected.sample(3, seed=1)
    assert torch.equal(means, expected.encode(["the cat", "a dog"]).center())
    same = textvae.score(expected, ["the cat"], samples=3, regret_steps=0)["iw"]
    assert list(scores) == list(same)


def test_a_run_leaves_the_settings_as_they_were(config, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with torch.no_grad(), default_dtype(torch.float64):
        textvae.train(config, tmp_path / "run")
        assert torch.get_default_dtype() == torch.float64 and not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


@pytest.mark.parametrize("prior", [{}, {"prior": "mixture"}, {"posterior": "vmf"}])
def test_a_prior_draws_on_the_cpu(prior):
    model = textvae.TextVAE(9, latent_dim=4, embedding_dim=8, **prior)
    with default_device("meta"):
        assert model.prior.sample(3).device.type == "cpu"


def test_a_probe_does_not_depend_on_the_default_device(plain):
    expected = textvae.probe(plain)
    with default_device("meta"):
        found = textvae.probe(plain)
    assert (found["accuracy"], found["accuracy_se"]) == (
        expected["accuracy"],
        expected["accuracy_se"],
    )


def test_the_command_of_a_job_is_recorded_instead_of_that_of_the_process():
    before = own_command()
    with recorded_as("textvae train --out runs/a"):
        assert own_command() == "textvae train --out runs/a"
    assert own_command() == before


def test_the_model_that_a_run_starts_from_is_looked_up_once(config, plain, tmp_path, monkeypatch):
    asked = []

    def fetch(name, **_):
        asked.append(name)
        return plain if name == "somebody/model" else Path(name)

    monkeypatch.setattr(model_folder, "fetch", fetch)
    start = {"init": "somebody/model", "max_steps": 1}
    begun = replace(config, train=replace(config.train, **start))
    textvae.train(begun, tmp_path / "run")
    assert asked.count("somebody/model") == 1
    assert Config.load(tmp_path / "run" / "config.yaml").train.init == "somebody/model"


def test_every_command_generates_as_many_texts_by_default():
    assert parse(["evaluate", "runs/a"])[1].generations == GENERATIONS
