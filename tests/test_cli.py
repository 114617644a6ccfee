"""The command line: every command, its help, and one line for every error."""

import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import TINY, in_child

import textvae
from textvae.cli.arguments import parse
from textvae.cli.main import main
from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.evaluation.comparison.provenance import provenance
from textvae.text.presentation import SentencePrinter


@pytest.fixture(scope="module")
def place(trained, language_model, corpus, tmp_path_factory) -> dict[str, str]:
    """Names of files and folders for the commands below."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "lines.txt").write_text("the cat sees the tree\na dog eats the house\n")
    (folder / "blank.txt").write_text("\n  \n")
    (folder / "latin.txt").write_bytes("a b\nein Bär\n".encode("latin-1"))
    (folder / "empty").mkdir()
    places = {name: str(folder / name) for name in ("lines.txt", "blank.txt", "latin.txt", "empty")}
    lm = (
        tmp_path_factory.mktemp("runs") / "lm"
    )  # without the metrics that a report of it may have saved in another test
    shutil.copytree(language_model, lm, ignore=shutil.ignore_patterns("metrics"))
    return places | {
        "run": str(trained),
        "lm": str(lm),
        "corpus": str(corpus),
        "folder": str(folder),
        "out": str(folder / "out"),
    }


def fails(capfd, argv: list[str], status: int = 2, child: bool = False, table: bool = False) -> str:
    """The one line of a command that fails."""
    assert (in_child(argv) if child else main(argv)) == status
    captured = capfd.readouterr()
    said = captured.err.splitlines()
    assert said and said[-1].startswith("textvae: "), captured.err
    assert "Traceback" not in captured.err
    assert table or captured.out == ""
    return said[-1].removeprefix("textvae: ")


MISTAKES = [
    # names
    (["trian"], "did you mean train?"),
    (["train", "--train.log_evry", "3"], "did you mean --train.log_every?"),
    (["train", "--latent_dim", "3"], "did you mean --model.latent_dim?"),
    (["train", "--train.free_bits", "3"], "did you mean --objective.free_bits?"),
    (["train", "--train.foo", "3"], "unrecognized arguments: --train.foo 3 (see"),
    (["train", "--out", __file__], "is a file, not a folder"),
    (["sample", "{run}", "--greedy", "--num-beams", "2"], "--num-beams 2: cannot be combined"),
    (["sample", "{run}", "--out", "a.parquet"], "sentences are written as text"),
    (["sample", "{run}", "--temprature", "2"], "did you mean --temperature?"),
    (["sample", "{run}", "--top_p", "0.9"], "did you mean --top-p?"),
    (["sample", "{run}", "--data.cache", "x"], "unrecognized arguments: --data.cache (see"),
    (["compare", "{run}", "none.yaml"], "none.yaml cannot be read (No such file or directory)"),
    (["encode", "{run}", "x", "--limit", "3"], "unrecognized arguments: --limit 3 (see"),
    (["train", "--device", "cuda"], "set CUDA_VISIBLE_DEVICES, or ACCELERATE_USE_CPU=true"),
    (
        ["sample", "{run}", "--device", "gpu"],
        "gpu: there is no such kind of device: use cpu, or cuda",
    ),
    (["score", "{run}", "the cat sat"], "to pass a sentence, pipe it: echo"),
    (
        ["compare", "{run}", "--columns", "mu"],
        "no metric 'mu'; the usual ones are latent_dim, ppl_elbo,",
    ),
    (["sample"], "required: RUN (see"),
    (["interpolate", "{run}", "a"], "required: B (see"),
    (["encode", "{run}", "a"], "required: --out (see"),
    (["probe", "{run}", "--label", "topic"], "--label topic; did you mean --labels? (see"),
    (["train", "--config"], "--config: expected one argument"),
    # types and choices
    (["train", "--model.latent_dim", "abc"], "--model.latent_dim abc: must be an integer"),
    (["train", "--train.max_steps", "1.5"], "--train.max_steps 1.5: must be an integer"),
    (["train", "--optim.lr", "fast"], "--optim.lr fast: must be a number"),
    (["train", "--data.tokenized", "perhaps"], "must be true or false"),
    (["train", "--model.injection", "skp"], "choose one of none, init, input, skip; did you mean"),
    (
        ["train", "--optim.autoencode_name", "adma"],
        "choose one of sgd, adam, adamw; did you mean adam? (see",
    ),
    (["interpolate", "{run}", "a", "b", "--kind", "sperical"], "did you mean spherical?"),
    (["sample", "{run}", "-n", "x"], "must be an integer"),
    (
        ["reconstruct", "{run}", "a", "--num-beams", "2", "--do-sample"],
        "--num-beams 2, --do-sample: cannot",
    ),
    (["reconstruct", "{run}", "a", "--file", "{lines.txt}"], "give either examples or --file"),
    # where to
    (["train"], "give either --out RUN to start a new run or --resume RUN"),
    (["train", "--out", "{out}", "--resume", "{run}"], "give either --out RUN"),
    (["train", "--out", "{run}"], "already holds a run: continue it with --resume"),
    (["train", "--resume"], "--resume needs the folder"),
    (["train", "--resume", "--out"], "--resume needs the folder"),
    (["train", "--resume", "{folder}"], "is not a run folder"),
    (["train", "--resume={folder}/none"], "none: there is no such run folder"),
    (["train", "--out", "{out}\udc80"], "the name of a folder for results must be UTF-8"),
    (["train", "--out", "/dev/null/run"], "cannot create the folder /dev/null/run"),
    (["train", "--config", "{folder}/none.yaml", "--out", "{out}"], "cannot be read (No such file"),
    (["train", "--config", "{folder}", "--out", "{out}"], "cannot be read (Is a directory)"),
    # not runs
    (["evaluate", "{folder}"], "is not a run folder"),
    (["sample", "{folder}"], "no config.json"),
    (["compare", "{run}/config.json"], "config.json is not a metrics card"),
    (["compare", "{folder}/none"], "there is no such run folder or metrics card"),
    (["compare", "{lm}"], "textvae evaluate {lm} --split test"),
    (["compare", "{folder}"], "is not a run folder"),
    (["compare", "{run}", "--split", "valid"], "has no metrics for 'valid'"),
    (["compare", "{run}", "--split", "tets"], "did you mean test?"),
    (["sweep", "--vary", "objective.beta", "1,2"], "1,2; --vary takes NAME=VALUE,VALUE"),
    (["evaluate", "{run}", "--split", "dev"], "has no split 'dev': choose train, valid, test"),
    (["evaluate", "{run}", "--data", "{folder}/none"], "no such file or folder"),
    # numbers
    (["evaluate", "{run}", "--limit", "0"], "--limit 0: must be above 0"),
    (["evaluate", "{run}", "--samples", "-1"], "--samples -1: must be at least 0"),
    (["evaluate", "{run}", "--batch-size", "0"], "--batch-size 0: must be above 0"),
    (
        ["sample", "{run}", "-n", "99999999999999999999"],
        "must be above 0 and at most 1000000000000 (see",
    ),
    (["sample", "{run}", "-n", "-1"], "-n -1: must be above 0"),
    (["sample", "{run}", "--max-new-tokens", str(10**14)], "at least 1 and at most 1000000"),
    (["sample", "{run}", "--num-beams", str(10**30)], "at least 1 and at most 1000"),
    (["sample", "{run}", "--batch-size", str(10**30)], "at most 2147483647"),
    (["sample", "{run}", "--seed", str(2**63)], f"and at most {2**63 - 1}"),
    (["sample", "{run}", "--seed", "-1"], "--seed -1: must be at least 0"),
    (["sample", "{run}", "-n", "0"], "-n 0: must be above 0 (see"),
    (
        ["sample", "{run}", "--greedy", "--top-p", "0.5"],
        "--top-p 0.5: no effect on greedy",
    ),
    (
        ["sample", "{run}", "--num-beams", "3", "--top-k", "5"],
        "--top-k 5: no effect on greedy",
    ),
    (["sample", "{run}", "--temperature", "0"], "--temperature 0.0: must be from 1e-06 to 1e+06"),
    (["sample", "{run}", "--top-p", "2"], "--top-p 2.0: must be above 0 and at most 1"),
    (["sample", "{run}", "--top-k", "-3"], "--top-k -3"),
    (["sample", "{run}", "--num-beams", "0"], "--num-beams 0"),
    (["traverse", "{run}", "a", "--dim", "0", "-n", "3"], "-n has no effect with --dim"),
    (["sample", "{run}", "--length-penalty", "2"], "--length-penalty 2.0: no effect without"),
    (["sample", "{run}", "--max-new-tokens", "0"], "--max-new-tokens 0"),
    (["interpolate", "{run}", "a", "b", "--steps", "1"], "--steps 1"),
    (["interpolate", "{run}", "", "b"], "one of the two ends is empty"),
    (["sample", "{run}", "--device", "cudda"], "device cudda: "),
    (
        ["sample", "{run}", "--device", "meta"],
        "device meta: it computes nothing; choose cpu or cuda",
    ),
    (
        ["evaluate", "{lm}", "--refine-steps", "2"],
        "--refine-steps 2: this model has",
    ),
    (["evaluate", "{run}", "--refine-steps", "-1"], "--refine-steps -1: must be at least 0"),
    (["encode", "{run}", "{lines.txt}", "--out", "{out}.npz", "--refine-steps", "x"], "an integer"),
    # options of image models
    (["sample", "{run}", "--walk", "3"], "--walk applies only to image models, and {run} is not"),
    (["sample", "{run}", "--out", "."], "--out . is a folder: give the name of a file"),
    # files
    (["reconstruct", "{run}", "--file", "{folder}/none"], "no such file"),
    (["encode", "{run}", "seed=3/x.txt", "--out", "{out}.npz"], "seed=3/x.txt: no such file"),
    (["reconstruct", "{run}", "--file", "{blank.txt}"], "blank.txt has no sentences"),
    (["encode", "{run}", "{latin.txt}", "--out", "{out}.npz"], "latin.txt, line 2: not UTF-8"),
    (["encode", "{run}", "{lines.txt}", "--out", "{out}.txt"], "written as .npz or .parquet"),
    (["encode", "{run}", "{lines.txt}", "--out", "/dev/null/x.npz"], "cannot write /dev/null"),
    (["encode", "{run}", "{lines.txt}"], "out"),
    (["decode", "{run}", "{lines.txt}"], "latent vectors are read from .npz or .parquet"),
    (["decode", "{run}", "{folder}/none.npz"], "does not exist"),
    # a language model
    (["reconstruct", "{lm}", "a b"], "this model has no latent variable"),
    (["interpolate", "{lm}", "a", "b"], "this model has no latent variable"),
    (["encode", "{lm}", "{lines.txt}", "--out", "{out}.npz"], "this model has no latent variable"),
]


@pytest.mark.parametrize(
    ("argv", "message"), MISTAKES, ids=[ascii(" ".join(a)) for a, _ in MISTAKES]
)
def test_an_error_is_one_line_and_status_2(argv, message, place, capfd):
    def filled(word: str) -> str:
        return re.sub(r"\{(.*?)\}", lambda name: place[name[1]], word)

    assert filled(message) in fails(capfd, [filled(word) for word in argv])


OUT_OF_RANGE = [
    *(("data.batch_size", "0"), ("data.max_tokens", "0"), ("data.max_length", "1")),
    *(("tokenizer.vocab_size", "4"), ("tokenizer.min_count", "0")),
    *(("model.latent_dim", "-1"), ("model.dropout_in", "1.5"), ("model.word_dropout", "-0.1")),
    *(("model.decoder_layers", "0"), ("model.init_scale", "-1")),
    *(("objective.free_bits", "-1"), ("objective.beta", "-1"), ("objective.samples", "0")),
    *(("objective.kl_ramp", "0"), ("objective.kl_ramp", "1.1"), ("objective.kl_epochs", "-1")),
    *(("inference.steps", "0"), ("inference.lr", "0"), ("inference.momentum", "1.5")),
    *(("inference.token_share", "0"), ("inference.token_share", "1.5"), ("inference.clip", "-1")),
    ("inference.max_growth", "-1"),
    *(("optim.lr", "-1"), ("optim.lr", "0"), ("optim.lr", "nan"), ("optim.lr", "inf")),
    *(("optim.clip", "-1"), ("optim.lr_decay", "2"), ("optim.patience", "0")),
    *(("optim.momentum", "-1"), ("optim.weight_decay", "-1"), ("optim.max_decays", "0")),
    *(("train.epochs", "0"), ("train.max_steps", "0"), ("train.accumulate", "0")),
    *(("train.log_every", "0"), ("train.save_every", "0"), ("train.evaluate_every", "0")),
    *(
        ("train.early_stopping", "0"),
        ("train.seed", "-1"),
        ("train.seed", str(2**63)),
        ("train.threads", "0"),
    ),
    *(("train.samples", "-1"), ("optim.warmup_steps", "-1")),
]


@pytest.mark.parametrize(("option", "value"), OUT_OF_RANGE)
def test_numbers_out_of_range_name_their_option(option, value, tmp_path, capfd):
    line = fails(capfd, ["train", "--out", str(tmp_path / "run"), f"--{option}={value}"])
    assert option.rpartition(".")[2] in line and value in line
    assert not list(tmp_path.rglob("*.yaml"))  # no run was started


MISFITS = [
    (["--inference.method", "svi"], "svi has no encoder: set --model.encoder_layers 0"),
    (["--model.encoder_layers", "0"], "means no encoder: set --inference.method svi"),
    (
        ["--inference.method", "semi_amortized", "--model.latent_dim", "0"],
        "--model.latent_dim is 0",
    ),
    (
        ["--inference.method", "semi_amortized", "--data.max_tokens", "99"],
        "use --inference.loss_per example",
    ),
]


@pytest.mark.parametrize(("options", "message"), MISFITS, ids=[" ".join(o) for o, _ in MISFITS])
def test_inference_and_model_must_fit(options, message, tmp_path, capfd):
    run = tmp_path / "run"
    assert message in fails(capfd, ["train", "--out", str(run), *options])
    assert not list(tmp_path.rglob("*.yaml"))


CONFIGS = [
    (
        "model:\n  latnt_dim: 3\n",
        "bad.yaml, line 2: there is no option model.latnt_dim; did you mean model.latent_dim?",
    ),
    (
        "modle:\n  latent_dim: 3\n",
        "bad.yaml, line 1: there is no section modle; did you mean model?",
    ),
    ("model:\n  injection: skp\n", "did you mean skip?"),
    ("train:\n  epochs: many\n", "bad.yaml, line 2: train.epochs many: must be an integer"),
    (
        "model:\n  latent_dim: 3\n  latent_dim: 4\n",
        "bad.yaml, line 3: latent_dim is given twice",
    ),
    ("model: {}\nmodel: {}\n", "bad.yaml, line 2: model is given twice"),
    ("model: 3\n", "bad.yaml, line 1: model is a section"),
    ("train:\n", "bad.yaml, line 1: train is a section"),
    ("- a\n- b\n", "must contain sections with options"),
    ("", "must contain sections with options"),
    ("model:\n  latent_dim: [3\nfoo: 1\n", "bad.yaml, line 3: not YAML"),
    ("train:\n\tepochs: 3\n", "bad.yaml, line 2: not YAML"),
    ("a: \x00", "bad.yaml: not YAML"),
    (b"\xff\xfe\x00", "bad.yaml: not YAML, because it is not UTF-8"),
]


@pytest.mark.parametrize(("content", "message"), CONFIGS)
def test_a_bad_config_says_where(content, message, tmp_path, capfd):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in fails(capfd, ["train", "--config", str(path), "--out", str(tmp_path / "run")])


def test_a_broken_config_of_a_run_says_where(trained, tmp_path, capfd):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("model: [")
    for argv in (["train", "--resume"], ["evaluate"]):
        assert "config.yaml, line 1: not YAML" in fails(capfd, [*argv, str(tmp_path / "run")])


CORPORA = [
    ("none.txt", None, "no such file or folder"),
    ("t.txt", b"", "t.txt: empty"),
    ("t.txt", b"\n \n\n", "only 3 blank lines"),
    ("t.txt", b"a b\nc d\nB\xe4r\n", "t.txt, line 3: not UTF-8"),
    ("t.bin", b"\x00\x01\xff", "unknown extension"),
    ("t.txt", b"a\x00\xff\xfe", "line 1"),
    ("t.txt", b"one line\n", "1 document, too few to hold out"),
    ("t.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "t.jsonl, line 2: no 'text' here"),
    ("t.jsonl", b'{"text": "a"}\n{"text": ', "t.jsonl, line 2: not JSON"),
    ("t.csv", b"title,body\na,b\n", "no column 'text'"),
]


@pytest.mark.parametrize(("name", "content", "message"), CORPORA)
def test_a_bad_corpus_says_where(name, content, message, tmp_path, capfd):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    argv = ["train", "--out", str(tmp_path / "run"), *TINY, "--data.dir", str(tmp_path / name)]
    assert message in fails(capfd, argv, child=True)
    assert not (tmp_path / "run" / "config.yaml").exists()  # --out can be given again


def test_missing_columns(tmp_path, capfd):
    (tmp_path / "t.csv").write_text("text,label\n" + "a b,1\n" * 9)
    argv = ["train", "--out", str(tmp_path / "run"), *TINY, "--data.dir", str(tmp_path / "t.csv")]
    line = fails(capfd, [*argv, "--data.label_column", "topic"], child=True)
    assert "no column 'topic'; it has" in line


def test_no_corpus(tmp_path, capfd):
    line = fails(capfd, ["train", "--out", str(tmp_path / "run"), *TINY], child=True)
    assert "--data.dir" in line


def test_long_sentences_are_counted(tiny, tmp_path, capfd):
    options = ["--data.max_length", "7", "--train.max_steps", "1"]
    assert in_child(["train", "--out", str(tmp_path / "run"), *tiny, *options]) == 0
    said = capfd.readouterr().err
    assert re.search(r"train: \d+ of 96 documents exceed max_length=7: truncated", said)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_model_folder_with_half_a_file(name, trained, tmp_path, capfd):
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert name in fails(capfd, ["sample", str(tmp_path / "run")])


def test_a_model_folder_with_a_file_from_another(trained, language_model, tmp_path, capfd):
    shutil.copytree(trained, tmp_path / "run")
    shutil.copy(language_model / "model.safetensors", tmp_path / "run")
    assert "does not fit" in fails(capfd, ["sample", str(tmp_path / "run")])
    shutil.copytree(trained, tmp_path / "other")
    tokenizer = json.loads((trained / "tokenizer.json").read_text())
    tokenizer["tokens"].append("superfluous")
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "do not belong together" in fails(capfd, ["sample", str(tmp_path / "other")])


def test_a_tokenizer_of_the_same_size_from_another_run(trained, tmp_path, capfd):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    tokenizer = json.loads((run / "tokenizer.json").read_text())
    tokenizer["tokens"][-2:] = reversed(tokenizer["tokens"][-2:])
    (run / "tokenizer.json").write_text(json.dumps(tokenizer))
    for argv in (["sample"], ["evaluate"], ["train", "--train.epochs", "3", "--resume"]):
        assert "not the one that the weights" in fails(capfd, [*argv, str(run)], child=True)
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def out(capfd, argv: list[str]) -> list[str]:
    assert main(argv) == 0
    return capfd.readouterr().out.splitlines()


def test_sample(place, capfd):
    first = out(capfd, ["sample", place["run"], "-n", "3"])
    assert len(first) == 3 and first == out(capfd, ["sample", place["run"], "-n", "3"])
    assert first != out(capfd, ["sample", place["run"], "-n", "3", "--seed", "1"])
    beams = ["--num-beams", "2", "--length-penalty", "0"]
    assert out(capfd, ["sample", place["lm"], "-n", "2", *beams])
    rows = out(capfd, ["sample", place["run"], "-n", "2", "--format", "jsonl"])
    assert [json.loads(row).keys() for row in rows] == [{"text"}] * 2


def test_sentences_go_to_a_file_once_they_are_complete(place, tmp_path, capfd, monkeypatch):
    many = ["sample", place["run"], "-n", "1030", "--max-new-tokens", "3"]  # more than at once
    shown, path = out(capfd, many), tmp_path / "new" / "samples.txt"
    assert main([*many, "--out", str(path)]) == 0
    captured = capfd.readouterr()
    assert path.read_text(encoding="utf-8").splitlines() == shown and captured.out == ""
    assert f"wrote 1,030 sentences to {path}" in captured.err
    lines = ["a dog eats the house", "--format", "jsonl", "--out", str(path)]
    assert main(["reconstruct", place["run"], *lines]) == 0
    (row,) = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(row)["source"] == lines[0]

    def fail(self, output):
        raise UserError("stopped")

    monkeypatch.setattr(SentencePrinter, "_print", fail)
    assert main([*many, "--out", str(path)]) == 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # the previous one
    assert json.loads(path.read_text(encoding="utf-8"))["source"] == lines[0]


def test_reconstruct(place, capfd):
    lines = ["the cat sees the tree", "a dog eats the house"]
    by_file = out(capfd, ["reconstruct", place["run"], "--file", place["lines.txt"]])
    assert by_file == out(capfd, ["reconstruct", place["run"], *lines]) and len(by_file) == 2
    shown = out(capfd, ["reconstruct", place["run"], *lines, "--show-source"])
    assert shown == [f"> {lines[0]}", by_file[0], f"> {lines[1]}", by_file[1]]
    rows = out(capfd, ["reconstruct", place["run"], *lines, "--format", "jsonl"])
    assert [json.loads(row)["source"] for row in rows] == lines


def test_interpolate(place, capfd):
    argv = ["interpolate", place["run"], "the cat sees the tree", "a dog eats the house"]
    assert len(out(capfd, [*argv, "--steps", "4", "--kind", "spherical"])) == 4


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_encode_then_decode_is_reconstruct(ending, place, tmp_path, capfd):
    latents = str(tmp_path / f"z.{ending}")
    assert out(capfd, ["encode", place["run"], place["lines.txt"], "--out", latents]) == []
    decoded = out(capfd, ["decode", place["run"], latents])
    assert decoded == out(capfd, ["reconstruct", place["run"], "--file", place["lines.txt"]])


@pytest.mark.parametrize("source", ["file", "standard input"])
def test_encode_reads_a_few_examples_at_a_time(source, place, tmp_path, capfd, monkeypatch):
    """With refinement, whose noise depends on the number of the example."""
    import io

    from textvae.cli import encode

    lines = [f"the cat sees {animal}" for animal in ("a dog", "the fish", "a bird and a cat")] * 3
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = []
    for at_once in (2, 100):
        monkeypatch.setattr(encode, "AT_ONCE", at_once)
        file = str(tmp_path / "lines.txt")
        if source == "standard input":
            file, text = "-", (tmp_path / "lines.txt").read_bytes()
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        latents = str(tmp_path / f"{at_once}.parquet")
        argv = ["encode", place["run"], file, "--out", latents, "--refine-steps", "2"]
        assert out(capfd, argv) == []
        found.append(pyarrow.parquet.read_table(latents).to_pydict())
    assert found[0]["text"] == found[1]["text"] == lines
    for name in ("mean", "logvar"):
        for row, expected in zip(found[0][name], found[1][name], strict=True):
            assert row == pytest.approx(expected, abs=1e-5)
    assert found[0]["mean"][0] != pytest.approx(found[0]["mean"][3], abs=1e-5)  # other noise


def test_decode_refuses_vectors_of_another_size(place, tmp_path, capfd):
    import numpy as np

    np.savez(tmp_path / "z.npz", mean=np.zeros((2, 7)))
    line = fails(capfd, ["decode", place["run"], str(tmp_path / "z.npz")])
    assert line == "z must be (N, 4) for this model, not (2, 7)"


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_decode_warns_of_vectors_of_another_model(place, tmp_path, caplog, ending):
    latents, copy = str(tmp_path / f"z{ending}"), tmp_path / "copy"
    main(["encode", place["run"], place["lines.txt"], "--out", latents])
    main(["decode", place["run"], latents])
    assert "was encoded with" not in caplog.text
    shutil.copytree(place["run"], copy)
    with (copy / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        last = weights.read(1)[0]
        weights.seek(-1, 2)
        weights.write(bytes([last ^ 128]))  # the sign of one weight
    assert main(["decode", str(copy), latents]) == 0
    assert "was encoded with weights other than those in" in caplog.text


def test_compare_prints_a_row_per_run(place, tmp_path, capfd):
    shutil.copytree(place["run"], tmp_path / "second")
    rows = out(capfd, ["compare", place["run"], str(tmp_path / "second")])
    table = [line for line in rows if line.startswith("|")]
    assert len(table) == 4 and table[0].startswith("| model")
    assert {"PPL (IW)", "ELBO", "KL", "MI", "AU"} <= {c.strip() for c in table[0].split("|")}
    with_origin = out(capfd, ["compare", place["run"], "--provenance"])
    assert any("textvae" in line or "commit" in line for line in with_origin)
    card = json.loads((tmp_path / "second" / "metrics" / "test.json").read_text())
    card |= {"seed": 5, "hole_share_aggregate": 0.1}
    (tmp_path / "second" / "metrics" / "test.json").write_text(json.dumps(card))
    assert "--seed 5 --fit-sampler" in provenance([tmp_path / "second"])


def test_evaluate_as_json(place, tmp_path, capfd):
    shutil.copytree(place["run"], tmp_path / "run")
    argv = ["evaluate", str(tmp_path / "run"), "--samples", "2", "--limit", "8", "--json"]
    card = json.loads("\n".join(out(capfd, [*argv, "--generations", "0"])))
    assert card["count"] == 8 and card["samples"] == 2


@pytest.mark.parametrize("again", ["--columns", "--columns=mi"])
def test_a_list_that_is_given_twice_is_refused(again, place, capfd):
    assert main(["compare", "vae", "--columns", "kl", again, "mi"]) == 2
    assert "--columns is given twice: give all of its values after one" in capfd.readouterr().err


def test_every_option_has_its_help(capfd):
    from dataclasses import fields

    with pytest.raises(SystemExit):
        parse(["train", "--help"])
    shown = capfd.readouterr().out
    names = [f"{s.name}.{f.name}" for s in fields(Config) for f in fields(s.default_factory)]
    assert not [name for name in names if f"--{name} " not in shown]
    package = Path(textvae.__file__).parent
    pages = (package / "config" / "sections.py", package / "config" / "inference.py")
    source = "".join(page.read_text() for page in pages)
    field = r'^    (?:\w+: .*|\] = .*)\n    """(.*)"""'
    texts = re.findall(field, source, flags=re.MULTILINE)
    flat = re.sub(r"-?\s+", "", shown).replace("-", "")
    missing = [t for t in texts if re.sub(r"-?\s+", "", t).replace("-", "") not in flat]
    assert len(texts) == len(names) and not missing


def test_a_config_that_was_written_is_read_back(tmp_path):
    from textvae.cli.train import config_of

    Config().save(tmp_path / "c.yaml")
    _, args = parse(["train", "--config", str(tmp_path / "c.yaml"), "--model.latent_dim", "7"])
    config = config_of(args)
    assert config.model.latent_dim == 7
    assert config.optim == Config().optim and config.data == Config().data


def command(*argv: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "textvae", *argv], capture_output=True, text=True, **options
    )


def test_help_is_fast_and_imports_no_torch():
    probe = "import sys, textvae.cli.main as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    probe += "assert not {'torch', 'datasets', 'nltk'} & sys.modules.keys()"
    started = time.process_time(), time.monotonic()
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started[1] < 5  # takes a tenth of this on an idle machine
    assert "textvae train --config" in done.stdout and done.stderr == ""


def test_a_model_loads_without_the_compiler_of_torch(trained):
    probe = f"import sys, textvae; textvae.load({str(trained)!r}).sample(2)\n"
    probe += "assert 'torch._dynamo' not in sys.modules, 'takes a second'"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_in_a_narrow_terminal():
    done = command("--help", env=os.environ | {"COLUMNS": "40"})
    assert done.returncode == 0
    described = done.stdout.partition("examples:")[0]
    assert "\n    sample " in described and "usage: textvae" in described


def test_no_arguments_is_help(capfd):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 0
    assert "usage: textvae" in capfd.readouterr().out


def test_a_closed_pipe_is_not_an_error(place, tmp_path):
    many = tmp_path / "many.txt"
    many.write_text(
        f"{'x' * 1000}\n" * 200
    )  # only a few words each, but together more than a pipe holds
    argv = ["reconstruct", place["run"], "--file", str(many), "--show-source"]
    line = " ".join([sys.executable, "-m", "textvae", *argv, "| head -n 1"])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, timeout=60
    )
    said = [
        f"{many}: read as lines",
        f"{many}: 100% of the tokens are <unk>",
        f"{place['run']}: too early",
    ]
    assert done.returncode == 0
    for line, start in zip(done.stderr.splitlines(), said, strict=True):  # nothing about the pipe
        assert line.startswith(start)
    assert done.stdout == f"> {'x' * 1000}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written(place, unbuffered):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-m", "textvae", "compare", place["run"]]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == "textvae: cannot write: No space left on device\n"


def test_ctrl_c_during_evaluate(trained, tmp_path, capfd):
    shutil.copytree(trained, tmp_path / "run")

    def interrupt_soon() -> None:
        from textvae.evaluation import evaluate_run as report

        # A test run in the background is started with Ctrl-C ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        original = report.evaluate

        def evaluate(*args, **options):
            os.kill(os.getpid(), signal.SIGINT)
            return original(*args, **options)

        report.evaluate = evaluate

    assert in_child(["evaluate", str(tmp_path / "run")], before=interrupt_soon) == 130
    captured = capfd.readouterr()
    assert captured.err.splitlines()[-1] == "textvae: interrupted"
    assert "Traceback" not in captured.err and captured.out == ""


def in_terminal(argv: list[str], columns: int) -> str:
    """What a command writes to a terminal with this many columns."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "textvae", *argv], stderr=slave, stdin=slave, env=environment
    )
    os.close(slave)
    seen = b""
    with suppress(OSError):  # raised when the other end is closed
        while chunk := os.read(master, 65536):
            seen += chunk
    assert process.wait() == 0
    os.close(master)
    return seen.decode()


def screen(written: str) -> list[str]:
    """The lines that a terminal shows after processing what was written."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b"):
            if part.endswith("K"):
                lines[row] = lines[row][:column] if part != "\x1b[2K" else ""
            elif part.endswith("A"):
                row -= int(part[2:-1] or 1)
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return lines


@pytest.mark.parametrize("columns", [40, 120])
def test_log_lines_and_the_live_line_do_not_garble_each_other(columns, tiny, tmp_path):
    argv = ["train", "--out", str(tmp_path / "run"), *tiny, "--train.epochs", "3"]
    written = in_terminal(argv, columns)
    assert "tok/s" in written or columns == 40  # the live line was there
    assert "\x1b[?25h" in written  # and the cursor is back
    left = screen(written)
    evaluations = [line for line in left if " valid: " in line]
    assert len(evaluations) == 3
    assert all(re.fullmatch(r"epoch \d\.00 valid: elbo .* au \d of 4 *", e) for e in evaluations)
    assert not any("tok/s" in line or "━" in line for line in left)  # it leaves nothing behind


def from_stdin(argv: list[str], sent: bytes, **options) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "textvae", *argv]
    return subprocess.run(line, input=sent, capture_output=True, **options)


def test_standard_input_is_read_like_a_file(place):
    argv = ["reconstruct", place["run"], "--format", "jsonl"]
    done = from_stdin(argv, b"\xef\xbb\xbfthe cat\r\na dog\r\n")
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    assert [row["source"] for row in rows] == ["the cat", "a dog"]
    for sent, message in (
        (b"the cat\nein B\xe4r\n", "standard input, line 2: not UTF-8"),
        ("the cat".encode("utf-16"), "standard input, line 1: contains a NUL byte"),
        (b"\n", "standard input has no sentences"),
    ):
        done = from_stdin(argv, sent)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.decode().startswith(f"textvae: {message}")
        assert len(done.stderr.splitlines()) == 1


def test_characters_that_the_terminal_cannot_show_are_escaped(place):
    argv = ["reconstruct", place["run"], "--show-source"]
    done = from_stdin(argv, "ein Bär\n".encode(), env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.startswith(rb"> ein B\u00e4r")


NOT_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0"}


def test_in_any_locale_files_and_pipes_are_utf8(place):
    sent = "ein Bär 🐻\n".encode()
    for format in ("text", "jsonl"):
        argv = ["reconstruct", place["run"], "--show-source", "--format", format]
        argv = argv[:2] + argv[3:] if format == "jsonl" else argv
        done = from_stdin(argv, sent, env=os.environ | NOT_UTF8)
        assert done.returncode == 0 and "ein Bär 🐻" in done.stdout.decode()
    done = from_stdin(argv, sent, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert json.loads(done.stdout)["source"] == "ein Bär 🐻" and done.stdout.isascii()


@pytest.mark.parametrize("argv", [["encode", "Bär"], ["train", "--out", "Bär"]])
def test_arguments_that_the_locale_has_spoiled(argv):
    done = from_stdin(argv, b"", env=os.environ | NOT_UTF8)
    said = done.stderr.decode()
    assert done.returncode == 2 and "because the locale is not UTF-8: set LC_ALL=C.UTF-8" in said
    assert len(said.splitlines()) == 1


def test_a_link_to_nowhere_as_the_run_folder(tiny, tmp_path, capfd):
    (tmp_path / "run").symlink_to(tmp_path / "unmounted")
    assert main(["train", "--out", str(tmp_path / "run"), *tiny]) == 2
    assert f"is a link to {tmp_path}/unmounted, which does not exist" in capfd.readouterr().err
    assert main(["train", "--out", str(tmp_path / "run/below"), *tiny]) == 2
    assert f"{tmp_path}/run is a link to {tmp_path}/unmounted" in capfd.readouterr().err
    below = str(tmp_path / "run" / "lines.jsonl")
    assert main(["score", "no run", str(tmp_path), "--out", below]) == 2
    assert f"{tmp_path}/run is a link to {tmp_path}/unmounted" in capfd.readouterr().err


def test_the_encoding_of_standard_output_is_restored(monkeypatch, tmp_path):
    with (tmp_path / "out").open("w", encoding="cp1252") as file:
        monkeypatch.setattr("sys.stdout", file)
        assert main(["cache"]) == 0
        assert (file.encoding, file.errors) == ("cp1252", "strict")


def test_what_cannot_be_saved_is_not_computed(trained, place, tmp_path, capfd, monkeypatch):
    from textvae.text.model import TextVAE

    monkeypatch.setattr(TextVAE, "posterior", None)
    monkeypatch.setattr(TextVAE, "encode", None)
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "metrics", ignore_errors=True)
    (tmp_path / "run" / "metrics").write_text("")
    assert "is a file, not a folder" in fails(capfd, ["evaluate", str(tmp_path / "run")])
    argv = ["encode", place["run"], place["lines.txt"], "--out", "z.csv"]
    assert "written as .npz or .parquet" in fails(capfd, argv)


def test_broken_records_of_a_run_are_one_line(trained, tmp_path, capfd):
    shutil.copytree(trained, tmp_path / "run")
    run = str(tmp_path / "run")
    for name, content, message in (
        ("training.json", "[]", "training.json: not a JSON object"),
        ("training.json", "{}", "written by another release of textvae ('epochs')"),
        ("versions.json", "{", "versions.json: not JSON"),
    ):
        (tmp_path / "run" / name).write_text(content)
        (tmp_path / "run" / "metrics").mkdir(exist_ok=True)
        card = {"seed": 0, "elbo": -1.0, "samples": 2, "precision": "fp32"}
        (tmp_path / "run" / "metrics" / "test.json").write_text(json.dumps(card))
        assert message in fails(capfd, ["compare", run, "--provenance"], table=True)
    assert "versions.json: not JSON" in fails(capfd, ["evaluate", run])


def test_sentences_may_follow_an_option(place, capfd):
    command, sentence = ["reconstruct", place["run"]], "the cat sees the tree"
    outputs = []
    for words in ([sentence, "--show-source"], ["--show-source", sentence]):
        assert in_child([*command, *words]) == 0
        outputs.append(capfd.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith(f"> {sentence}")


@pytest.mark.parametrize("argv", [["score", "{}"], ["reconstruct", "--file", "{}"]])
def test_the_file_that_is_read_is_not_replaced(place, tmp_path, capfd, argv):
    path, link = tmp_path / "mine.jsonl", tmp_path / "link.jsonl"
    path.write_text('{"text": "the cat sees the tree"}\n')
    link.symlink_to(path)
    command, *words = [word.format(path) for word in argv]
    for out in (path, link):
        said = fails(capfd, [command, place["run"], *words, "--out", str(out)])
        assert "would replace the file that is read" in said
    assert path.read_text() == '{"text": "the cat sees the tree"}\n'
