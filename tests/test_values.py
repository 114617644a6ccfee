"""Values that a file may hold and Python cannot: one line, with the place."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from textvae.errors import UserError
from textvae.text.data.corpus import read_file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_that_is_nested_too_deeply(tmp_path, name, opening):
    path = tmp_path / name
    path.write_text('{"text": "a"}\n{"text": ' + opening * 100_000 + "\n")
    with pytest.raises(UserError, match="line 2: not JSON: nested too deeply"):
        read_file(path)


def test_json_numbers_that_are_too_long(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "n": ' + "9" * 10_000 + "}\n")
    with pytest.raises(UserError, match="line 1: not JSON"):
        read_file(path)


def written(tmp_path, **columns):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    return path


def bad_text(rows):
    """A column of strings, one of which is not UTF-8."""
    values = [b"a"] * rows
    values[-1] = b"caf\xe9"
    return pyarrow.Array.from_buffers(pyarrow.string(), rows, pyarrow.array(values).buffers())


def test_parquet_with_a_text_that_is_not_utf8(tmp_path):
    with pytest.raises(UserError, match=r"a\.parquet, row 1500: not UTF-8"):
        read_file(written(tmp_path, text=bad_text(1500)))
    assert len(read_file(written(tmp_path, text=["a"] * 3, other=bad_text(3)))) == 3  # not read


def test_parquet_with_a_date_after_the_year_9999(tmp_path):
    days = pyarrow.array([0, 10**8], pyarrow.int32()).cast(pyarrow.date32())
    path = written(tmp_path, text=["a", "b"], when=days)
    assert read_file(path)["text"][:] == ["a", "b"]
    with pytest.raises(UserError, match=r"a\.parquet, row 2: a value that cannot be read"):
        read_file(path, label_column="when")


def test_nested_parquet_columns(tmp_path):
    rows = [{"text": "a b", "n": 1}, {"text": "c", "n": 2}, None]
    path = written(tmp_path, body=rows, tokens=[["a", "b"], ["c"], []])
    read = read_file(path, text_column="body.text", label_column="body.n")
    assert (read["text"][:], read["label"][:]) == (["a b", "c"], ["1", "2"])
    assert read_file(path, text_column="tokens")["text"][:] == ["a b", "c"]
    with pytest.raises(UserError, match=r"no column 'body.none'; it has body, tok"):
        read_file(path, text_column="body.none")


def test_two_parquet_columns_of_the_same_name(tmp_path):
    table = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="2 columns are named 'text'"):
        read_file(tmp_path / "a.parquet")


def test_an_empty_json_array(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([]))
    with pytest.raises(UserError, match=r"a\.json: empty"):
        read_file(tmp_path / "a.json")
