"""Regression probes: the fit, R² and its interval, and columns of numbers in a run's data."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, in_child

from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.intervals import of_means, of_statistic
from textvae.evaluation.latent.classification import Labeled
from textvae.evaluation.latent.probe import _regression, _some, probe
from textvae.evaluation.latent.regression import Regression, fit_regression, score_regression

WORDS = ["cat", "dog", "bird", "fish"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Rows with the number of words, a number that is often missing, and a class."""
    folder, rng = tmp_path_factory.mktemp("numbers"), random.Random(0)
    for split, count in (("train", 300), ("valid", 40), ("test", 60)):
        rows = []
        for i in range(count):
            words = rng.choices(WORDS, k=rng.randint(1, 9))
            row = {"text": " ".join(words), "size": len(words) - 2, "first": words[0]}
            rows.append(row | {"some": 0.5 * len(words) if i % 2 else None, "label": i % 3})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "vae"
    options = [*TINY, "--data.dir", str(corpus), "--data.max_length", "9", "--data.long", "drop"]
    assert in_child(["train", "--out", str(run), *options, "--model.pooling", "mean"]) == 0
    return run


def test_the_fit_finds_a_linear_function():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(500, 3)) * [1.0, 10.0, 0.1] + [5.0, -3.0, 2.0]
    weights = np.array([2.0, -0.5, 7.0])
    fitted = fit_regression(means, means @ weights + 4)
    assert fitted.coefficients == pytest.approx(weights, rel=1e-3)
    assert fitted.intercept == pytest.approx(4, rel=1e-2)
    again = Regression.of_record(json.loads(json.dumps(fitted.as_record())), "card.json", 3)
    assert np.array_equal(again.predict(means), fitted.predict(means))
    for broken in (
        {},
        {"coefficients": "x", "intercept": 1},
        {"coefficients": [1], "intercept": 1},
    ):
        with pytest.raises(UserError, match=r"card\.json"):
            Regression.of_record(broken, "card.json", 3)


def test_r2_and_mae_are_those_of_scikit_learn_with_intervals_that_contain_the_truth():
    metrics = pytest.importorskip("sklearn.metrics")
    rng, inside = np.random.default_rng(1), 0
    for seed in range(40):
        signal = rng.normal(size=200)
        numbers = signal + 0.5 * rng.normal(size=200)  # R² = 1 - 0.25 / 1.25 = 0.8
        found = score_regression(signal, numbers, seed)
        assert found["r2"] == pytest.approx(metrics.r2_score(numbers, signal))
        assert found["mae"] == pytest.approx(metrics.mean_absolute_error(numbers, signal))
        low, high = found["r2_interval"]
        inside += low < 0.8 < high
        assert found["mae_interval"][0] < found["mae"] < found["mae_interval"][1]
    assert inside >= 34


def test_a_constant_has_no_r2():
    found = score_regression(np.array([1.0, 2.0, 4.0]), np.full(3, 3.0))
    assert found["r2"] is None and found["r2_interval"] is None
    assert found["mae"] == pytest.approx(4 / 3)


def test_three_examples_are_too_few_for_an_interval_of_r2():
    found = score_regression(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert found["r2"] == pytest.approx(0.5) and found["r2_interval"] is None
    assert found["mae_interval"] == [0.0, 1.0]
    alone = score_regression(np.array([1.0]), np.array([2.0]))
    assert alone["mae"] == 1 and alone["mae_interval"] is None


def test_the_baseline_is_the_median_of_the_training_split():
    train = Labeled(torch.arange(5.0)[:, None], torch.tensor([0.0, 0.0, 1.0, 2.0, 17.0]))
    test = Labeled(torch.arange(2.0)[:, None], torch.tensor([3.0, 5.0]))
    assert _regression([train, test], 0)["median_mae"] == (2 + 4) / 2  # from 1; the mean is 4


def test_a_dimension_that_never_varies_predicts_nothing():
    means = np.stack([np.arange(20.0), np.full(20, 3.0)], axis=1)
    fitted = fit_regression(means, 2 * means[:, 0] + 1)
    assert fitted.coefficients == pytest.approx([2, 0], abs=1e-2)
    assert fitted.intercept == pytest.approx(1, abs=0.1)


def test_the_interval_of_a_mean_is_that_of_a_statistic():
    columns = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 1)))
    assert of_statistic(columns, lambda means: means[:, 0], 3) == of_means(columns, 3)[0]


def test_a_number_that_z_encodes_is_predicted(run, capsys):
    card = probe(run, target="size")
    assert card["r2"] > 0.5 and card["mae"] < card["median_mae"]
    assert card["probed"] == 57 < 60  # documents that were too long for the run are left out
    saved = json.loads((run / "metrics" / "test-probe-size.json").read_text())
    assert saved["r2"] == card["r2"] and len(saved["coefficients"]) == 4
    assert main(["probe", str(run), "--target", "size"]) == 0
    shown = capsys.readouterr().out
    assert "R²" in shown and "size of 57 examples; ridge regression" in shown
    fewer = probe(run, target="size", labels=20)
    assert fewer["trained_on"] == 20
    assert (run / "metrics" / "test-probe-size-labels20.json").exists()


def test_missing_numbers_are_left_out_and_classes_are_classified(run):
    assert probe(run, target="some")["probed"] < 57
    card = probe(run, target="first")
    assert card["classes"] == 4 and 0 <= card["accuracy"] <= 1 and "r2" not in card
    assert probe(run)["classes"] == 3
    assert not (run / "metrics" / "test-probe-None.json").exists()


def test_a_missing_column_is_one_line(run, tmp_path, capsys):
    assert main(["probe", str(run), "--target", "weight"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "no column 'weight'" in said and "size" in said
    assert main(["probe", str(run), "--target", "text"]) == 2
    assert "--target text: " in capsys.readouterr().err
    file = tmp_path / "new.txt"
    file.write_text("a cat\n")
    assert main(["probe", str(run), "--target", "size", "--data", str(file)]) == 2
    assert "has no splits" in capsys.readouterr().err


def test_some_labels_are_chosen_at_random_and_more_include_fewer():
    data = Labeled(torch.zeros(50, 1), torch.arange(50))
    first, second = (_some(data, 20, seed).labels for seed in (0, 1))
    assert not torch.equal(first, second) and int(first.max()) > 30
    assert torch.equal(_some(data, 10, 0).labels, first[:10])
