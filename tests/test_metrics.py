"""The table of metrics is complete, and nothing duplicates it."""

import json
import re
from pathlib import Path

import textvae
from textvae.evaluation.metrics.table import (
    BY_KEY,
    COMPANIONS,
    METRICS,
    NOT_METRICS,
    NUMBERS,
    metrics_table,
)

PACKAGE = Path(textvae.__file__).parent


def test_every_key_of_a_card_is_in_the_table_or_on_the_list_of_others(trained):
    card = json.loads((trained / "metrics" / "test.json").read_text())
    card.pop("summary")
    assert card.keys() <= NUMBERS | NOT_METRICS
    refined = {"encoder_kl", "encoder_mi", "encoder_au", "encoder_elbo", "gap", "refine_steps"}
    probed = {"accuracy_se", "linear_accuracy_se", "majority_accuracy", "probed", "trained_on"}
    assert refined | probed <= NUMBERS
    missing = {metric.key for metric in METRICS} - card.keys()
    fitted = {"hole_share_aggregate"}
    scored = {"regret", "iw_gain"}  # of single examples, or over another model
    conditional = {"condition_gap"}
    probed |= {"r2", "mae", "median_mae"}
    assert missing <= refined | probed | fitted | scored | conditional | {
        "accuracy",
        "linear_accuracy",
        "classes",
    }


def test_no_key_is_described_twice():
    assert len(BY_KEY) == len(METRICS)
    assert len({metric.header for metric in METRICS}) == len(METRICS)
    assert not NUMBERS & NOT_METRICS and not COMPANIONS & BY_KEY.keys()


def test_every_metric_has_an_explanation():
    for metric in METRICS:
        assert metric.help.endswith(".") and metric.help[0].isupper(), metric.key
        assert metric.unit or metric.section == "setup", metric.key


def test_headers_and_units_are_only_in_the_table():
    said = {m.header for m in METRICS if re.search(r"[( %]", m.header)}
    said |= {m.unit for m in METRICS if " " in m.unit} - {"nats per example"}
    for path in (PACKAGE / "evaluation").rglob("*.py"):
        if path.name != "table.py":
            source = path.read_text(encoding="utf-8")
            assert not [text for text in said if f'"{text}"' in source], path


def test_the_table_of_the_documentation_has_a_row_for_each():
    lines = metrics_table().splitlines()
    assert len(lines) == 2 + len(METRICS)
    assert all(re.fullmatch(r"\|([^|\\]|\\\|)*\|.*\|", line) for line in lines)
    for line in lines:
        assert len(re.split(r"(?<!\\)\|", line)) == 7
