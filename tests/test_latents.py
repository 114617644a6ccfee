"""Latent vectors in files: written, read back, and refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from textvae.errors import UserError
from textvae.runs.latents import (
    Extent,
    check_size,
    latents_file,
    read_labels,
    read_latents,
    read_weights,
)

TEXTS = ["a cat", "ein Bär\tund “mehr”", "x"]


def write_latents(path, columns, texts, labels=(), weights=None):
    rows = {"text": texts, "label": labels or [None] * len(texts)}
    with latents_file(path, Extent().with_part(rows), weights) as file:
        file.add(columns, rows)


@pytest.fixture
def q() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((3, 4), np.float32) for name in ("mean", "logvar")}


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_what_is_written_is_read(ending, q, tmp_path):
    path = tmp_path / f"latents{ending}"
    write_latents(path, q, TEXTS)
    assert np.array_equal(read_latents(path), q["mean"]) and read_weights(path) is None
    write_latents(path, q | {"weights": q["mean"]}, TEXTS)  # a column of that name is another thing
    assert read_weights(path) is None
    write_latents(path, q, TEXTS, weights="ab12")
    assert np.array_equal(read_latents(path), q["mean"]) and read_weights(path) == "ab12"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_npz_is_plain_numpy(q, tmp_path):
    write_latents(tmp_path / "l.npz", q, TEXTS)
    with np.load(tmp_path / "l.npz", allow_pickle=False) as arrays:
        assert arrays["text"].tolist() == TEXTS
        assert np.array_equal(arrays["logvar"], q["logvar"])


def test_parquet_is_a_plain_table(q, tmp_path):
    import pyarrow.parquet

    write_latents(tmp_path / "l.parquet", q, TEXTS)
    table = pyarrow.parquet.read_table(tmp_path / "l.parquet").to_pydict()
    assert table["text"] == TEXTS
    assert np.allclose(table["logvar"], q["logvar"])


def test_a_parquet_file_from_another_program(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "l.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"mean": [[1, 2], [3, 4]]}), path)
    assert read_latents(path).tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("labels", [(), ("a", None, "bcd"), (None, None, None)])
@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_parts_make_the_same_file(ending, labels, q, tmp_path):
    whole, parts = tmp_path / f"whole{ending}", tmp_path / f"parts{ending}"
    write_latents(whole, q, TEXTS, labels)
    extent, slices = Extent(), (slice(0, 2), slice(2, 3))
    for some in slices:
        extent = extent.with_part({"text": TEXTS[some], "label": labels[some] or [None]})
    with latents_file(parts, extent) as file:
        for some in slices:
            texts = {"text": TEXTS[some], "label": labels[some] or [None]}
            file.add({name: a[some] for name, a in q.items()}, texts)
    assert read(parts) == read(whole)
    assert ("label" in read(parts)) == ("a" in labels)
    assert {file.name for file in tmp_path.iterdir()} == {whole.name, parts.name}


def read(path):
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: array.tolist() for name, array in arrays.items()}
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pydict()


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_a_file_that_is_not_finished_never_appears(ending, q, tmp_path):
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        latents_file(tmp_path / f"l{ending}", Extent().with_part({"text": TEXTS})) as file,
    ):
        file.add(q, {"text": TEXTS})
        raise RuntimeError("out of memory")
    assert not list(tmp_path.iterdir())


def test_the_parts_that_a_killed_process_left_are_removed(q, tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    left = tmp_path / f".l.npz.{int(process.stdout)}.abc.tmp"
    left.touch()
    (parts := tmp_path / f"{left.name}.parts").mkdir()
    (parts / "mean.npy").touch()
    write_latents(tmp_path / "l.npz", q, TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == ["l.npz"]


def test_an_unknown_extension_is_refused_before_anything_is_written(q, tmp_path):
    with pytest.raises(UserError, match=r"latent vectors are written as \.npz or \.parquet"):
        write_latents(tmp_path / "l.txt", q, TEXTS)
    assert not list(tmp_path.iterdir())


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def objects(path: Path) -> Path:
    return save(path, mean=np.array([{}, {}], dtype=object))


def npy(path: Path) -> Path:
    with path.open("wb") as file:
        np.save(file, np.zeros((2, 2)))
    return path


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda path: path, "none.npz", "does not exist"),
        (lambda path: path.write_text("a b"), "l.txt", "are read from .npz or .parquet"),
        (lambda path: path.write_text("a b"), "l.npz", "holds no latent vectors"),
        (lambda path: path.write_text(""), "l.npz", "holds no latent vectors"),
        (lambda path: path.write_text("a b"), "l.parquet", "holds no latent vectors"),
        (lambda path: save(path, z=np.zeros((2, 2))), "l.npz", "holds no latent vectors"),
        (lambda path: save(path, mean=np.array(["a"])), "l.npz", "holds no latent vectors"),
        (objects, "l.npz", "holds no latent vectors"),
        (npy, "l.npz", "holds no latent vectors"),
        (
            lambda path: save(path, mean=np.zeros(3)),
            "l.npz",
            r"mean has shape \(3,\), not \(N, Z\)",
        ),
        (lambda path: save(path, mean=np.zeros((0, 3))), "l.npz", "mean is empty"),
        (lambda path: save(path, mean=np.full((2, 2), np.nan)), "l.npz", "not finite"),
        (lambda path: save(path, mean=np.full((2, 2), 1e300)), "l.npz", "or too large"),
        (lambda path: save(path, mean=np.zeros((2, 2), complex)), "l.npz", "holds complex128"),
        (lambda path: save(path, mean=np.zeros((2, 2), bool)), "l.npz", "holds bool"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_files_without_latents(make, name, message, tmp_path):
    make(tmp_path / name)
    with pytest.raises(UserError, match=message) as raised:
        read_latents(tmp_path / name)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_damaged_files_are_one_line(ending, q, tmp_path):
    path, rng = tmp_path / f"l{ending}", np.random.default_rng(0)
    write_latents(path, q, TEXTS)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(1, len(damaged))] if refused % 3 == 0 else damaged)
        try:
            read_latents(path)
        except UserError as error:
            refused += len(str(error).splitlines())
    assert 50 < refused <= 200


def test_texts_too_long_for_npz_are_refused():
    texts = ["a"] * 4000 + ["x" * 300_000]
    with pytest.raises(UserError, match=r"300,000 characters among 4,001.* a \.parquet file"):
        check_size(Path("l.npz"), Extent().with_part({"text": texts}))
    check_size(Path("l.parquet"), Extent().with_part({"text": texts}))
    check_size(Path("l.npz"), Extent().with_part({"text": texts[:4000]}))
    check_size(Path("l.npz"), Extent(2**14, {"text": 2**14}))  # of four bytes a character, 1 GiB
    with pytest.raises(UserError, match=r"would need 1\.0 GiB"):
        check_size(Path("l.npz"), Extent(2**14 + 1, {"text": 2**14}))


def test_a_missing_folder_is_created_or_refused(q, tmp_path):
    write_latents(tmp_path / "new" / "l.npz", q, TEXTS)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_latents(tmp_path / "file" / "l.npz", q, TEXTS)


def test_zero_is_a_label_and_nothing_is_none(tmp_path):
    mean = np.zeros((3, 2), np.float32)
    for labels, names in (
        (np.array([0, 1, 0]), ["0", "1", "0"]),
        (np.array([0, 0, 0]), ["0", "0", "0"]),
        (np.array(["a", "", "b"]), ["a", None, "b"]),
        (np.array([0.0, np.nan, 1.0]), ["0.0", None, "1.0"]),
        (np.array(["", "", ""]), None),
    ):
        np.savez(tmp_path / "l.npz", mean=mean, label=labels)
        assert read_labels(tmp_path / "l.npz", 3) == names
    for count in (2, 4):
        with pytest.raises(UserError, match=f"3 labels for {count} latent vectors"):
            read_labels(tmp_path / "l.npz", count)
