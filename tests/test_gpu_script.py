"""benchmarks/gpu.sh, for a machine that is rarely at hand: every part, tiny and on the CPU."""

import importlib
import json
import math
import os
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import _forget_accelerator

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
IN_THIS_PROCESS = ("train", "refine", "generate", "evaluate", "images", "profile", "ptb", "mnist")


def run_script(*words):
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)}
    command = ["bash", str(BENCHMARKS / "gpu.sh"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    threads = torch.get_num_threads()
    yield importlib.import_module("gpu_parts")
    torch.set_num_threads(threads)
    _forget_accelerator()


@pytest.mark.parametrize("part", IN_THIS_PROCESS)
def test_a_part_measures_and_saves(part, parts, tmp_path):
    assert parts.main([part, "--dry", "--out", str(tmp_path)]) == 0
    saved = json.loads((tmp_path / f"{part}.json").read_text())
    assert saved["part"] == part and saved["dry"] and saved["device"] == "cpu"
    assert saved["measurements"]
    for measurement in saved["measurements"]:
        assert measurement["rows"] and "error" not in measurement
        assert all(row["name"] for row in measurement["rows"])


def test_no_part_is_forgotten(parts):
    names = [part.__name__ for part in parts.PARTS]
    assert names == ["check", *IN_THIS_PROCESS]
    script = (BENCHMARKS / "gpu.sh").read_text()
    assert f"known=({' '.join(names)})" in script


def test_what_fails_is_told_and_the_rest_goes_on(parts, tmp_path, monkeypatch, capsys):
    generate_speed = importlib.import_module("generate_speed")
    right = generate_speed.main

    def main(words):
        if "bf16" in words:
            raise RuntimeError("out of memory")
        return right(words)

    monkeypatch.setattr(generate_speed, "main", main)
    assert parts.main(["generate", "--dry", "--out", str(tmp_path)]) == 1
    assert "FAILED: generate: tiny, bf16" in capsys.readouterr().out
    first, second = json.loads((tmp_path / "generate.json").read_text())["measurements"]
    assert first["error"] == "RuntimeError: out of memory"
    assert second["rows"]


def test_nothing_starts_when_the_time_is_over(parts, tmp_path):
    assert parts.main(["profile", "--dry", "--out", str(tmp_path), "--seconds", "1"]) == 0
    (measurement,) = json.loads((tmp_path / "profile.json").read_text())["measurements"]
    assert measurement["skipped"] == "the time is over"


def test_the_script_checks_whole_models(tmp_path):
    done = run_script("check", "--dry", "--out", tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "== check: exit 0" in done.stdout
    (tests,) = json.loads((tmp_path / "check.json").read_text())["measurements"]
    outcomes = [row["outcome"] for row in tests["rows"]]
    assert len(outcomes) > 60 and set(outcomes) == {"passed"}
    assert (tmp_path / "check.log").read_text()


def test_the_script_refuses_what_it_does_not_know(tmp_path):
    done = run_script("trian", "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.startswith("gpu.sh: trian: choose from check train")
    assert not (tmp_path / "out").exists()


def test_time_to_a_model_counts_every_part(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    time_to_model, parts = map(importlib.import_module, ("time_to_model", "gpu_parts"))
    small = tmp_path / "small.yaml"
    small.write_text(
        "model: {latent_dim: 2, embedding_dim: 4, encoder_hidden: 4, decoder_hidden: 4}\n"
        "train: {epochs: 4, samples: 0, autoencode_epochs: 1, precision: fp32}\n"
    )
    words = ["--data", str(parts.small_corpus(tmp_path / "corpus")), "--out", str(tmp_path / "run")]
    words += ["--config", str(small), "--samples", "2", "--repeats", "1", "--near", "99"]
    rows = {row["name"]: row for row in time_to_model.main([*words, "--ppl", "99", "--mi", "-1"])}
    steps = rows["steps"]["steps"]
    assert rows["total"]["reached"] == "True" and 0 < steps < 10
    parts_of = [rows[part]["seconds"] for part in time_to_model.PARTS]
    assert all(seconds > 0 for seconds in parts_of)
    assert math.isclose(sum(parts_of), rows["total"]["seconds"])
    assert rows[f"{steps} plain PyTorch steps"]["seconds"] > 0
    again = {row["name"]: row for row in time_to_model.main([*words, "--ppl", "1", "--mi", "-1"])}
    assert again["total"]["reached"] == "False" and again["steps"]["steps"] == 10
    assert again["data"]["seconds"] > rows["data"]["seconds"]  # the earlier part counts, too
    _forget_accelerator()
