"""Columns that are copied to the output, and the numbers of rows next to them."""

import json
import os
import shutil

import datasets
import numpy as np
import pytest
from conftest import TINY

import textvae
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.runs.model_folder import weights_hash
from textvae.text.data.corpus import read_file

CSV = """ticket,created,text,kind
007,2024-01-02,the cat likes the tree,a
008,,"my dog, eats
the fish",b
009,-1,,a
010,1.0,a fish likes the house,b
"""
TICKETS = ["007", "008", "009", "010"]
SCORED = ["007", "008", "010"]  # the text of the other one is blank


@pytest.fixture
def tickets(tmp_path):
    path = tmp_path / "tickets.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_scores_keep_columns_as_they_are(trained, tickets, ending, tmp_path):
    out = tmp_path / f"scores.{ending}"
    words = ["--keep", "ticket", "created", "--samples", "2", "--regret-steps", "0"]
    assert main(["score", str(trained), str(tickets), "--out", str(out), *words]) == 0
    if ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [row["ticket"] for row in rows] == SCORED
    assert [row["created"] for row in rows] == ["2024-01-02", "", "1.0"]
    assert [row["row"] for row in rows] == [0, 1, 3]  # blank rows count


def test_the_table_shows_them(trained, tickets, capsys):
    words = ["--keep", "ticket", "--samples", "2", "--regret-steps", "0", "--labels"]
    assert main(["score", str(trained), str(tickets), *words[:-1]]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[-2:] == ["ticket", "text"]
    assert [line[header.index("ticket") :].split()[0] for line in lines] == SCORED
    assert main(["score", str(trained), str(tickets), *words, "--data.label_column", "kind"]) == 0
    assert "AUROC" in capsys.readouterr().out  # no kept text is taken for a score


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_latent_vectors_keep_columns(trained, tickets, ending, tmp_path, monkeypatch):
    monkeypatch.setattr("textvae.cli.encode.AT_ONCE", 3)
    out = tmp_path / f"latents.{ending}"
    words = ["--out", str(out), "--keep", "ticket", "created"]
    assert main(["encode", str(trained), str(tickets), *words]) == 0
    if ending == "npz":
        with np.load(out) as arrays:
            found = {name: arrays[name].tolist() for name in ("ticket", "created", "text")}
    else:
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(out).to_pydict()
    assert found["ticket"] == TICKETS and found["created"] == ["2024-01-02", "", "-1", "1.0"]
    assert found["text"][2] == ""


def test_json_values_of_any_type_are_kept(trained, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text(
        '{"text": "the cat", "id": 7}\n{"text": ""}\n{"text": "my dog", "id": null}\n'
        '{"text": "a fish", "id": [1, 2]}\n{"text": "a tree", "id": "NaN"}\n'
    )
    options = {"samples": 1, "regret_steps": 0, "keep": ["id"]}
    rows = list(textvae.score_file(trained, path, **options))
    assert [(row["row"], row["id"]) for row in rows] == [
        *((0, "7"), (2, None), (3, "[1, 2]"), (4, "NaN"))
    ]


def test_the_first_object_may_lack_what_is_kept(trained, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "the cat"}\n{"text": "my dog", "id": 7}\n')
    options = {"samples": 1, "regret_steps": 0}
    rows = list(textvae.score_file(trained, path, keep=["id"], **options))
    assert [row["id"] for row in rows] == [None, "7"]
    with pytest.raises(UserError, match="no column 'ident'"):
        textvae.score_file(trained, path, keep=["ident"], **options)


def test_the_first_object_may_lack_the_label_of_the_training_data(corpus, tmp_path):
    rows = [line.split("\t") for line in (corpus / "train.txt").read_text().splitlines()]
    lines = [json.dumps({"stars": label, "text": text}) for label, text in rows]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    run = tmp_path / "run"
    words = ["--data.dir", str(tmp_path), "--data.label_column", "stars"]
    assert main(["train", "--out", str(run), *TINY, *words, "--train.max_steps", "2"]) == 0
    (tmp_path / "new.jsonl").write_text('{"text": "the cat"}\n' + "\n".join(lines[:20]))
    scored = textvae.score_file(run, tmp_path / "new.jsonl", samples=1, regret_steps=0)
    assert [row["label"] for row in scored] == [None, *(label for label, _ in rows[:20])]


def test_classes_of_a_dataset_are_kept_by_name(trained, tmp_path):
    kinds = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"text": datasets.Value("string"), "topic": kinds})
    table = {"text": ["the cat", "my dog", "a fish"], "topic": [1, -1, 0]}
    datasets.Dataset.from_dict(table, features=features).save_to_disk(tmp_path / "saved")
    options = {"samples": 1, "regret_steps": 0}
    rows = textvae.score_file(trained, tmp_path / "saved", keep=["topic"], **options)
    assert [row["topic"] for row in rows] == ["pos", None, "neg"]


def test_neighbors_have_the_rows_of_the_file_and_their_labels(trained, tickets, capsys):
    options = {"data": tickets, "reading": {"label_column": "kind"}}
    found = textvae.neighbors(trained, "the cat", 3, **options)
    assert {row["row"]: row["label"] for row in found} == {0: "a", 1: "b", 3: "b"}
    argv = ["neighbors", str(trained), "the cat", "--data", str(tickets)]
    assert main([*argv, "--data.label_column", "kind"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["distance", "row", "label", "text"]
    assert {line.split()[1]: line.split()[2] for line in lines} == {"0": "a", "1": "b", "3": "b"}
    assert main([*argv, "--data.labels", "false"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["distance", "row", "text"]


def test_rows_are_numbered_only_if_some_are_blank(tickets, tmp_path):
    assert read_file(tickets)["row"][:] == [0, 1, 3]
    plain = tmp_path / "plain.txt"
    plain.write_text("a\nb\n")
    assert read_file(plain).column_names == ["text"]


@pytest.mark.parametrize(
    ("command", "column", "message"),
    [
        ("score", "tiket", "no column 'tiket'; it has ticket, created, text, kind; did you mean"),
        ("encode", "tiket", "no column 'tiket'"),
        ("score", "elbo", "--keep elbo: the output has a column of that name already"),
        ("encode", "label", "--keep label: the output has a column of that name already"),
        ("encode", "mean", "--keep mean: the output has a column of that name already"),
    ],
)
def test_wrong_columns_are_one_line(command, column, message, trained, tmp_path, capsys):
    path = tmp_path / "tickets.csv"
    path.write_text(CSV if column == "tiket" else CSV.replace("kind", column))
    out = ["--out", str(tmp_path / "out.parquet")]
    assert main([command, str(trained), str(path), *out, "--keep", column]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("command", ["score", "encode"])
def test_standard_input_has_no_columns_to_keep(command, trained, tmp_path, capfd, monkeypatch):
    with (tmp_path / "in").open("w+") as file:
        file.write("the cat\n")
        file.seek(0)
        monkeypatch.setattr("sys.stdin", file)
        out = ["--out", str(tmp_path / "out.parquet")]
        assert main([command, str(trained), "-", *out, "--keep", "x"]) == 2
    assert "can be read only once" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["../../evil", "a/b"])
def test_a_column_may_have_any_name(name, trained, tmp_path, capsys):
    path, deep = tmp_path / "texts.csv", tmp_path / "deep" / "er"
    path.write_text(f"{name},text\n1,the cat\n")
    deep.mkdir(parents=True)
    argv = ["encode", str(trained), str(path), "--keep", name, "--out"]
    assert main([*argv, str(deep / "l.npz")]) == 2
    assert f"an .npz file cannot have a column {name!r}" in capsys.readouterr().err
    assert not list(deep.iterdir()) and not list(tmp_path.rglob("*evil*"))
    assert main([*argv, str(deep / "l.parquet")]) == 0


def test_a_home_folder_in_an_option(trained, tickets, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(trained, tmp_path / "run")
    argv = ["encode", "~/run", "~/tickets.csv", "--keep", "ticket", "--out=~/l.npz"]
    assert main(argv) == 0
    with np.load(tmp_path / "l.npz") as arrays:
        assert arrays["weights_sha256"] == weights_hash(trained)
    assert main(["compare", "~/run"]) == 0


def test_a_pipe_is_refused_before_it_is_read(trained, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    for command in ("encode", "score"):
        out = ["--out", str(tmp_path / "out.parquet")]
        argv = [command, str(trained), str(tmp_path / "pipe"), *out, "--data.format", "csv"]
        assert main([*argv, "--keep", "x"]) == 2
        assert "pipes can be read only once" in capsys.readouterr().err


def test_columns_of_any_posterior_and_without_a_name_are_refused(tiny, tmp_path, capsys):
    run, path = tmp_path / "run", tmp_path / "texts.csv"
    sphere = ["--model.posterior", "vmf", "--train.max_steps", "1"]
    assert main(["train", "--out", str(run), *tiny, *sphere]) == 0
    path.write_text(",kappa,text\n0,1,the cat\n")
    argv = ["encode", str(run), str(path), "--out", str(tmp_path / "l.parquet"), "--keep"]
    assert main([*argv, "kappa"]) == 2
    assert "--keep kappa: the output has a column of that name" in capsys.readouterr().err
    assert main([*argv, ""]) == 2
    assert "a column has no name" in capsys.readouterr().err
