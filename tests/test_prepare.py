"""data/{ptb,yahoo,yelp}/prepare.py: canonical files, checksums, and their messages."""

import csv
import hashlib
import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest

from textvae.text.data.corpus import read_corpus

ROOT = Path(__file__).parent.parent
REAL = Path(os.environ.get("TEXTVAE_TEST_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))


def script(name: str):
    spec = importlib.util.spec_from_file_location(
        f"prepare_{name}", ROOT / "data" / name / "prepare.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def real(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"no {REAL / name}: set TEXTVAE_TEST_DATA to a folder that has {name}/")
    return REAL / name


@pytest.mark.parametrize(
    ("name", "license"), [("ptb", "LDC"), ("yahoo", "non-commercial"), ("yelp", "academic")]
)
def test_without_a_source_it_says_where_the_data_comes_from(name, license, tmp_path, capsys):
    assert script(name).main(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "--source" in said
    assert license in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["ptb", "yahoo", "yelp"])
def test_a_missing_source(name, tmp_path, capsys):
    missing = str(tmp_path / "nowhere")
    assert script(name).main(["--source", missing, "--out", str(tmp_path / "out")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ptb_is_refused_unless_it_is_the_published_one(tmp_path, capsys, monkeypatch):
    ptb, out = script("ptb"), tmp_path / "out"
    for split in ("train", "valid", "test"):
        (tmp_path / f"ptb.{split}.txt").write_text(f" a {split} sentence \n")
    assert ptb.main(["--source", str(tmp_path), "--out", str(out)]) == 2
    assert "train is not the published file" in capsys.readouterr().err
    assert not out.exists()
    sums = {s: hashlib.md5(f" a {s} sentence \n".encode()).hexdigest() for s in ptb.MD5}
    monkeypatch.setattr(ptb, "MD5", sums)
    for _ in range(2):  # a second run changes nothing
        assert ptb.main(["--source", str(tmp_path), "--out", str(out)]) == 0
        assert sorted(p.name for p in out.iterdir()) == ["test.txt", "train.txt", "valid.txt"]
    assert read_corpus(out)["valid"]["text"][:] == ["a valid sentence"]


def test_the_published_ptb(tmp_path, capsys):
    assert script("ptb").main(["--source", str(real("ptb")), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert all(f"{count} sentences" in said for count in (42_068, 3_370, 3_761))


def test_yelp_drops_what_is_in_test(tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "train.txt").write_text("1\tgood\n0\tbad\n0\tgood\n1\tfine\n")
    (source / "valid.txt").write_text("1\tfine\n")
    (source / "test.txt").write_text("1\tgood\n")
    assert script("yelp").main(["--source", str(source), "--out", str(out)]) == 0
    assert "dropped 2 train" in capsys.readouterr().out
    assert (out / "train.txt").read_text() == "0\tbad\n1\tfine\n"
    assert (out / "test.txt").read_text() == "1\tgood\n"


def test_yelp_without_labels_or_test(tmp_path, capsys):
    for split in ("train", "valid"):
        (tmp_path / f"{split}.txt").write_text("plain\n")
    yelp, out = script("yelp"), tmp_path / "out"
    assert yelp.main(["--source", str(tmp_path), "--out", str(out)]) == 2
    assert "no labels" in capsys.readouterr().err
    for split in ("train", "valid"):
        (tmp_path / f"{split}.txt").write_text("1\tplain\n")
    assert yelp.main(["--source", str(tmp_path), "--out", str(out)]) == 2
    assert "no test split" in capsys.readouterr().err


def test_the_leak_of_the_real_yelp(tmp_path, capsys):
    assert script("yelp").main(["--source", str(real("yelp")), "--out", str(tmp_path / "o")]) == 0
    assert "dropped 653 train" in capsys.readouterr().out


@pytest.mark.parametrize("label", ["", "3\t"])
def test_released_yahoo_is_written_unchanged(tmp_path, capsys, label):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for split in ("train", "val", "test"):
        (source / f"{split}.txt").write_text(f"{label}a {split} _UNK ?\n" * 3)
    assert script("yahoo").main(["--source", str(source), "--out", str(out)]) == 0
    assert (out / "valid.txt").read_text() == f"{label}a val _UNK ?\n" * 3
    assert "3 documents (the published split has 100000)" in capsys.readouterr().out


def topics_csv(folder: Path) -> None:
    folder.mkdir()
    with open(folder / "train.csv", "w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        for i in range(60):
            words = " ".join(f"Word{j}" for j in range(5 if i % 4 == 0 else 30))
            writer.writerow([1 + i % 3, f"Title {i}?", "It isn't\\nso.", words])


def test_a_sample_of_topics_is_even_seeded_and_within_the_lengths(tmp_path, capsys):
    source, outs = tmp_path / "in", [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    topics_csv(source)
    sizes = ["--train", "18", "--valid", "3", "--test", "6"]
    for out, seed in zip(outs, ("1", "1", "2"), strict=True):
        arguments = ["--source", str(source), "--out", str(out), "--seed", seed, *sizes]
        assert script("yahoo").main(arguments) == 0
    train = (outs[0] / "train.txt").read_text()
    assert train == (outs[1] / "train.txt").read_text() != (outs[2] / "train.txt").read_text()
    rows = {s: (outs[0] / f"{s}.txt").read_text().splitlines() for s in ("train", "valid", "test")}
    assert {s: len(lines) for s, lines in rows.items()} == {"train": 18, "valid": 3, "test": 6}
    everything = [line for lines in rows.values() for line in lines]
    assert len(set(everything)) == 27
    for lines in rows.values():
        assert len(set(Counter(line.split("\t")[0] for line in lines).values())) == 1
    for line in everything:
        words = line.split("\t")[1].split()
        assert 20 <= len(words) <= 200
        assert words[0] == "title"
        assert words[2:8] == ["?", "it", "is", "n't", "so", "."]


def test_topics_with_too_few_documents(tmp_path, capsys):
    topics_csv(tmp_path / "in")
    arguments = ["--source", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert script("yahoo").main([*arguments, "--train", "300", "--valid", "3", "--test", "3"]) == 2
    assert "too few documents" in capsys.readouterr().err
    assert script("yahoo").main([*arguments, "--train", "10", "--valid", "3", "--test", "3"]) == 2
    assert "10 documents cannot be divided evenly among 3 topics" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ptb", "yahoo", "yelp"])
def test_a_dataset_on_the_hub_without_a_network(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert script(name).main(["--source", "owner/name", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "owner/name" in said[0] and "pass its folder" in said[0]


@pytest.mark.parametrize("name", ["ptb", "yahoo", "yelp"])
def test_a_place_that_cannot_be_written_to(name, tmp_path, capsys, monkeypatch):
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text(f"1\t{split}\n")
    module = script(name)
    if name == "ptb":
        sums = {s: hashlib.md5(f"1\t{s}\n".encode()).hexdigest() for s in module.MD5}
        monkeypatch.setattr(module, "MD5", sums)
    assert module.main(["--source", str(tmp_path), "--out", "/dev/null/out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("prepare: cannot write /dev/null/out") and len(said.splitlines()) == 1


def test_yahoo_counts_and_seeds_are_whole_numbers(tmp_path, capsys):
    for option in ("--seed", "--train"):
        with pytest.raises(SystemExit) as stopped:
            script("yahoo").main(["--out", str(tmp_path), option, "-1"])
        assert stopped.value.code == 2
        assert "-1: must be an integer of at least 0" in capsys.readouterr().err
