"""Every command reads a file as training does, and labels arrive where they are used."""

import json
import shutil

import numpy as np
import pytest
from conftest import in_child
from pyarrow import parquet

from textvae.cli.main import main


def run_ok(*argv):
    assert main([str(word) for word in argv]) == 0


def message(capfd, *argv):
    capfd.readouterr()
    assert main([str(word) for word in argv]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


TEXTS = ["the cat sees the tree", "a dog; likes, the house", "my bird eats"]
FILES = {
    "plain.txt": "".join(f"{text}\n" for text in TEXTS),
    "labeled.txt": "".join(f"{i}\t{text}\n" for i, text in enumerate(TEXTS)),
    "table.csv": "label;text\n" + "".join(f'{i};"{text}"\n' for i, text in enumerate(TEXTS)),
    "records.jsonl": "".join(
        json.dumps({"text": text, "label": i or None}) + "\n" for i, text in enumerate(TEXTS)
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, content in FILES.items():
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_encode_reads_the_text_and_carries_the_labels(trained, files, tmp_path, name):
    run_ok("encode", trained, files / "plain.txt", "--out", tmp_path / "plain.npz")
    run_ok("encode", trained, files / name, "--out", tmp_path / "z.npz")
    run_ok("encode", trained, files / name, "--out", tmp_path / "z.parquet")
    plain, z = np.load(tmp_path / "plain.npz"), np.load(tmp_path / "z.npz")
    table = parquet.read_table(tmp_path / "z.parquet").to_pydict()
    np.testing.assert_array_equal(z["mean"], plain["mean"])
    assert z["text"].tolist() == table["text"] == TEXTS
    if name == "plain.txt":
        assert "label" not in z and "label" not in table
    else:
        first = None if name == "records.jsonl" else "0"
        assert table["label"] == [first, "1", "2"]
        assert z["label"].tolist() == [first or "", "1", "2"]


def test_blank_lines_keep_their_place(trained, tmp_path):
    (tmp_path / "a.txt").write_text("a cat\n\n a dog \n")
    run_ok("encode", trained, tmp_path / "a.txt", "--out", tmp_path / "z.npz")
    assert np.load(tmp_path / "z.npz")["text"].tolist() == ["a cat", "", "a dog"]


def test_reconstruct_reads_the_same_file(trained, files, capfd):
    capfd.readouterr()
    run_ok("reconstruct", trained, "--file", files / "table.csv", "--format", "jsonl")
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["source"] for row in rows] == TEXTS


def test_options_say_how_a_file_is_laid_out(trained, files, tmp_path, capfd):
    (tmp_path / "a.csv").write_text("x:a cat\ny:a dog\n")
    options = ["--data.delimiter", ":", "--data.header", "false", "--data.text_column", "2"]
    out = ["--out", tmp_path / "z.npz"]
    run_ok("encode", trained, tmp_path / "a.csv", *out, *options, "--data.label_column", "1")
    z = np.load(tmp_path / "z.npz")
    assert (z["text"].tolist(), z["label"].tolist()) == (["a cat", "a dog"], ["x", "y"])
    run_ok("encode", trained, files / "labeled.txt", *out, "--data.format", "lines")
    assert np.load(tmp_path / "z.npz")["text"][0] == f"0\t{TEXTS[0]}"
    (tmp_path / "b.csv").write_text("apple\nbanana\n")
    wrong = message(capfd, "encode", trained, tmp_path / "b.csv", *out)
    assert wrong.endswith("set --data.header true or --data.header false")
    wrong = message(capfd, "encode", trained, tmp_path / "b.csv", *out, "--data.header", "maybe")
    assert "--data.header maybe: must be true or false" in wrong
    wrong = message(capfd, "reconstruct", trained, "a cat", "--data.format", "csv")
    assert "--data.format has no effect without --file" in wrong


@pytest.fixture(scope="module")
def moved(corpus, tmp_path_factory):
    """The corpus as tables, with other columns; half of the test split is unlabeled."""
    folder = tmp_path_factory.mktemp("moved")
    for split in ("train", "valid", "test"):
        rows = [line.split("\t") for line in (corpus / f"{split}.txt").read_text().splitlines()]
        labels = [-1 if split == "test" and i % 2 else label for i, (label, _) in enumerate(rows)]
        lines = [f"{label};{text}" for label, (_, text) in zip(labels, rows, strict=True)]
        (folder / f"{split}.csv").write_text("\n".join(["topic;sentence", *lines, ""]))
    return folder


def test_evaluate_reads_a_corpus_that_has_moved_into_tables(trained, moved, tmp_path, capfd):
    run = shutil.copytree(trained, tmp_path / "run")
    card = json.loads((run / "metrics" / "test.json").read_text())
    columns = ["--data.text_column", "sentence", "--data.label_column", "topic"]
    options = ["--samples", "4", "--generations", "5", "--json"]
    capfd.readouterr()
    run_ok("evaluate", run, "--data", moved, *columns, *options)
    again = json.loads(capfd.readouterr().out)
    assert (again["rec"], again["kl"], again["iw"]) == (card["rec"], card["kl"], card["iw"])
    wrong = message(capfd, "evaluate", run, "--data", moved, *options)
    assert "no column 'text'; set --data.text_column to one of topic, sentence" in wrong
    wrong = message(capfd, "evaluate", run, "--data", moved, "--data.format", "cvs")
    assert "--data.format cvs: choose one of auto" in wrong
    assert "did you mean csv?" in wrong


def test_unlabeled_examples_are_not_probed_and_not_named_on_the_map(
    trained, moved, tmp_path, capfd
):
    run = shutil.copytree(trained, tmp_path / "run")
    place = ["--data", moved, "--data.text_column", "sentence", "--data.label_column", "topic"]
    capfd.readouterr()
    run_ok("probe", run, *place, "--json")
    assert json.loads(capfd.readouterr().out)["probed"] == 10
    run_ok("map", run, *place, "--out", tmp_path / "map.png")
    unlabeled = shutil.copytree(moved, tmp_path / "unlabeled")
    texts = [line.split(";")[1] for line in (moved / "test.csv").read_text().splitlines()[1:]]
    (unlabeled / "test.csv").write_text(
        "\n".join(["topic;sentence", *(f";{t}" for t in texts), ""])
    )
    wrong = message(capfd, "probe", run, "--data", unlabeled, *place[2:])
    assert "the test split has no labels, and a probe needs them" in wrong


def test_json_lines_are_not_taken_for_text(trained, tmp_path, capfd):
    path = tmp_path / "texts.txt"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    assert in_child(["reconstruct", str(trained), "--file", str(path)]) == 2
    assert "its first line is a JSON object: set --data.format jsonl" in capfd.readouterr().err
    for format in ("jsonl", "lines"):
        given = ["--file", str(path), "--data.format", format, "--show-source"]
        assert in_child(["reconstruct", str(trained), *given]) == 0
        shown = capfd.readouterr().out
        assert ("> one" in shown) == (format == "jsonl") and ('> {"text"' in shown) != (
            "> one" in shown
        )


def test_words_that_the_model_does_not_know_are_reported(tiny, tmp_path, caplog):
    run, words = tmp_path / "run", ["--tokenizer.kind", "word", "--train.max_steps", "1"]
    assert main(["train", "--out", str(run), *tiny, *words]) == 0
    path = tmp_path / "new.txt"
    path.write_text("xyzzy plugh\n" * 3)
    message = "100% of the tokens are <unk>"
    for command in (
        ["reconstruct", "--file", path],
        ["encode", path, "--out", tmp_path / "z.npz"],
        ["score", path, "--samples", "1", "--regret-steps", "0"],
        ["reconstruct", "xyzzy"],
    ):
        caplog.clear()
        assert main([command[0], str(run), *map(str, command[1:])]) == 0
        assert message in caplog.text


def test_half_a_character_is_one_line_everywhere(trained, tmp_path, capfd):
    (tmp_path / "a.jsonl").write_text('{"text": "hi"}\n{"text": "hi \\ud83d there"}\n')
    for command in (["encode", trained], ["reconstruct", trained, "--file"], ["score", trained]):
        out = ["--out", tmp_path / "z.npz"] if command[0] == "encode" else []
        found = message(capfd, *command, tmp_path / "a.jsonl", *out)
        assert "line 2: a lone surrogate, which is not a character" in found
    assert "sentence 1: a lone surrogate" in message(capfd, "reconstruct", trained, "caf\udce9")


def test_a_file_is_scored_as_it_was_in_training(tiny, tmp_path, caplog, capfd):
    lines = "".join(f"{'wv'[i % 2]}\tthe cat sees tree {i}\n" for i in range(80))
    (tmp_path / "texts.txt").write_text(lines)
    run, path = tmp_path / "run", tmp_path / "texts.txt"
    options = [*tiny, "--data.dir", path, "--data.format", "lines", "--train.max_steps", "2"]
    assert in_child([str(word) for word in ["train", "--out", run, *options]]) == 0
    for command in (["score"], ["encode", "--out", tmp_path / "z.parquet"]):
        run_ok(command[0], run, path, *command[1:])
    assert parquet.read_table(tmp_path / "z.parquet")["text"][0].as_py().startswith("w\tthe cat")
    out = capfd.readouterr().out
    assert "w\tthe cat" in out or "w the cat" in out
