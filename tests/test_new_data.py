"""Files of new examples: read as the run reads its own data, in every format, and evaluated."""

import csv
import json
import os
import shutil
import threading
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from conftest import in_child

import textvae
from textvae.builders.run_data import run_config
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.comparison.compare import compare
from textvae.evaluation.diagnosis.run_diagnosis import diagnose_run
from textvae.evaluation.evaluate_run import evaluate_run
from textvae.evaluation.open_run import open_run, rows_of
from textvae.evaluation.scoring.score import score_file
from textvae.runs.latents import read_labels

FIGURES = ("count", "elbo", "iw", "kl", "units", "tokens", "bytes")


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def examples(corpus):
    """Label and text of the test sentences of the shared run."""
    lines = (corpus / "test.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines]


def write(path, examples, column="text"):
    """Write the examples in the format of the file's extension; .txt without the labels."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".txt":
            file.writelines(f"{text}\n" for _, text in examples)
        elif path.suffix == ".jsonl":
            file.writelines(json.dumps({column: t, "label": y}) + "\n" for y, t in examples)
        else:
            table = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writerows([["label", column], *examples])
    return path


@pytest.mark.parametrize("ending", ["txt", "csv", "tsv", "jsonl"])
def test_a_file_of_any_format_has_the_card_of_the_same_split(run, examples, ending, tmp_path):
    path = write(tmp_path / f"new.{ending}", examples)
    saved = json.loads((run / "metrics" / "test.json").read_text())
    card = evaluate_run(run, data=path, samples=4, generations=0)
    assert {k: card[k] for k in FIGURES} == pytest.approx({k: saved[k] for k in FIGURES}, rel=1e-5)
    assert card["split"] == path.name
    assert json.loads((run / "metrics" / f"{path.name}.json").read_text())["count"] == 20
    assert json.loads((run / "metrics" / "test.json").read_text()) == saved


def test_a_limit_takes_examples_of_all_labels_of_a_sorted_file(run, examples, tmp_path):
    path = write(tmp_path / "sorted.tsv", sorted(examples))
    split = open_run(run, data=path).split("test")
    batches = rows_of(split, 3, limit=5)
    assert sorted(np.concatenate(batches)) == [0, 5, 10, 14, 19]
    assert max(map(len, batches)) <= 3
    assert len(np.concatenate(rows_of(split, 3, limit=100))) == 20


def test_the_card_of_a_file_replaces_no_other_in_silence(run, examples, tmp_path, caplog):
    own = (run / "metrics" / "test.json").read_bytes()
    (tmp_path / "other").mkdir()
    paths = [
        write(tmp_path / "test.txt", examples),
        write(tmp_path / "other" / "test.txt", examples[:9]),
    ]
    plain = paths[0].rename(tmp_path / "test")  # without an extension
    options = {"samples": 1, "generations": 0}
    assert (
        evaluate_run(run, data=plain, reading={"format": "lines"}, **options)["split"]
        == "test-file"
    )
    assert (run / "metrics" / "test.json").read_bytes() == own
    write(paths[0], examples)
    evaluate_run(run, data=paths[0], **options)
    evaluate_run(run, data=paths[0], **options)
    assert "replaced" not in caplog.text
    evaluate_run(run, data=paths[1], **options)
    assert "test.txt.json, which held the results of different texts" in caplog.text


def test_cards_of_different_texts_are_not_compared_in_silence(run, examples, tmp_path):
    cards = [
        evaluate_run(run, data=write(tmp_path / "a.txt", chosen), samples=1, generations=0)
        for chosen in (examples[:5], examples[:5], sorted(examples[:5]))
    ]
    assert "Not comparable" not in compare(cards[:2])
    assert "**Not comparable**: the cards were computed on different texts or labels." in compare(
        cards[1:]
    )


def test_the_command_names_the_file(run, examples, tmp_path, capfd):
    path = write(tmp_path / "new.txt", examples[:7])
    argv = ["evaluate", str(run), "--data", str(path), "--samples", "2", "--generations", "3"]
    assert in_child([*argv, "--limit", "5"]) == 0
    assert capfd.readouterr().out.splitlines()[0] == "run, new.txt"
    assert (run / "metrics" / "new.txt-limit5.json").exists()
    assert in_child(argv) == 0
    assert "| run " in compare([run], "new.txt")


def test_what_needs_the_splits_of_the_run_says_so(run, examples, tmp_path, capsys):
    path = str(write(tmp_path / "new.txt", examples))
    for command in (["probe", str(run)], ["evaluate", str(run), "--split", "valid"]):
        assert main([*command, "--data", path]) == 2
        assert "new.txt has no splits, but this needs the" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data", "nowhere.txt"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "nowhere.txt: no such file or folder (datasets on the Hub are named owner/name)"
    )


def test_a_run_of_a_single_file_finds_it_elsewhere(tiny, examples, tmp_path):
    texts, run = write(tmp_path / "texts.txt", examples * 3), tmp_path / "single"
    options = [*tiny, "--data.dir", str(texts), "--train.epochs", "1"]
    assert in_child(["train", "--out", str(run), *options]) == 0
    moved = shutil.move(texts, tmp_path / "moved.txt")
    opened = open_run(run, data=moved)
    assert opened.new is None and opened.title("test") == "test"
    assert [len(opened.split(name)) for name in ("train", "valid", "test")] == [54, 3, 3]
    longer = write(tmp_path / "longer.txt", examples * 4)
    opened = open_run(run, data=longer)
    assert opened.new == "longer.txt" and len(opened.split("test")) == 80


def test_the_columns_of_the_run_are_those_of_a_new_file(run, examples, tmp_path):
    config = (run / "config.yaml").read_text()
    assert "text_column: null" in config
    (run / "config.yaml").write_text(config.replace("text_column: null", "text_column: title"))
    titled = write(tmp_path / "new.csv", examples, "title")
    assert [row["text"] for row in _first_two(run, titled)] == [text for _, text in examples[:2]]
    plain = write(tmp_path / "new.txt", examples)  # has no columns
    assert [row["text"] for row in _first_two(run, plain)] == [text for _, text in examples[:2]]
    other = write(tmp_path / "other.csv", examples, "body")
    with pytest.raises(UserError, match="no column 'title', as in the training data, or 'text'"):
        score_file(run, other)
    found = _first_two(run, other, text_column="label", label_column="body")
    assert [(row["label"], row["text"]) for row in found] == [(t, y) for y, t in examples[:2]]


def _first_two(run, path, **reading):
    scored = score_file(run, path, samples=1, regret_steps=0, **reading)
    return [row for _, row in zip(range(2), scored, strict=False)]


def test_relative_paths_of_the_data_work_from_another_directory(
    corpus, tiny, tmp_path, monkeypatch, capfd
):
    start, other = tmp_path / "start", tmp_path / "other"
    other.mkdir()
    shutil.copytree(corpus, start / "texts")
    monkeypatch.chdir(start)
    relative = ["--data.dir", "texts", "--data.valid", "texts/test.txt", "--out", "run"]
    assert main(["train", *tiny, *relative, "--train.max_steps", "4"]) == 0
    monkeypatch.chdir(other)
    run = str(start / "run")
    assert main(["evaluate", run, "--samples", "2", "--generations", "0"]) == 0
    assert main(["train", "--resume", run, "--train.max_steps", "6"]) == 0
    assert "all 6 steps done" in (start / "run" / "training.json").read_text()
    found = textvae.diagnose_run(run, samples=2)
    assert all(f"--data.dir {start / 'texts'}" in r.command for r in found.remedies if r.files)
    assert main(["evaluate", run, "--samples", "2", "--generations", "0"]) == 0
    shutil.rmtree(start / "texts")
    capfd.readouterr()
    assert main(["evaluate", run]) == 2
    assert "no such file or folder" in capfd.readouterr().err


def test_files_are_looked_for_next_to_the_data_first(corpus, tiny, tmp_path, monkeypatch):
    start, other = tmp_path / "start", tmp_path / "other"
    other.mkdir()
    shutil.copytree(corpus, start / "texts")
    (start / "test.txt").write_text("another file\n" * 9, encoding="utf-8")
    monkeypatch.chdir(start)
    options = ["--data.dir", "texts", "--data.test", "test.txt", "--out", "run"]
    assert main(["train", *tiny, *options, "--train.max_steps", "2"]) == 0
    monkeypatch.chdir(other)
    found = run_config(start / "run").data
    assert (found.dir, found.test) == (str(start / "texts"), "test.txt")


def test_a_tokenizer_with_a_relative_path_is_the_same_from_anywhere(
    corpus, tiny, trained, tmp_path, monkeypatch
):
    shutil.copytree(corpus, tmp_path / "texts")
    shutil.copy(trained / "tokenizer.json", tmp_path / "tokenizer.json")
    monkeypatch.chdir(tmp_path)
    options = ["--data.dir", "texts", "--tokenizer.path", "tokenizer.json", "--out", "run"]
    assert main(["train", *tiny, *options, "--train.max_steps", "2"]) == 0
    monkeypatch.chdir(corpus)
    assert main(["train", "--resume", str(tmp_path / "run"), "--train.max_steps", "3"]) == 0


def test_a_read_only_run_is_evaluated_and_nothing_is_saved(run, monkeypatch, capfd, caplog):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    real = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: real(path, mode) and not (mode & os.W_OK and run in here(path)),
    )
    for command in (["evaluate", "--samples", "2"], ["diagnose", "--samples", "2"], ["probe"]):
        caplog.clear()
        assert main([command[0], str(run), *command[1:]]) == 0
        assert "read-only: the results are printed, but not saved" in caplog.text
        assert "run, test split" in capfd.readouterr().out
    assert main(["evaluate", str(run), "--samples", "2", "--fit-sampler"]) == 0
    assert "holes (aggregate)" in capfd.readouterr().out
    assert before == {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}


def here(path):
    return (Path(path), *Path(path).parents)


def test_an_option_that_does_not_exist_is_a_type_error(run):
    for function in (evaluate_run, textvae.diagnose_run, textvae.probe, textvae.fit_sampler):
        with pytest.raises(TypeError, match="unexpected keyword argument 'devise'"):
            function(run, devise="cpu")


def test_generations_are_those_of_the_evaluated_examples(run, examples, tmp_path, monkeypatch):
    seen = []

    def remember(texts, **options):
        seen.extend(texts)
        return {}

    monkeypatch.setattr("textvae.text.examples.text_quality", remember)
    path = write(tmp_path / "new.txt", examples)
    evaluate_run(run, data=path, samples=1, limit=4, generations=500)
    rows = [0, 6, 13, 19]
    assert seen == [examples[row][1] for row in rows]
    seen.clear()
    evaluate_run(run, data=path, samples=1, generations=2)
    assert seen == [examples[0][1], examples[19][1]]


def test_reconstructions_are_compared_with_what_the_encoder_read(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "textvae.text.examples.text_quality", lambda texts, **_: seen.extend(texts) or {}
    )
    model, text = textvae.load(run), " ".join(["ab"] * 300)
    path = write(tmp_path / "new.txt", [("0", text)])
    evaluate_run(run, data=path, samples=1, generations=1)
    assert seen == [model.tokenizer.prefix(text, model.config["max_length"])]
    assert 0 < len(seen[0]) < len(text)


def test_the_data_of_a_run_may_be_a_file_without_a_suffix(tiny, corpus, tmp_path):
    lines = "".join((corpus / f"{name}.txt").read_text() for name in ("train", "valid", "test"))
    path, out = tmp_path / "sentences", tmp_path / "run"
    path.write_text(lines)
    options = [*tiny, "--data.dir", str(path), "--data.format", "label-tab-text"]
    assert in_child(["train", "--out", str(out), *options, "--train.max_steps", "2"]) == 0
    assert open_run(out, data=path).splits.keys() == {"train", "valid", "test"}
    assert open_run(out, data=path).new is None


def test_the_model_card_has_the_figures_of_its_weights(run, tmp_path):
    pushed = tmp_path / "pushed"
    (run / "README.md").unlink()
    evaluate_run(run, samples=2, generations=0)
    assert "## Test split" in (run / "README.md").read_text()
    model = textvae.load(str(run))
    model.save_pretrained(pushed)
    assert "## Test split" in (pushed / "README.md").read_text()
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    for folder in (run, pushed):
        model.save_pretrained(folder)
        assert "## Test split" not in (folder / "README.md").read_text()


def test_the_data_of_a_run_with_another_column_as_its_labels(tiny, examples, tmp_path):
    at = tiny.index("--data.dir")
    rows = [{"text": text, "label": y, "kind": "ab"[i % 2]} for i, (y, text) in enumerate(examples)]
    for split in ("train", "valid", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    run = tmp_path / "run"
    assert in_child(["train", "--out", str(run), *tiny[:at], "--data.dir", str(tmp_path)]) == 0
    opened = open_run(run, reading={"label_column": "kind"})
    assert opened.split("test").label_names == ["a", "b"]
    assert open_run(run, reading={"labels": False}).split("test").labels is None
    assert open_run(run).split("test").label_names == ["0", "1", "2"]
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"text": "more", "label": "0", "kind": "a"}\n')
    with pytest.raises(UserError, match=r"is not the data that .* was trained on"):
        open_run(run, reading={"label_column": "kind"})


def test_new_examples_from_a_pipe(run, examples, tmp_path, monkeypatch, capfd):
    path = write(tmp_path / "new.txt", examples)
    expected = evaluate_run(run, data=path, samples=2, generations=0)
    options = ["--samples", "2", "--generations", "0", "--json"]
    with path.open() as text:
        monkeypatch.setattr("sys.stdin", text)
        capfd.readouterr()
        assert main(["evaluate", str(run), "--data", "-", *options]) == 0
    card = json.loads(capfd.readouterr().out)
    assert {k: card[k] for k in FIGURES} == {k: expected[k] for k in FIGURES}
    assert card["split"] == "standard-input-file"
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text(path.read_text()))
    writer.start()
    piped = evaluate_run(run, data=tmp_path / "pipe", samples=2, generations=0)
    writer.join()
    assert piped["elbo"] == expected["elbo"]


def test_new_examples_in_folders(run, examples, tmp_path, capfd):
    expected = evaluate_run(run, data=write(tmp_path / "new.tsv", sorted(examples)), samples=2)
    for i, (label, text) in enumerate(sorted(examples)):
        (tmp_path / "classes" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "classes" / label / f"{i:03d}.txt").write_text(text)
    table = {"text": [t for _, t in sorted(examples)], "label": [y for y, _ in sorted(examples)]}
    datasets.Dataset.from_dict(table).save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"test": datasets.Dataset.from_dict(table)}).save_to_disk(
        tmp_path / "splits"
    )
    names = sorted(set(table["label"]))
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    classes = datasets.Dataset.from_dict(table, features=datasets.Features(features))
    classes.save_to_disk(tmp_path / "saved-classes")
    for name in ("classes", "saved", "splits/test", "saved-classes"):
        card = evaluate_run(run, data=tmp_path / name, samples=2)
        assert {k: card[k] for k in FIGURES} == {k: expected[k] for k in FIGURES}
        out = tmp_path / "OUT.NPZ"
        assert main(["encode", str(run), str(tmp_path / name), "--out", str(out)]) == 0
        assert read_labels(out, 20) == table["label"]
    capfd.readouterr()
    assert main(["encode", str(run), str(tmp_path), "--out", str(out)]) == 2
    assert "a folder, not a file: it can be read as one if" in capfd.readouterr().err
    flat = tmp_path / "flat"
    flat.mkdir()
    for place, text in enumerate(table["text"]):
        (flat / f"{place:03d}.txt").write_text(text)
    words = ["encode", str(run), str(flat), "--data.format", "documents", "--out", str(out)]
    assert main(words) == 0
    assert np.load(out)["text"].tolist() == table["text"]


def test_labels_of_new_files_may_be_left_unread(run, examples, tmp_path, capfd):
    path = write(tmp_path / "new.tsv", examples)
    out = tmp_path / "out.jsonl"
    argv = ["score", str(run), str(path), "--samples", "1", "--regret-steps", "0", "--out"]
    for more in ([], ["--data.labels", "false"]):
        assert main([*argv, str(out), *more]) == 0
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert ("label" in rows[0]) == (more == [])


def test_ambiguous_files_beside_those_of_a_run_do_not_matter(tiny, corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "corpus")
    at, run = tiny.index("--data.dir"), tmp_path / "run"
    data = ["--data.dir", str(tmp_path / "corpus"), "--data.train", "train.txt"]
    assert in_child(["train", "--out", str(run), *tiny[:at], *data]) == 0
    (tmp_path / "corpus" / "old.train.txt").write_text("a\n")
    assert open_run(run, data=tmp_path / "corpus").new is None


def test_labels_that_the_run_names_may_be_left_unread(tiny, examples, tmp_path):
    at, run, path = tiny.index("--data.dir"), tmp_path / "run", tmp_path / "data.csv"
    write(path, examples * 3)
    data = ["--data.dir", str(path), "--data.label_column", "label"]
    assert in_child(["train", "--out", str(run), *tiny[:at], *data]) == 0
    opened = open_run(run, data=path, reading={"labels": False})
    assert opened.new is None and len(opened.split("test")) == 3


def test_a_test_split_that_changed_after_the_training_is_named(tiny, corpus, tmp_path, caplog):
    shutil.copytree(corpus, tmp_path / "corpus")
    at, run = tiny.index("--data.dir"), tmp_path / "run"
    data = ["--data.dir", str(tmp_path / "corpus")]
    assert in_child(["train", "--out", str(run), *tiny[:at], *data]) == 0
    open_run(run)
    assert "has changed" not in caplog.text
    lines = (tmp_path / "corpus" / "test.txt").read_text().splitlines(keepends=True)
    (tmp_path / "corpus" / "test.txt").write_text("".join(lines[:5]))
    assert in_child(["train", "--resume", str(run), "--train.epochs", "3"]) == 0
    open_run(run)
    assert f"the test split has changed since {run} was trained" in caplog.text


def test_a_new_file_of_unknown_words_is_named_once(tiny, examples, tmp_path, caplog):
    run, data = tmp_path / "run", write(tmp_path / "data.txt", examples)
    at = tiny.index("--data.dir")
    assert in_child(["train", "--out", str(run), *tiny[:at], "--data.dir", str(data)]) == 0
    (tmp_path / "odd.txt").write_text("xx yy\n" * 30)
    evaluate_run(run, data=tmp_path / "odd.txt", samples=1, generations=0)
    (warning,) = [r.getMessage() for r in caplog.records if "<unk>" in r.getMessage()]
    assert warning.startswith(f"{tmp_path / 'odd.txt'}: ")


def test_data_that_has_moved_says_what_to_do(tiny, examples, tmp_path, capfd):
    run, data = tmp_path / "run", write(tmp_path / "data.txt", examples)
    at = tiny.index("--data.dir")
    assert in_child(["train", "--out", str(run), *tiny[:at], "--data.dir", str(data)]) == 0
    data.rename(tmp_path / "moved.txt")
    capfd.readouterr()
    assert main(["evaluate", str(run)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "data.txt: no such file or folder" in line
    assert line.endswith(f"; if the data of {run} has moved, pass --data")


def test_a_single_labeled_example_is_named(run, capfd):
    assert main(["probe", str(run), "--labels", "1"]) == 2
    assert "--labels 1: these examples all have the same label" in capfd.readouterr().err


def test_a_saved_model_is_examined_on_a_file_without_its_run(run, examples, tmp_path, capfd):
    textvae.load(str(run)).save_pretrained(tmp_path / "shared")
    path = write(tmp_path / "new.csv", examples)
    options = {"samples": 4, "generations": 0, "data": path}
    ours, theirs = (evaluate_run(place, **options) for place in (run, tmp_path / "shared"))
    assert {k: theirs[k] for k in FIGURES} == {k: ours[k] for k in FIGURES}
    found = diagnose_run(tmp_path / "shared", data=path, samples=1)
    assert found.verdict == "collapsed"  # and it has no history, unlike its run
    assert all(remedy.command is None for remedy in found.remedies)  # there is no run to repeat
    capfd.readouterr()
    for command in (["neighbors", "the cat"], ["map", "--out", str(tmp_path / "map.png")]):
        name, *rest = command
        assert main([name, str(tmp_path / "shared"), *rest, "--data", str(path)]) == 0
    for name in ("evaluate", "diagnose", "probe"):
        assert main([name, str(tmp_path / "shared")]) == 2
        assert (
            "only a saved model: evaluate, diagnose, bounds, explain, map" in capfd.readouterr().err
        )
