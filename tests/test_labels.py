"""Labels: one class has one name, and -1, null and empty mean unlabeled everywhere."""

import datetime
import json
import logging
from decimal import Decimal

import datasets
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from textvae.errors import UserError
from textvae.images.drawings import checked
from textvae.text.data.corpus import encode_corpus, read_corpus, read_file
from textvae.text.data.labels import label_of
from textvae.text.tokenizers import WordTokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *((value, "1") for value in (1, 1.0, "1", "1.0", " 1 ", "1.00", Decimal("1.0"))),
        *((value, None) for value in (None, "", "  ", -1, -1.0, "-1", "-1.0", float("nan"))),
        *((value, None) for value in ("null", "NULL", "NaN", "nan", "<NA>", "N/A", "n/a")),
        *((value, value) for value in ("NA", "0.5", "-2", "v1.0", "None", "none", "Nan")),
        *((value, str(value)) for value in (0.5, True, 10**30, float("inf"))),
    ],
)
def test_the_name_of_a_class(value, name):
    assert label_of(value) == name


@pytest.mark.parametrize("value", [[1], {"a": 1}, datetime.date(2020, 1, 1), b"a"])
def test_what_is_not_a_class(value):
    with pytest.raises(ValueError, match=type(value).__name__):
        label_of(value)


RECORDS = [
    {"text": "a", "label": 1},
    {"text": "b", "label": None},
    {"text": "c"},
    {"text": "d", "label": "1.0"},
    {"text": "e", "label": -1},
    {"text": "f", "label": 2.0},
    {"text": "g", "label": ""},
]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)


def labels(path):
    split = encode_corpus({"train": read_file(path)}, WordTokenizer(["a"]))["train"]
    return split.label_names, None if split.labels is None else split.labels.tolist()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.json", json.dumps(RECORDS)),
        ("a.csv", "text,label\na,1\nb,\nc,\nd,1.0\ne,-1\nf,2\ng,\n"),
        ("a.txt", "1\ta\n\tb\n\tc\n1.0\td\n-1\te\n2\tf\n \tg\n"),
    ],
)
def test_unlabeled_examples_are_kept_and_counted(tmp_path, name, content, caplog):
    path = tmp_path / name
    path.write_text(content)
    with caplog.at_level(logging.INFO):
        assert labels(path) == (["1", "2"], [0, -1, -1, 0, -1, 1, -1])
    assert "7 documents, 4 without a label (-1, null, NaN, or empty)" in caplog.text


def test_parquet_with_nulls(tmp_path):
    table = {"text": ["a", "b", "c"], "label": [1.0, None, 2.0]}  # pandas makes integers floats
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    assert labels(tmp_path / "a.parquet") == (["1", "2"], [0, -1, 1])


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["neg", "neutral", "pos"], ["neg", "pos"]),  # a class is missing from a split
        (["neg", "pos"], ["neg", "neutral", "pos"]),
        (["neg", "pos"], ["pos", "neg"]),
        (["neg", "pos"], None),  # strings
        (None, ["neg", "pos"]),
    ],
)
def test_a_class_is_the_same_in_all_splits_whatever_its_number_in_each(tmp_path, train, test):
    tokenizer = WordTokenizer.train(["good bad fine"])
    by_text = {"good": "pos", "bad": "neg", "fine": "neutral"}
    splits = {}
    for name, names in (("train", train), ("validation", train), ("test", test)):
        texts = [text for text, label in by_text.items() if label in (names or ["neg", "pos"])]
        labels = [by_text[text] for text in texts]
        kind = datasets.ClassLabel(names=names) if names else datasets.Value("string")
        features = datasets.Features({"text": datasets.Value("string"), "label": kind})
        splits[name] = datasets.Dataset.from_dict({"text": texts, "label": labels}, features)
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "corpus"))
    corpus = read_corpus(tmp_path / "corpus", cache_dir=tmp_path)
    for split in encode_corpus(corpus, tokenizer, cache_dir=tmp_path).values():
        for row in range(len(split)):
            assert split.label_names[split.labels[row]] == by_text[split.caption(row)]


def test_labels_of_thousands_of_digits_are_names(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a", "label": "1" * 5000}) + "\n")
    assert labels(tmp_path / "a.jsonl") == (["1" * 5000], [0])


def test_a_corpus_without_any_label_has_none(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,-1\nb,\n")
    assert labels(tmp_path / "a.csv") == (None, None)
    assert read_file(tmp_path / "a.csv").column_names == ["text"]


def test_a_thousand_examples_without_a_label_have_none(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": null}\n' * 1500)
    assert labels(tmp_path / "a.jsonl") == (None, None)


def test_a_text_of_spaces_is_blank(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": " \\t "}\n{"text": "a"}\n')
    assert read_file(tmp_path / "a.jsonl")["text"][:] == ["a"]


def test_a_later_label_counts(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b", "label": "x"}\n')
    assert labels(tmp_path / "a.jsonl") == (["x"], [-1, 0])


def test_a_label_column_that_holds_no_labels_stops_nobody_who_does_not_ask_for_it(tmp_path):
    for i, bad in enumerate(([1, 2], {"a": 1})):
        path = tmp_path / f"{i}.jsonl"
        path.write_text(json.dumps({"text": "a", "label": bad}) + "\n")
        assert labels(path) == (None, None)
        with pytest.raises(UserError, match=r"line 1: label 'label' is of type .*labels false"):
            read_file(path, label_column="label")
        assert len(read_file(path, labels=False)) == 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pyarrow.array([datetime.date(2020, 1, 1)]), "date"),
        (pyarrow.array([datetime.timedelta(1)]), "timedelta"),
        (pyarrow.array([{"a": 1}]), "dict"),
        (pyarrow.array([[1]]), "list"),
        (pyarrow.array([b"\xff"]), "bytes"),
    ],
)
def test_parquet_columns_that_are_no_labels(tmp_path, values, kind):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["a"], "label": values}), path)
    assert labels(path) == (None, None)
    with pytest.raises(UserError, match=f"line 1: label 'label' is of type {kind}, not a string"):
        read_file(path, label_column="label")


def test_splits_may_be_labeled_differently(tmp_path):
    (tmp_path / "train.txt").write_text("x\ta\ny\tb\n")
    (tmp_path / "valid.csv").write_text("text,label\na,y\nb,\n")
    (tmp_path / "test.txt").write_text("a\n")
    splits = encode_corpus(read_corpus(tmp_path), WordTokenizer(["a"]))
    assert splits["train"].labels.tolist() == [0, 1]
    assert splits["valid"].labels.tolist() == [1, -1]
    assert splits["test"].labels is None


def test_unlabeled_images(tmp_path):
    images = np.zeros((3, 2, 2), np.uint8)
    drawings = checked(images, np.array([1, -1, 0]), tmp_path)
    assert (drawings.labels.tolist(), drawings.label_names) == ([1, -1, 0], ["0", "1"])
    assert checked(images, np.array([-1, -1, -1]), tmp_path).labels is None
    with pytest.raises(UserError, match="labels from -2 to 1 are invalid"):
        checked(images, np.array([1, -2, 0]), tmp_path)


def test_a_value_that_python_cannot_represent_in_a_label_column_that_was_only_detected(tmp_path):
    late = pyarrow.array([0, 2**62], pyarrow.timestamp("us"))
    table = pyarrow.table({"text": ["a", "b"], "label": late})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert labels(tmp_path / "a.parquet") == (None, None)
    with pytest.raises(UserError, match=r"row 2: a value that cannot be read .* column 'label'"):
        read_file(tmp_path / "a.parquet", label_column="label")


def test_the_log_says_if_no_example_has_a_label(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("text,label\na,-1\nb,N/A\n")
    with caplog.at_level(logging.INFO):
        read_file(tmp_path / "a.csv")
    assert "2 documents, none has a label; first: 'a'" in caplog.text
