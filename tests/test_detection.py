"""AUROC and average precision of scores, and the labels they refer to."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.labels import find_label
from textvae.evaluation.scoring.detection import detect, positive_label


class Labeled:
    """A split with given labels."""

    def __init__(self, labels, names=None):
        self.labels, self.label_names = np.array(labels), names


def rows_of(labels, **scores):
    return [
        {"label": label, **{key: values[i] for key, values in scores.items()}}
        for i, label in enumerate(labels)
    ]


def test_by_hand():
    # Anomalies have a low bound and a high KL: 3 of 4 pairs are in order, and one of 4 is a tie.
    rows = rows_of("aabb", elbo=[-5.0, -1.0, -2.0, -1.0], kl=[7.0, 1.0, 0.0, 1.0])
    found = detect(rows, "a")
    assert (found["positives"], found["negatives"]) == (2, 2)
    assert found["scores"]["elbo"]["auroc"] == (1 + 1 + 0 + 0.5) / 4
    assert found["scores"]["kl"]["auroc"] == (1 + 1 + 1 + 0.5) / 4
    assert [found["scores"][key]["direction"] for key in ("elbo", "kl")] == ["low", "high"]
    assert "low ELBO" in str(found) and "0.625" in str(found)


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.choice(["in", "out"], 200, p=[0.8, 0.2])
    regret, iw = rng.normal(size=200).round(1) + (labels == "out"), rng.normal(size=200)
    found = detect(rows_of(labels, iw=iw, regret=regret), "out")["scores"]
    assert found["iw"]["auroc"] == pytest.approx(roc_auc_score(labels == "out", -iw))
    assert found["regret"]["auroc"] == pytest.approx(roc_auc_score(labels == "out", regret))
    for key, anomaly in (("iw", -iw), ("regret", regret)):
        expected = average_precision_score(labels == "out", anomaly)
        assert found[key]["average_precision"] == pytest.approx(expected)


def test_the_standard_error_is_the_spread_of_repeated_samples():
    rng = np.random.default_rng(0)
    labels = ["out"] * 30 + ["in"] * 60
    results = []
    for _ in range(300):
        kl = np.concatenate([rng.normal(1, 2, 30), rng.normal(0, 1, 60)])
        results.append(detect(rows_of(labels, kl=kl), "out")["scores"]["kl"])
    spread = np.std([result["auroc"] for result in results])
    assert np.mean([result["auroc_se"] for result in results]) == pytest.approx(spread, rel=0.15)


def test_a_standard_error_that_would_be_zero_is_none():
    for kl in ([3.0, 4.0, 1.0, 2.0], [1.0] * 4):
        found = detect(rows_of("aabb", kl=kl), "a")
        assert found["scores"]["kl"]["auroc_se"] is None and "±" not in str(found)


def test_infinite_scores_and_unlabeled_examples():
    rows = rows_of(["a", "b", None, "b"], ppl_iw=[np.inf, 3.0, 9.0, 2.0])
    found = detect(rows, "a")
    assert found["scores"]["ppl_iw"]["auroc"] == 1
    assert found["scores"]["ppl_iw"]["auroc_se"] is None  # one anomaly has no spread
    assert (found["positives"], found["negatives"]) == (1, 2)
    json.dumps(found)


def test_what_cannot_be_measured():
    with pytest.raises(UserError, match="0 examples with the label 'c' and 2 with another"):
        detect(rows_of("ab", kl=[1.0, 2.0]), "c")
    with pytest.raises(UserError, match="the KL of some examples is not a number"):
        detect(rows_of("ab", kl=[1.0, np.nan]), "a")


def test_the_label_of_the_anomalies():
    names = ["cats", "dogs", "fish"]
    assert positive_label(Labeled([0, 2, -1], names)) == "fish"
    assert positive_label(Labeled([0, 1, 2], names), "dogs") == "dogs"
    assert positive_label(Labeled([0, 1, 2], names), 1) == "dogs"
    assert positive_label(Labeled([7, 3])) == "7"
    with pytest.raises(UserError, match="with --positive: cats, dogs, fish"):
        positive_label(Labeled([0, 1, 2], names))
    with pytest.raises(UserError, match="all examples have the label 'dogs'"):
        positive_label(Labeled([1, 1], names))
    with pytest.raises(UserError, match="there are none"):
        positive_label(Labeled([-1, -1], names))


def test_a_label_by_name_or_number():
    split = Labeled([0, 1, 1, 3], ["w", "x", "y", "z"])
    assert find_label(split, "x") == 1 and find_label(split, 1) == 1
    for missing in ("y", "-1", "9", "v"):  # y: a label that no example has
        with pytest.raises(UserError, match="choose from w, x, z"):
            find_label(split, missing)


def test_labels_that_are_numbers_are_names_only():
    split = Labeled([0, 1, 3], ["1", "2", "3", "5"])
    assert find_label(split, 1) == 0 and find_label(split, "5") == 3
    for missing in ("0", 3):  # neither the first label, nor the last one
        with pytest.raises(UserError, match="choose from 1, 2, 5"):
            find_label(split, missing)


def test_the_command(trained, corpus, capsys):
    argv = ["score", str(trained), str(corpus / "test.txt"), "--samples", "2"]
    argv += ["--regret-steps", "1", "--labels", "--positive", "2"]
    assert main(argv) == 0
    title, _, header, *lines = capsys.readouterr().out.splitlines()
    assert title == "2 (6 of 20 examples) against the rest"
    assert header.split() == ["anomalous", "if", "AUROC", "average", "precision"]
    assert any(line.startswith("high regret") for line in lines)
    assert lines[-1].split() == ["(chance)", "0.500", "0.300"]


def test_the_standard_error_by_hand_with_ties_in_a_class():
    rows = rows_of("aaabbb", kl=[1.0, 1.0, 3.0, 0.0, 1.0, 2.0])
    of_a, of_b = [0.5, 0.5, 1.0], [1.0, 2 / 3, 1 / 3]  # shares of the other class
    expected = np.sqrt(np.var(of_a, ddof=1) / 3 + np.var(of_b, ddof=1) / 3)
    assert detect(rows, "a")["scores"]["kl"]["auroc_se"] == pytest.approx(expected)
