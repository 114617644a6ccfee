"""When a latent variable died, from the lines of metrics.jsonl."""

import json
from dataclasses import replace

import pytest

from textvae.config.experiment import Config
from textvae.config.sections import ModelConfig, ObjectiveConfig
from textvae.evaluation.diagnosis.history import (
    Death,
    History,
    read_history,
    read_training,
    recorded_collapse,
)
from textvae.evaluation.diagnosis.training_state import why_under_trained
from textvae.evaluation.goal import Goal
from textvae.runs.model_folder import WEIGHTS, metrics_path, weights_hash


def train(step, kl, beta):
    return {"step": step, "epoch": step / 100, "group": "train", "kl": kl, "beta": beta}


def valid(step, elbo, kl, mi, au, **further):
    figures = {"elbo": elbo, "kl": kl, "mi": mi, "au": au}
    return {"step": step, "epoch": step / 100, "group": "valid", **figures, **further}


COLLAPSE = [
    train(50, 21.7, 0.2),
    train(90, 0.35, 0.4),
    valid(100, -60.0, 0.3, 0.2, 1, kl_per_dim=[0.3, 0.0]),
    train(150, 0.05, 0.6),
    valid(200, -50.0, 0.04, 0.01, 0, kl_per_dim=[0.005, 0.0]),
    valid(300, -47.0, 0.0, 0.0, 0, kl_per_dim=[0.0, 0.0]),
]


@pytest.fixture
def write(tmp_path):
    def write(lines, finished="all steps done", **further):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
        (tmp_path / "training.json").write_text(json.dumps({"finished": finished, **further}))
        return tmp_path

    return write


def test_the_epoch_and_the_kl_weight_of_every_death(write):
    assert read_history(write(COLLAPSE)).deaths == (
        Death("kl", epoch=2.0, beta=0.6, value=0.3, alive_at=1.0),
        Death("mi", epoch=2.0, beta=0.6, value=0.2, alive_at=1.0),
        Death("au", epoch=2.0, beta=0.6, value=1, alive_at=1.0),
    )


def test_the_evaluation_of_the_best_model_says_whether_z_is_used(write):
    dead = valid(100, -60.0, 0.0, 0.0, 0, collapse="z is not used")
    Config().save(write([]) / "config.yaml")
    alive = valid(200, -50.0, 3.0, 3.0, 4)
    assert recorded_collapse(write([])) is None
    assert recorded_collapse(write([dead])) == "z is not used"
    assert recorded_collapse(write([dead, alive])) is None
    run = write([alive, {**dead, "step": 300}])  # the last model is not the best
    assert recorded_collapse(run) is None
    (run / WEIGHTS).write_bytes(b"weights")
    metrics_path(run).parent.mkdir()
    for weights, said in ((weights_hash(run), "still not used"), ("those of before", None)):
        card = {"collapse": "still not used", "weights": weights}
        metrics_path(run).write_text(json.dumps(card), encoding="utf-8")
        assert recorded_collapse(run) == said


def test_a_dimension_dies_when_its_kl_does(write):
    history = read_history(write(COLLAPSE))
    assert history.died(0) == 2.0
    assert history.died(1) is None  # it never lived
    assert read_history(write([valid(100, -6.0, 1.0, 1.0, 1)])).died(0) is None  # not logged


def test_what_never_lived_died_at_the_first_look(write):
    lines = [train(10, 0.02, 0.1), valid(100, -60.0, 0.0, 0.0, 0)]
    deaths = read_history(write(lines)).deaths
    assert deaths[0] == Death("kl", epoch=1.0, beta=0.1, value=None, alive_at=None)
    assert [death.epoch for death in deaths] == [1.0, 1.0, 1.0]


def test_the_kl_weight_of_an_evaluation_is_not_that_of_later_steps(write):
    moments = read_history(write([*COLLAPSE, train(350, 0.0, 0.9)])).moments
    assert [moment.beta for moment in moments] == [0.4, 0.6, 0.6]


def test_what_lives_again_is_not_dead(write):
    history = read_history(write([*COLLAPSE, valid(400, -46.0, 2.0, 1.0, 3)]))
    assert history.deaths == ()
    assert [moment.mi for moment in history.moments] == [0.2, 0.01, 0.0, 1.0]
    assert history.moments[1].beta == 0.6


def test_figures_before_refinement_count(write):
    line = valid(100, -60.0, 3.0, 2.0, 4, encoder_kl=0.01, encoder_mi=0.0, encoder_au=0)
    assert [death.key for death in read_history(write([line])).deaths] == ["kl", "mi", "au"]


def test_damaged_lines_are_skipped(write):
    run = write(COLLAPSE)
    whole = read_history(run)
    damaged = b'{"step": 7\n[1]\n"text"\n\xff\xfe\n{"step": "x", "epoch": 1}\n'
    (run / "metrics.jsonl").write_bytes(damaged + (run / "metrics.jsonl").read_bytes() + b'{"st')
    assert read_history(run) == whole
    assert read_history(run / "nowhere") == History()


def test_the_gain_is_that_of_one_epoch_at_the_full_kl_weight(write):
    run = write(COLLAPSE)
    config = Config.load(objective={"beta": 0.6})
    found = read_training(run, config, read_history(run))
    assert (found.finished, found.epoch, found.elbo) == (True, 3.0, -47.0)
    assert found.gain == pytest.approx(3.0)
    assert read_training(run, Config(), read_history(run)).gain is None  # the weight still rises
    seldom = write([valid(100, -60.0, 1.0, 1.0, 1), valid(300, -50.0, 1.0, 1.0, 1)])
    assert read_training(seldom, Config(), read_history(seldom)).gain == pytest.approx(5.0)
    often = [valid(100 + 10 * i, -50.0 + i, 1.0, 1.0, 1) for i in range(21)]
    run = write(often)
    assert read_training(run, Config(), read_history(run)).gain == pytest.approx(10.0)


def test_a_best_model_from_before_the_end_gains_nothing(write):
    run = write([*COLLAPSE, valid(400, -48.0, 0.0, 0.0, 0)], finished=None)
    found = read_training(run, Config(), read_history(run))
    assert (found.finished, found.epoch, found.gain) == (False, 3.0, None)


def test_the_model_of_a_resumed_search_is_the_one_that_was_saved(write):
    """With another KL weight, the search for the best model starts over, perhaps lower."""
    run = write([valid(100, -40.0, 0.0, 0.0, 0, collapse="dead"), *COLLAPSE[2:]], best_step=200)
    found = read_training(run, Config(), read_history(run))
    assert (found.epoch, found.elbo, found.gain) == (2.0, -50.0, None)
    Config().save(run / "config.yaml")
    assert recorded_collapse(run) is None
    assert read_training(write(COLLAPSE, best_step=7), Config(), read_history(run)).epoch == 3.0


def test_a_model_that_autoencodes_is_not_the_one_that_was_saved(write):
    run = write([valid(100, -10.0, 80.0, 5.0, 4), *COLLAPSE[4:]])
    config = Config.load(train={"autoencode_epochs": 1.0})
    assert read_training(run, config, read_history(run)).elbo == -47.0
    config = Config.load(train={"autoencode_epochs": 0.99})  # which are rounded to whole steps
    write([valid(100, -10.0, 80.0, 5.0, 4), *COLLAPSE[4:]], autoencode_steps=100)
    assert read_training(run, config, read_history(run)).elbo == -47.0


def test_dimensions_are_those_before_refinement_as_all_else(write):
    refined = {"encoder_kl": 0.0, "encoder_kl_per_dim": [0.0, 0.0], "kl_per_dim": [2.0, 1.0]}
    found = read_history(write([valid(100, -60.0, 3.0, 0.2, 1, **refined)]))
    assert found.moments[0].kl == 0 and found.moments[0].kl_per_dim == (0.0, 0.0)


def test_what_is_still_rising_is_what_models_are_selected_by(write):
    run = write(
        [valid(100, -30.0, 9.0, 2.0, 2, rec=-21.0), valid(200, -25.0, 9.0, 2.0, 2, rec=-16.0)]
    )
    for config, name in (
        (Config(), "ELBO"),
        (Config(objective=ObjectiveConfig(beta=0.5)), "selection criterion (rec - 0.5 kl)"),
    ):
        why = why_under_trained(read_training(run, config, read_history(run)))
        assert why is not None and f"while the {name} was still rising" in why


def test_with_another_kl_weight_the_best_model_is_the_best_in_what_is_trained(write):
    lines = [
        valid(100, -20.0, 1.0, 1.0, 1, rec=-19.0),  # the best ELBO
        valid(200, -25.0, 10.0, 2.0, 2, rec=-15.0),
        valid(300, -24.0, 12.0, 2.0, 2, rec=-12.0),
    ]
    run = write(lines)
    config = Config(objective=ObjectiveConfig(beta=0.1))
    training = read_training(run, config, read_history(run))
    assert training.epoch == 3.0 and training.elbo == -24.0
    assert training.gain == pytest.approx((-12 - 1.2) - (-15 - 1))


@pytest.mark.parametrize(
    ("beta", "free", "name", "goals"),
    [
        (1.0, 0.0, "elbo", (-60.0, -63.0)),
        (0.1, 0.0, "rec - 0.1 kl", (-15.0, -9.0)),
        (1.0, 68.0, "rec - max(kl, 68)", (-78.0, -71.0)),
        (1.0, 2.0, "rec - max(kl, 2)", (-60.0, -63.0)),
        (0.5, 55.0, "rec - 0.5 max(kl, 55)", (-37.5, -33.0)),
    ],
)
def test_the_goal_is_what_is_trained(beta, free, name, goals):
    objective = ObjectiveConfig(beta=beta, free_bits=free)
    goal = Goal.of(replace(Config(), objective=objective))
    assert goal.name == name
    early, late = goal.reached(-10.0, -60.0), goal.reached(-3.0, -63.0)  # KL 50 and 60
    assert (early, late) == pytest.approx(goals)
    demanded = ObjectiveConfig(beta=beta, min_kl=free)
    assert Goal.of(replace(Config(), objective=demanded)) == goal
    language_model = replace(Config(), objective=objective, model=ModelConfig(latent_dim=0))
    assert Goal.of(language_model).reached(-5.0, -5.0) == -5.0
