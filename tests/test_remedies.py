"""Advice against collapse and diverging training."""

from dataclasses import replace

import pytest

from textvae.cli.arguments import parse
from textvae.cli.train import config_of
from textvae.config.experiment import (
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    TrainConfig,
)
from textvae.config.inference import Inference
from textvae.evaluation.diagnosis import overshoot, remedies, steadier, verdict


def config(**parts) -> Config:
    sections = {
        "model": ModelConfig,
        "objective": ObjectiveConfig,
        "inference": Inference,
        "optim": OptimConfig,
        "train": TrainConfig,
    }
    return replace(Config(), **{name: sections[name](**given) for name, given in parts.items()})


def test_remedies_are_not_already_in_use():
    plain = config(model={"injection": "init"}, objective={"kl_schedule": "constant"})
    assert remedies(plain) == (
        "--model.injection skip or --objective.kl_schedule linear or --objective.free_bits 4 or "
        "--model.word_dropout 0.3 or --inference.method semi_amortised (see recipes/methods)"
    )
    cured = config(
        model={"injection": "skip", "word_dropout": 0.2},
        objective={"kl_schedule": "cyclical", "free_bits": 3.0},
        inference={"method": "semi_amortised"},
    )
    assert remedies(cured) == "--objective.free_bits 6 (see recipes/methods)"
    assert "--objective.kl_schedule cyclical" in remedies(
        config(objective={"kl_schedule": "linear"})
    )


def test_options_that_do_not_apply_to_the_data_are_not_suggested():
    images = replace(config(model={"injection": "input"}), data=DataConfig(kind="images"))
    assert "--model.word_dropout" not in remedies(images)
    assert remedies(images).startswith("--model.injection skip or ")


CARD = {"latent_dim": 4, "kl": 3.0, "au": 2, "shuffle_gap": 5.0}


def test_a_latent_that_is_used_needs_no_remedy():
    assert verdict(CARD) is None
    assert verdict({**CARD, "latent_dim": 0, "kl": 0.0, "au": 0}) is None
    assert verdict({**CARD, "shuffle_gap": None}) is None


def test_a_collapsed_latent_is_reported_with_what_to_try():
    for change in ({"kl": 0.01}, {"au": 0}, {"encoder_au": 0}):
        said = verdict({**CARD, **change}, "this")
        assert said.startswith("posterior collapse") and said.endswith("; try this")
    said = verdict({**CARD, "shuffle_gap": 0.01}, "this")
    assert "costs only 0.01 nats; try this" in said and "2 of 4 dimensions active" in said


def test_refinement_that_overshoots_needs_shorter_steps():
    said = overshoot(-2.7, config(inference={"method": "semi_amortised", "lr": 0.3}))
    assert said.startswith("refinement lowers the ELBO by 2.70 nats")
    assert said.endswith("try --inference.lr 0.1")


def test_steadier_names_only_what_is_not_done_yet():
    refined = config(inference={"method": "semi_amortised", "lr": 1.0}, train={"precision": "bf16"})
    assert steadier(refined) == (
        "try --optim.lr 0.3 or --optim.name adam --optim.lr 0.001 or --inference.lr 0.3 "
        "or --train.precision fp32"
    )
    free = config(inference={"method": "semi_amortised", "max_growth": 0.0})
    assert "or --inference.max_growth 3" in steadier(free)
    plain = config(optim={"name": "adam", "lr": 0.001}, train={"precision": "fp32"})
    assert steadier(plain) == "try --optim.lr 0.0003"


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steadier_names_options_that_the_command_line_takes(name):
    advised = steadier(config(optim={"name": name}, inference={"method": "svi"}))
    options = advised.removeprefix("try ").replace(" or ", " ").split()
    _, args = parse(["train", "--out", "run", "--data.dir", "corpus", *options])
    assert config_of(args).optim.lr < OptimConfig().lr
