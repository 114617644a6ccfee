"""The metrics card of a run: its keys, its options, and what it refuses."""

import json
import math
import re
import shutil

import pytest
import torch
from conftest import in_child

from textvae.errors import UserError
from textvae.evaluation.comparison.marks import Style
from textvae.evaluation.evaluate_run import evaluate_run
from textvae.evaluation.report import figures
from textvae.text.model import TextVAE

KEYS = {"rec", "kl", "elbo", "iw", "ppl_elbo", "ppl_iw", "mi", "mi_max", "au"}


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def card(run, **options):
    return evaluate_run(run, **{"samples": 3, "generations": 0, "device": "cpu", **options})


def test_the_saved_card_has_every_key_and_is_consistent(trained):
    saved = json.loads((trained / "metrics" / "test.json").read_text())
    assert saved.keys() >= KEYS
    assert all(math.isfinite(saved[key]) for key in KEYS)
    assert saved["elbo"] == pytest.approx(saved["rec"] - saved["kl"])
    assert saved["ppl_elbo"] == pytest.approx(math.exp(-saved["elbo"] * 20 / saved["units"]))
    assert saved["mi_max"] == pytest.approx(math.log(20))
    assert saved["count"] == 20 and saved["samples"] == 4 and saved["split"] == "test"
    assert saved["model"] == "vae" and len(saved["corpus_hash"]) == 64


def test_the_card_depends_only_on_the_seed(run):
    first = card(run)
    again = card(run, batch_size=7)
    assert {k: first[k] for k in KEYS} == pytest.approx({k: again[k] for k in KEYS}, rel=1e-5)
    assert card(run, seed=1)["iw"] != first["iw"]


def test_other_splits_limits_and_no_samples(run):
    valid = card(run, split="valid", limit=5, samples=0)
    assert (valid["count"], valid["iw"], valid["split"]) == (5, None, "valid")
    assert (run / "metrics" / "valid-limit5.json").exists()
    assert not (run / "metrics" / "valid.json").exists()
    assert valid["mi_max"] == pytest.approx(math.log(5))


def test_the_validation_card_is_the_one_of_training(run):
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max((e for e in logged if e["group"] == "valid"), key=lambda e: e["elbo"])
    found = card(run, split="valid", samples=0)
    for key in ("rec", "kl", "elbo", "mi", "au", "units"):
        assert found[key] == pytest.approx(best[key], rel=1e-4, abs=1e-4), key


def test_bf16_is_close_to_fp32(run):
    assert card(run, precision="bf16")["elbo"] == pytest.approx(card(run)["elbo"], rel=0.02)


def test_an_unknown_split_and_another_corpus(run, corpus, tmp_path):
    with pytest.raises(UserError, match="has no split 'dev': choose train, valid, test"):
        card(run, split="dev")
    other = tmp_path / "other"
    shutil.copytree(corpus, other)
    (other / "train.txt").write_text("1\ta b\n", encoding="utf-8")
    with pytest.raises(UserError, match="is not the data that"):
        card(run, data=other)


def test_a_model_in_memory_and_a_missing_device(run):
    model = TextVAE.from_pretrained(run)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert card(run, model=model)["elbo"] < card(run)["elbo"]
    with pytest.raises(UserError, match="device nonsense"):
        card(run, device="nonsense")


def test_the_readme_of_a_model_shows_its_scores(run, tmp_path):
    found = card(run)
    TextVAE.from_pretrained(run).save_pretrained(tmp_path / "copy")
    text = re.sub(" +", " ", (tmp_path / "copy" / "README.md").read_text())
    assert f"| ELBO | {found['elbo']:.2f} | nats per example |" in text


def test_a_language_model_has_a_card_without_a_latent(language_model, tmp_path, capfd):
    shutil.copytree(language_model, tmp_path / "lm")
    assert in_child(["evaluate", str(tmp_path / "lm"), "--json", "--generations", "4"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["kl"] == 0 and found["latent_dim"] == 0 and found["collapse"] is None
    assert found["iw"] == pytest.approx(found["elbo"]) == pytest.approx(found["rec"])


def test_the_kl_weight_is_one_curve_whoever_logs_it(monkeypatch):
    train = [{"epoch": e / 4, "beta": min(1.0, e / 8), "kl": 1.0} for e in range(1, 13)]
    valid = [{"epoch": e, "beta": min(1.0, e / 2), "kl": 2.0} for e in range(1, 4)]
    line, lines = figures.Line(train, valid, Style("C0", "o"), has_latent=True), {}
    draw = figures._draw_line

    def remember(axes, curve, line):
        drawn = draw(axes, curve, line)
        lines[curve.key] = [len(each.get_xdata()) for each in axes.lines]
        return drawn

    monkeypatch.setattr(figures, "_draw_line", remember)
    figures.draw_curves([line])
    assert lines["kl"] == [12, 3]  # training behind validation
    assert lines["beta"] == [15]
