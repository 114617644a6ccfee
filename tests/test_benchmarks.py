"""Every benchmark runs at a tiny size and saves rows with the documented keys."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import textvae
from textvae.training.devices import peak_memory_mb

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
KEYS = {"name", "tok_s", "ratio_to_plain", "ratio_to_autocast", "peak_share", "peak_rss_mb"}
TINY = ["--size", "tiny", "--threads", "1", "--repeats", "1"]
COMMANDS = {
    "train_speed": [
        *(*TINY, "--padded", "--models", "lm", "skip_vae", "--precision", "fp32", "bf16"),
        *("--optimizer", "adam"),
    ],
    "refine_speed": [*TINY, "--steps", "2"],
    "generate_speed": [*TINY, "--batches", "1", "8"],
    "evaluate_speed": [*TINY, "--sentences", "70", "--samples", "3", "--examples", "50"],
    "data_speed": ["--documents", "200", "--repeats", "0"],
}


@pytest.fixture
def rows(request, tmp_path, monkeypatch):
    """What a benchmark saves, by the name of the row."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS.parent / "data" / "toy"))
    words = [request.param, *COMMANDS[request.param], "--json", str(tmp_path / "rows.json")]
    monkeypatch.setattr(sys, "argv", words)
    importlib.import_module(request.param).main()
    torch.set_num_threads(threads)
    return {row["name"]: row for row in json.loads((tmp_path / "rows.json").read_text())}


@pytest.mark.parametrize("rows", COMMANDS, indirect=True)
def test_rows_have_the_documented_keys(rows):
    assert rows
    for row in rows.values():
        assert row.keys() >= KEYS
        assert all(v is None or isinstance(v, str) or v > 0 for v in row.values())


@pytest.mark.parametrize("rows", ["train_speed"], indirect=True)
def test_ratios_are_ratios_of_speeds(rows):
    ours, plain = rows["skip_vae textvae bf16"], rows["skip_vae plain fp32"]
    assert math.isclose(ours["ratio_to_plain"], ours["tok_s"] / plain["tok_s"])
    assert rows["skip_vae plain bf16"]["ratio_to_autocast"] == 1
    assert rows["lm plain, random batches fp32"]["ratio_to_random"] == 1


@pytest.mark.parametrize("rows", ["refine_speed"], indirect=True)
def test_a_refined_step_is_measured_in_vae_steps(rows):
    vae, refined = rows["vae bf16"], rows["sa-vae bf16, none"]
    assert vae["vae_steps"] == 1
    assert math.isclose(refined["vae_steps"], vae["tok_s"] / refined["tok_s"])
    reference = rows["reference sa-vae fp32"]
    assert math.isclose(refined["ratio_to_reference"], refined["tok_s"] / reference["tok_s"])


def test_random_batches_count_tokens_without_padding(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    train_speed = importlib.import_module("train_speed")
    torch.manual_seed(0)
    batches = train_speed.random_batches(train_speed.SIZES["ptb"], 32, 50)
    real = sum(int((x[:, 1:] > 0).sum()) for x in batches) / (50 * 32)
    padded = sum(x[:, 1:].numel() for x in batches) / (50 * 32)
    assert abs(real - 22) < 1  # Penn Treebank: 22.1 per sentence, 53 % padding in such batches
    assert abs(1 - real / padded - 0.53) < 0.04


def test_a_table_names_the_package_that_was_measured(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    measuring = importlib.import_module("measuring")
    rows = [measuring.row("a", 10, measuring.timed([0.5]))]
    measuring.show("title", rows, {"name": "{}", "tok_s": "{:.0f}", "ratio_to_plain": "{:.1f}"})
    title, package, header, _, line = capsys.readouterr().out.splitlines()
    assert title == "title"
    assert package.startswith(f"{Path(textvae.__file__).resolve().parent}, commit ")
    assert header == "| name | tok_s | ratio_to_plain |"
    assert line == "| a | 20 | – |"


def test_the_plain_loop_decodes_with_the_equations_of_the_stepper(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    speed = importlib.import_module("generate_speed")
    size = speed.SIZES["large"]._replace(vocab=50, embedding=8, hidden=8)  # two layers
    decoder, z = speed.build(size, "cpu"), torch.randn(1, speed.LATENT)
    seen = []

    def most_likely(probabilities, count):
        seen.append(probabilities)
        return probabilities.argmax(1, keepdim=True)

    monkeypatch.setattr(torch, "multinomial", most_likely)
    speed.plain_loop(decoder, z)
    stepper, token = decoder.stepper(z), torch.tensor([speed.BOS])
    for probabilities in seen:
        logits = stepper.step(token)
        logits[:, [speed.PAD, speed.UNK, speed.BOS]] = -math.inf
        torch.testing.assert_close(probabilities, torch.softmax(logits, 1))
        token = logits.argmax(1)
    assert len(seen) == speed.WORDS


def test_the_study_of_precision_runs(corpus, tmp_path):
    small = ["--seeds", "2", "--sentences", "96", "--epochs", "1", "--hidden", "8"]
    small += ["--samples", "2"]
    words = ["--data", str(corpus), "--out", str(tmp_path), "--json", str(tmp_path / "rows.json")]
    study = [sys.executable, str(BENCHMARKS / "precision_study.py"), *words, *small]
    done = subprocess.run(study, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert rows["fp32"]["iw_difference"] == 0
    assert 0 < abs(rows["fp32, nudged"]["iw_difference"]) < 0.1
    assert 0 < abs(rows["bf16"]["iw_difference"]) < 0.1


@pytest.mark.parametrize(
    "words",
    [
        ["precision_study", "--data", "missing", "--out", "out"],
        ["time_to_model", "--data", "missing", "--out", "out"],
        ["refinement_growth", "missing"],
    ],
    ids=lambda words: words[0],
)
def test_data_that_does_not_exist_is_one_line(words, tmp_path):
    script = [sys.executable, str(BENCHMARKS / f"{words[0]}.py"), *words[1:]]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{words[0]}: missing")
    assert done.stderr.count("\n") == 1


def test_growth_is_one_for_tiny_steps_and_the_same_with_either_product(trained, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    study = importlib.import_module("refinement_growth")
    words = [str(trained), "--lr", "1e-6", "2", "--hvp", "exact", "difference", "--precision"]
    rows = study.table(study.parse([*words, "fp32", "--batches", "2"]))
    exact, differences = rows[:2], rows[2:]
    assert exact[0]["sentences"] > 0
    assert all(abs(exact[0][name] - 1) < 1e-4 for name in ("q50", "q99", "q100"))
    assert abs(exact[1]["q50"] - 1) > 0.1
    for ours, reference in zip(differences, exact, strict=True):
        assert math.isclose(ours["q50"], reference["q50"], rel_tol=1e-2)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_excludes_the_parent_process():
    code = "from textvae.training.devices import peak_memory_mb; print(peak_memory_mb())"
    large = torch.ones(2**27)  # half a GiB
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 50 < int(done.stdout) < peak_memory_mb() - large.nbytes / 2**21
