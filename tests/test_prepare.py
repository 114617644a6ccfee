"""data/{ptb,yahoo,yelp,moses}/prepare.py: canonical files, checksums, and their messages."""

import csv
import gzip
import hashlib
import importlib.util
import io
import json
import os
import pickle
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from textvae.text.data.corpus import read_corpus

ROOT = Path(__file__).parent.parent
REAL = Path(os.environ.get("TEXTVAE_TEST_DATA", "absent"))


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
    ("name", "license"),
    [("ptb", "LDC"), ("yahoo", "non-commercial"), ("yelp", "academic"), ("moses", "MIT")],
)
def test_without_a_source_it_says_where_the_data_comes_from(name, license, tmp_path, capsys):
    assert script(name).main(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "--source" in said
    assert license in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["ptb", "yahoo", "yelp", "moses"])
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


@pytest.fixture
def molsets(tmp_path, monkeypatch):
    """A small MOSES: the script, and a folder with its files."""
    moses, folder = script("moses"), tmp_path / "moses" / "data"
    folder.mkdir(parents=True)
    smiles = {split: [f"{'C' * n}O" for n in range(1, 9)] for split in moses.SHA256}
    smiles["test"] = ["CN", "CCN", "CCCN"]
    for split, molecules in smiles.items():
        content = "".join(f"{m}\n" for m in ["SMILES", *molecules]).encode()
        (folder / f"{split}.csv.gz").write_bytes(gzip.compress(content))
    (folder / "mcf.csv").write_text("names,smarts\n")
    sums = {split: sha256(moses._lines(molecules)) for split, molecules in smiles.items()}
    monkeypatch.setattr(moses, "SHA256", sums)
    monkeypatch.setattr(moses, "FILTERS", {"mcf.csv": sha256(b"names,smarts\n")})
    return moses, tmp_path / "moses"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_moses_from_a_folder_and_from_a_wheel(molsets, tmp_path):
    moses, folder = molsets
    options = ["--train", "4", "--valid", "2", "--test", "2"]
    assert moses.main(["--source", str(folder), "--out", str(tmp_path / "a"), *options]) == 0
    sizes = {p.name: len(p.read_text().splitlines()) for p in (tmp_path / "a").glob("*.txt")}
    assert sizes == {"train.txt": 4, "valid.txt": 2, "test.txt": 2}
    train, valid = (
        set((tmp_path / "a" / f"{s}.txt").read_text().split()) for s in ("train", "valid")
    )
    assert not train & valid
    reference = tmp_path / "a" / "reference"
    assert (reference / "train.txt").read_text().split() == [f"{'C' * n}O" for n in range(1, 9)]
    assert (reference / "mcf.csv").read_text() == "names,smarts\n"
    assert list(read_corpus(tmp_path / "a")) == ["train", "valid", "test"]
    with zipfile.ZipFile(tmp_path / "molsets.whl", "w") as wheel:
        for path in (folder / "data").iterdir():
            wheel.write(path, f"moses/dataset/data/{path.name}")
    wheel = str(tmp_path / "molsets.whl")
    assert moses.main(["--source", wheel, "--out", str(tmp_path / "b"), *options]) == 0
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_published_statistics_become_plain_arrays(molsets, tmp_path, monkeypatch):
    moses, folder = molsets
    bits = np.eye(3, 1024, dtype=np.uint8)
    found = {
        "SNN": {"fps": bits},
        "Frag": {"frag": Counter(CN=3)},
        "Scaf": {"scaf": Counter()},
        "FCD": {"mu": np.ones(2, np.float32), "sigma": np.eye(2)},
    }
    path = folder / "data" / "test_stats.npz"
    np.savez(path, stats=np.array(found, dtype=object))
    monkeypatch.setattr(moses, "STATISTICS", {"test": sha256(path.read_bytes())})
    renamed = {("numpy._core.multiarray", name) for _, name in moses.PLAIN}
    monkeypatch.setattr(moses, "PLAIN", moses.PLAIN | renamed)
    assert moses.main(["--source", str(folder), "--out", str(tmp_path / "a"), "--valid", "2"]) == 0
    reference = tmp_path / "a" / "reference"
    with np.load(reference / "test.stats.npz", allow_pickle=False) as arrays:
        assert str(arrays["content"]) == sha256((reference / "test.txt").read_bytes())
        unpacked = np.unpackbits(arrays["fingerprints"], axis=1, bitorder="little")
        assert (unpacked == bits).all()
        assert json.loads(arrays["fragments"].tobytes()) == {"CN": 3}
        assert arrays["mean"].tolist() == [1, 1]


DAMAGED = gzip.compress(bytes(range(200)))[:12] + b"damaged"


def test_statistics_with_anything_but_data_are_refused():
    moses = script("moses")
    for harmful in (print, os.system):
        with pytest.raises(pickle.UnpicklingError, match="is not plain data"):
            moses.PlainUnpickler(io.BytesIO(pickle.dumps(harmful))).load()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "train.csv.gz").unlink(), "neither train.csv nor train.csv.gz exists"),
        (lambda f: (f / "test.csv.gz").write_bytes(b"no"), "test.csv.gz is damaged"),
        (lambda f: (f / "test.csv.gz").write_bytes(DAMAGED), "test.csv.gz is damaged"),
        (lambda f: (f / "train.csv").write_text(""), "train is not the published file"),
        (lambda f: (f / "train.csv").write_text("x,SMILES\nC\n"), "train is not the published"),
        (lambda f: (f / "train.csv").write_text("SMILES\nC\n"), "train is not the published file"),
        (lambda f: (f / "mcf.csv").write_text("x"), "mcf.csv is not the published file"),
    ],
)
def test_moses_is_refused_unless_it_is_the_published_one(molsets, damage, said, tmp_path, capsys):
    moses, folder = molsets
    damage(folder / "data")
    assert moses.main(["--source", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_many_validation_molecules(molsets, tmp_path, capsys):
    moses, folder = molsets
    assert moses.main(["--source", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "--valid 10000: leaves no molecule for training" in capsys.readouterr().err


def test_the_tables_of_molecules(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("table", ROOT / "data" / "moses" / "table.py")
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    assert table.main([str(tmp_path)]) == 2
    assert "no folder metrics" in capsys.readouterr().err
    metrics = tmp_path / "skip" / "metrics"
    metrics.mkdir(parents=True)
    files = {
        "test": {"latent_dim": 8, "kl": 12.345, "rec": -3, "au": 7},
        "latent": {"exact": 0.7, "valid_between": None},
        "moses-prior": {"count": 10, "valid": 0.5, "FCD/Test": 0.25},
    }
    for name, content in files.items():
        (metrics / f"{name}.json").write_text(json.dumps(content))
    assert table.main([str(tmp_path / "skip")]) == 0
    said = capsys.readouterr().out
    assert "| VAE (MOSES) | – | – | 0.977 |" in said
    assert "| skip | N(0, I) | 10 | 0.500 | – | – | 0.250 |" in said
    assert "| skip | 12.35 | -3 | – | – | – | 7 | 0.700 | – | – | 0.500 | – | – | – |" in said
