"""What is advised against collapse and against training that runs away."""

from dataclasses import replace

import pytest

from textvae.cli.arguments import config_of, parse
from textvae.config.experiment import Config, ModelConfig, ObjectiveConfig, OptimConfig, TrainConfig
from textvae.config.inference import Inference
from textvae.evaluation.card import REMEDIES
from textvae.evaluation.diagnosis import remedies, steadier


def config(**parts) -> Config:
    sections = {
        "model": ModelConfig,
        "objective": ObjectiveConfig,
        "inference": Inference,
        "optim": OptimConfig,
        "train": TrainConfig,
    }
    return replace(Config(), **{name: sections[name](**given) for name, given in parts.items()})


def test_remedies_are_not_already_on():
    plain = config(model={"injection": "init"}, objective={"kl_schedule": "constant"})
    assert remedies(plain) == (
        "model.injection=skip, objective.kl_schedule=linear, objective.free_bits=4, "
        "model.word_dropout=0.3, inference.method=semi_amortised"
    )
    cured = config(
        model={"injection": "skip", "word_dropout": 0.2},
        objective={"kl_schedule": "cyclical", "free_bits": 3.0},
        inference={"method": "semi_amortised"},
    )
    assert remedies(cured) == "objective.free_bits=6"
    assert "kl_schedule=cyclical" in remedies(config(objective={"kl_schedule": "linear"}))


def test_remedies_are_options_that_exist():
    for remedy in REMEDIES.split(", "):
        part, name = remedy.split("=")[0].split(".")
        assert hasattr(getattr(Config(), part), name)


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
