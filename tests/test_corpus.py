"""Corpora: every format, every kind of bad input with its line, the cache, long documents."""

import csv
import gzip
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest

from textvae.errors import UserError
from textvae.text.data import chunks, sources
from textvae.text.data.corpus import encode_corpus, read_corpus, read_file, texts, write_split
from textvae.text.data.tokenizer import learned_tokenizer
from textvae.text.tokenizers import (
    CharTokenizer,
    SentencePieceTokenizer,
    SmilesTokenizer,
    WordTokenizer,
)
from textvae.vae.held_out import held_out

ROOT = Path(__file__).parent.parent
REAL = Path(os.environ.get("TEXTVAE_TEST_DATA", "absent"))
DOCUMENTS = ["a b c", "b c", "c c c d"]
RECORDS = [{"text": t, "label": x} for t, x in zip(DOCUMENTS, ["y", "x", "y"], strict=True)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


def fill(folder: Path, ending: str, train: bytes | str, valid: bytes | str | None = None) -> Path:
    for split, content in (("train", train), ("valid", train if valid is None else valid)):
        content = content.encode() if isinstance(content, str) else content
        (folder / f"{split}.{ending}").write_bytes(content)
    return folder


def lines(records) -> str:
    return "".join(json.dumps(r) + "\n" for r in records)


def rows(dataset) -> list[tuple]:
    return [(r["text"], r.get("label")) for r in dataset]


# --- what is accepted


@pytest.mark.parametrize("name", ["train.txt", "ptb.train.txt", "my_train.text", "TRAIN.txt"])
@pytest.mark.parametrize("held", ["valid", "val", "validation", "dev"])
def test_split_names(folder, name, held):
    (folder / name).write_text("a\nb\n")
    (folder / name.lower().replace("train", held)).write_text("c\n")
    (folder / "README.md").write_text("not a split")
    corpus = read_corpus(folder)
    assert list(corpus) == ["train", "valid"]
    assert list(texts(corpus["train"])) == ["a", "b"]
    assert corpus["valid"]["text"][:] == ["c"]


def test_lines_are_stripped_and_blank_ones_skipped_and_counted(folder, caplog):
    fill(folder, "txt", "\ufeff a b \r\n\n \t \nc\u2028d\x85e\n")
    with caplog.at_level(logging.INFO):
        corpus = read_corpus(folder)
    assert corpus["train"]["text"][:] == ["a b", "c\u2028d\x85e"]
    assert "train.txt: 2 documents, 2 blank skipped" in caplog.text


FORMS = {
    "jsonl": lines(RECORDS),
    "json": json.dumps(RECORDS, indent=2),
    "csv": "label,text\ny,a b c\nx,b c\ny,c c c d\n",
    "tsv": "text\tlabel\na b c\ty\nb c\tx\nc c c d\ty\n",
    "txt": "y\ta b c\nx\tb c\n\ny\tc c c d\n",
}


@pytest.mark.parametrize("ending", FORMS)
@pytest.mark.parametrize("zipped", [False, True])
def test_the_same_corpus_in_every_format(folder, ending, zipped):
    content = FORMS[ending].encode()
    if zipped:
        fill(folder, f"{ending}.gz", gzip.compress(content))
    else:
        fill(folder, ending, content)
    corpus = read_corpus(folder)
    assert rows(corpus["train"]) == list(zip(DOCUMENTS, ["y", "x", "y"], strict=True))


def test_parquet_and_its_shards(folder):
    for i in (0, 1):
        part = datasets.Dataset.from_list(RECORDS[2 * i : 2 * i + 2])
        part.to_parquet(folder / f"train-0000{i}-of-00002.parquet")
    datasets.Dataset.from_list(RECORDS).to_parquet(folder / "valid.parquet")
    corpus = read_corpus(folder)
    assert rows(corpus["train"]) == rows(corpus["valid"]) == rows(RECORDS)


def test_all_formats_have_one_content_hash(folder, tmp_path):
    hashes = set()
    for ending, content in FORMS.items():
        place = tmp_path / ending
        place.mkdir()
        corpus = read_corpus(fill(place, ending, content))
        hashes.add(encode_corpus(corpus, CharTokenizer.train(DOCUMENTS))["train"].content_hash)
    assert len(hashes) == 1


def test_texts_and_labels_are_not_confused_with_others(tmp_path):
    rows, hashes = [("a", "bc"), ("ab", "c"), ("ab", "d")], set()
    for i, (label, text) in enumerate(rows):
        (tmp_path / f"{i}.txt").write_text(f"{label}\t{text}\n")
        read = read_file(tmp_path / f"{i}.txt")
        assert (read["label"][0], read["text"][0]) == (label, text)
        hashes.add(encode_corpus({"train": read}, WordTokenizer(["a"]))["train"].content_hash)
    (tmp_path / "3.txt").write_text("e\tc\n")
    same = read_file(tmp_path / "3.txt")  # as the text of the second, with another label
    hashes.add(encode_corpus({"train": same}, WordTokenizer(["a"]))["train"].content_hash)
    assert len(hashes) == 4


def test_torchtext_csv_without_header(folder):
    with open(folder / "train.csv", "w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(
            [["5", "why?", "so, tell", 'he said "x"\nthen'], ["10", "when", "", "now"]]
        )
    (folder / "valid.csv").write_bytes((folder / "train.csv").read_bytes())
    expected = [('why? so, tell he said "x"\nthen', "5"), ("when now", "10")]
    assert rows(read_corpus(folder)["train"]) == expected
    one = read_corpus(folder, text_column="best_answer")["train"]
    assert one["text"][:] == ['he said "x"\nthen', "now"]
    split = encode_corpus(read_corpus(folder), CharTokenizer.train(["a"]))["train"]
    assert split.label_names == ["5", "10"]  # by number, not by spelling


def test_columns_are_joined_and_named(folder):
    fill(folder, "jsonl", lines([{"q": "a", "x": None, "a": "b", "kind": 3, "id": 1}]))
    corpus = read_corpus(folder, text_column="q, x,a", label_column="kind")
    assert rows(corpus["train"]) == [("a b", "3")]


def test_quotes_in_tsv_mean_nothing(folder):
    fill(folder, "tsv", 'text\tlabel\n"a\t1\nb" c\t2\n')
    assert rows(read_corpus(folder)["train"]) == [('"a', "1"), ('b" c', "2")]


def test_format_overrides_the_extension_of_the_file(folder):
    fill(folder, "txt", "y\ta\nx\tb\n")
    assert rows(read_corpus(folder, format="lines")["train"]) == [("y\ta", None), ("x\tb", None)]
    (folder / "notes.dat").write_text("a b\t c\n")
    named = read_corpus(folder, train="notes.dat", format="label-tab-text")
    assert rows(named["train"]) == [("c", "a b")]


def test_a_single_file_is_split_90_5_5(tmp_path, caplog):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {i}\n" for i in range(200)))
    with caplog.at_level(logging.INFO):
        first, again = read_corpus(path), read_corpus(path)
    assert {split: len(d) for split, d in first.items()} == {"train": 180, "valid": 10, "test": 10}
    assert "drawn from train: train 180, valid 10, test 10" in caplog.text
    everything = [t for d in first.values() for t in d["text"]]
    assert len(set(everything)) == 200
    assert (
        first["valid"]["text"][:] == again["valid"]["text"][:] != [f"line {i}" for i in range(10)]
    )
    assert first["train"]._fingerprint == again["train"]._fingerprint


def test_a_missing_valid_is_drawn_and_a_given_test_kept(folder):
    (folder / "train.txt").write_text("".join(f"{i}\n" for i in range(40)))
    (folder / "test.txt").write_text("t\n")
    corpus = read_corpus(folder)
    assert [(s, len(d)) for s, d in corpus.items()] == [("train", 38), ("valid", 2), ("test", 1)]


def test_a_dataset_on_the_hub(monkeypatch, caplog):
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    part = datasets.Dataset.from_dict(
        {"sentence": ["good", "", "bad"], "label": [1, 1, 0]}, features=features
    )
    hub = datasets.DatasetDict({"train": part, "validation": part, "unsupervised": part})
    caplog.set_level("INFO")
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: hub)
    corpus = read_corpus("owner/name:config", text_column="sentence")
    assert list(corpus) == ["train", "valid"]
    assert "owner/name:config: splits that are not used: unsupervised" in caplog.text
    assert rows(corpus["train"]) == [("good", 1), ("bad", 0)]
    split = encode_corpus(corpus, CharTokenizer.train(["a"]))["train"]
    assert split.label_names == ["neg", "pos"]
    assert split.labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="no split 'dev'; it has train, validation, unsup"):
        read_corpus("owner/name", text_column="sentence", valid="dev")
    with pytest.raises(
        UserError, match=r"no column 'text'; set --data.text_column to one of sentence"
    ):
        read_corpus("owner/name")


# --- what is refused


BAD = [
    ("txt", "", r"train\.txt: empty"),
    ("txt", "\n \n\t\n", "only 3 blank lines"),
    ("txt", b"a\nb\0c\n", "line 2: contains a NUL byte"),
    ("txt", "a\n".encode("utf-16"), "line 1: contains a NUL byte"),
    ("txt", b"a\n\ncaf\xe9 b\n", r"line 3: not UTF-8 \(byte 0xe9 at 3\)"),
    ("txt", "1\ta\n0\tb\nno label\n1\tc\n", "line 3: not `label<TAB>text`"),
    ("txt", "1\ta\n" * 1500 + "no label\n", "line 1501: no label"),
    ("txt.gz", b"not gzip", "damaged gzip"),
    ("jsonl", '{"text": "a"}\n{"text": \n', "line 2: not JSON"),
    ("jsonl", '{"text": "a"}\n\n["a"]\n', "line 3: expected a JSON object"),
    ("jsonl", '{"text": "a"}\n{"body": "b"}\n', "line 2: no 'text' here; it has body"),
    ("jsonl", '{"text": "a"}\n{"text": 7}\n', "line 2: 'text' is of type int, not a string"),
    ("jsonl", '{"a": "x", "b": "y"}\n', "no column 'text'; set --data.text_column to one of a, b"),
    ("jsonl", '{"text": "a"}\n{"text": "\\ud800"}\n', "line 2: a lone surrogate"),
    ("json", '[{"text": "a"},\n {"text": }]', "line 2: not JSON"),
    ("json", '\n[{"text": "a"},\n\n\n {"text": }]', "line 5: not JSON"),
    ("csv", "id,body\n1,a\n", "no column 'text'; set --data.text_column to one of id, body"),
    ("csv", "label,text\n1,a\n2\n", "line 3: 1 columns, expected 2"),
    ("csv", 'label,text\n1,"a\nb\n', "line 2: not csv"),
    ("parquet", b"PAR1 but no more", "not a readable parquet file"),
]


@pytest.mark.parametrize(("ending", "content", "message"), BAD)
def test_bad_input_is_named_with_its_line(folder, ending, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read_corpus(fill(folder, ending, content))
    assert str(folder / f"train.{ending}") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_column(folder):
    fill(folder, "csv", "id,text\n1x,a\n")
    with pytest.raises(UserError, match=r"no column 'body'; it has id, text"):
        read_corpus(folder, text_column="body")
    with pytest.raises(UserError, match=r"no column 'topic'; it has id, text$"):
        read_corpus(folder, label_column="topic")
    with pytest.raises(UserError, match=r"no column 'texts'; it has id, text; did you mean text"):
        read_corpus(folder, text_column="texts")


@pytest.mark.parametrize("content", ["a b\nc d\n", "x\ta b\ny\tc d\n"])
@pytest.mark.parametrize("option", ["text_column", "label_column"])
def test_columns_of_lines_without_any(folder, content, option):
    with pytest.raises(UserError, match=r"train\.txt: no column 'label': it was read as l.*, and"):
        read_corpus(fill(folder, "txt", content), **{option: "label"})


def test_a_corpus_with_a_validation_split_keeps_all_of_its_training_texts(folder, caplog):
    caplog.set_level(logging.INFO, "textvae")
    for split in ("train", "valid"):
        (folder / f"{split}.txt").write_text("a\n" * 40)
    assert {split: len(part) for split, part in read_corpus(folder).items()} == {
        "train": 40,
        "valid": 40,
    }
    assert "no test split: evaluate the model on valid, or on a file with --data" in caplog.text


def test_missing_or_ambiguous_files(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for place in (folder / "no", "./no.txt", "no", "~/no/where", f"{folder.name}/no"):
        with pytest.raises(UserError, match="no such file or folder"):
            read_corpus(place)
    with pytest.raises(UserError, match="no training file"):
        read_corpus(folder)
    (folder / "train.txt").write_text("a\n")
    with pytest.raises(UserError, match="1 document, too few to hold out valid and test"):
        read_corpus(folder)
    with pytest.raises(UserError, match=r"nope\.txt: no such file \(test=nope\.txt\)"):
        read_corpus(folder, test="nope.txt")
    (folder / "train.jsonl").write_text('{"text": "b"}\n')
    with pytest.raises(UserError, match=r"train\.jsonl and train\.txt could both be train"):
        read_corpus(folder)
    (folder / "valid.txt").write_text("v\n")
    assert read_corpus(folder, train="train.jsonl")["train"]["text"][:] == ["b"]
    with pytest.raises(UserError, match="format 'xml': must be auto or one of lines"):
        read_corpus(folder, format="xml")
    (folder / "notes.dat").write_text("a\n")
    with pytest.raises(UserError, match="unknown extension"):
        read_corpus(folder / "notes.dat")


def test_an_unreachable_hub_is_explained(monkeypatch):
    def offline(name, config):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(UserError, match=r"owner/name: no such file or folder, .*Offline\?"):
        read_corpus("owner/name")


def test_a_cache_that_cannot_be_created(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cache folder .*file.*set --data.cache_dir"):
        read_corpus(fill(folder, "txt", "a\n"), cache_dir=tmp_path / "file")


# --- ids on disk


def test_an_encoded_split_by_hand(folder):
    fill(folder, "txt", "b\tthe cat\na\tthe dög sat\nb\tcat\n", valid="c\tdog\n")
    tokenizer = WordTokenizer(["the", "cat", "sat"])
    splits = encode_corpus(read_corpus(folder), tokenizer)
    split = splits["train"]
    assert [split.ids(i).tolist() for i in range(len(split))] == [[4, 5], [4, 1, 6], [5]]
    assert split.lengths.tolist() == split.units.tolist() == [3, 4, 2]
    assert split.num_bytes.tolist() == [7, 12, 3]
    assert split.label_names == splits["valid"].label_names == ["a", "b", "c"]
    assert split.labels.tolist() == [1, 0, 1]
    assert splits["valid"].labels.tolist() == [2]
    assert split.caption(1) == "the dög sat"
    assert split.ids(1).dtype == split.lengths.dtype == split.units.dtype == np.int32
    assert (split.truncated, split.dropped) == (0, 0)
    with pytest.raises(ValueError, match="read-only"):
        split.ids(0)[0] = 7


def test_units_count_words_for_every_tokenizer(folder):
    corpus = read_corpus(fill(folder, "txt", "It isn't so.\nyes , it is\n"))
    for tokenizer in (
        CharTokenizer.train(["abc"]),
        WordTokenizer(["it"]),
        SentencePieceTokenizer.train(["it is so"], 280),
    ):
        assert encode_corpus(corpus, tokenizer)["train"].units.tolist() == [4, 5]
        raw = encode_corpus(corpus, tokenizer, tokenized=False)["train"]
        assert raw.units.tolist() == [6, 5]
        assert raw.num_bytes.tolist() == [12, 11]


@pytest.mark.parametrize("long", ["truncate", "drop"])
def test_long_documents_are_cut_or_dropped_with_a_message(folder, long, caplog):
    fill(folder, "txt", "x\ta b\ny\ta b c d\nz\tb\n", valid="x\ta\n")
    tokenizer = WordTokenizer(["a", "b", "c", "d"])
    for _ in range(2):  # the second time from the cache, but with the same message
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            split = encode_corpus(read_corpus(folder), tokenizer, max_length=3, long=long)["train"]
        verb = "truncated" if long == "truncate" else "dropped"
        assert f"train: 1 of 3 documents exceed max_length=3: {verb}" in caplog.text
    ids = [split.ids(i).tolist() for i in range(len(split))]
    if long == "truncate":
        assert ids == [[4, 5], [4, 5], [5]]
        assert split.units.tolist() == split.lengths.tolist() == [3, 3, 2]
        assert split.num_bytes.tolist() == [3, 3, 1]
        assert (split.truncated, split.dropped) == (1, 0)
    else:
        assert ids == [[4, 5], [5]]
        assert split.labels.tolist() == [0, 2]
        assert split.caption(1) == "b"
        assert (split.truncated, split.dropped) == (0, 1)


def test_a_document_that_fills_the_maximum_without_its_end_is_cut():
    encoding = chunks.Encoding(WordTokenizer(["a", "b", "c"]), True, 3, "truncate", None)
    assert chunks.encode_document("a b c", encoding) == ([4, 5], 3, 3, True)
    assert chunks.encode_document("a b", encoding) == ([4, 5], 3, 3, False)


def test_rows_after_the_first_thousand(folder):
    labels = ["x"] * 1004 + ["y"]
    texts = [f"t{i} b b" if i == 1002 else f"t{i}" for i in range(1005)]  # one is too long
    lines = "".join(f"{label}\t{text}\n" for label, text in zip(labels, texts, strict=True))
    fill(folder, "txt", lines, valid="x\tb\n")
    tokenizer = WordTokenizer(["b"])
    split = encode_corpus(read_corpus(folder), tokenizer, max_length=3, long="drop")["train"]
    assert (len(split), split.dropped) == (1004, 1)
    assert [split.source_row(i) for i in (0, 1001, 1002, 1003)] == [0, 1001, 1003, 1004]
    assert split.caption(1003) == "t1004" and split.labels[-2:].tolist() == [0, 1]


UNKNOWN = "incomprehensibilities"


@pytest.mark.parametrize(
    ("tokenizer", "text", "kept"),
    [
        (WordTokenizer(["b", "c"]), f"{UNKNOWN} b c c", f"{UNKNOWN} b"),
        (WordTokenizer(["b", "c"], tokenized=False), f"{UNKNOWN}, b c", f"{UNKNOWN},"),
        (WordTokenizer(["b", "c"]), "b c c", "b c"),
        (CharTokenizer(["b", "c"], byte_fallback=False), "\u00e9bc", "\u00e9b"),
        (SmilesTokenizer(["C"]), "[nH]CC", "[nH]C"),
    ],
)
def test_the_bytes_of_a_cut_document_are_those_of_its_text(folder, tokenizer, text, kept):
    fill(folder, "txt", f"{text}\n", valid="a\n")
    split = encode_corpus(read_corpus(folder), tokenizer, max_length=3)["train"]
    assert split.num_bytes.tolist() == [len(kept.encode())]


def test_encoding_options_out_of_range(folder):
    corpus, tokenizer = read_corpus(fill(folder, "txt", "a b c\n")), WordTokenizer(["a"])
    with pytest.raises(UserError, match="long='cut': choose truncate or drop"):
        encode_corpus(corpus, tokenizer, long="cut")
    with pytest.raises(UserError, match="max_length=1"):
        encode_corpus(corpus, tokenizer, max_length=1)
    with pytest.raises(UserError, match="train: max_length=2 drops every document"):
        encode_corpus(corpus, tokenizer, max_length=2, long="drop")


def counting(monkeypatch, module, name):
    calls, real = [], getattr(module, name)

    def counted(*arguments, **options):
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_a_second_start_reads_nothing_and_encodes_nothing(folder, monkeypatch):
    reads = counting(monkeypatch, sources, "read_rows")
    encodings = counting(monkeypatch, chunks, "_encode_chunk")

    def start(tokenizer=None, **options):
        reads.clear(), encodings.clear()
        encode_corpus(read_corpus(folder), tokenizer or WordTokenizer(["a"]), **options)
        return len(reads), len(encodings)

    fill(folder, "txt", "a b\n", valid="c\n")
    assert start() == (2, 2)
    assert start() == (0, 0)
    assert start(WordTokenizer(["b"])) == (0, 2)
    assert start(max_length=5) == (0, 2)
    assert start(tokenized=False) == (0, 2)
    os.utime(folder / "train.txt", ns=(1, 1))  # touched: read again, the content is known
    assert start() == (1, 0)
    (folder / "train.txt").write_text("a c\n")
    assert start() == (1, 1)


def test_a_damaged_cache_is_rebuilt(folder, cache):
    fill(folder, "txt", "a b\nb\n")
    tokenizer = WordTokenizer(["a", "b"])
    encode_corpus(read_corpus(folder), tokenizer)
    for path in [*cache.rglob("ids.bin"), *cache.rglob("*.arrow"), *cache.rglob("*.json")]:
        path.write_bytes(b"")
    split = encode_corpus(read_corpus(folder), tokenizer)["train"]
    assert [split.ids(i).tolist() for i in range(2)] == [[4, 5], [5]]
    assert not list(cache.rglob("*.tmp"))


def test_a_failed_encoding_leaves_nothing_behind(folder, cache):
    class Broken(WordTokenizer):
        def encode(self, text):
            raise RuntimeError("interrupted")

    corpus = read_corpus(fill(folder, "txt", "a\n"))
    with pytest.raises(RuntimeError, match="interrupted"):
        encode_corpus(corpus, Broken(["a"]))
    assert [p.name for p in (cache / "encoded").iterdir() if p.suffix != ".lock"] == []


PROCESS = """
import sys, time
from textvae.text.data.corpus import encode_corpus, read_corpus
from textvae.text.tokenizers import CharTokenizer
start, folder = float(sys.argv[1]), sys.argv[2]
import datasets, filelock
time.sleep(max(0, start - time.time()))
split = encode_corpus(read_corpus(folder), CharTokenizer(["a"]))["train"]
print(len(split), int(split.values.sum()), split.content_hash)
"""


def test_two_processes_at_once_agree(folder, cache):
    fill(folder, "txt", "".join(f"aaa {i}\n" for i in range(20_000)))
    start = str(time.time() + 4)
    command = [sys.executable, "-c", PROCESS, start, str(folder)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    assert said[0].startswith("20000 ")
    assert not list(cache.rglob("*.tmp"))


@pytest.mark.parametrize(("valid", "share"), [("x y", 100), ("a b c x", 25), ("a " * 19 + "x", 0)])
def test_a_split_that_is_unknown_is_announced(folder, valid, share, caplog):
    fill(folder, "txt", "a b c\n", valid=f"{valid}\n")
    encode_corpus(read_corpus(folder), WordTokenizer(["a", "b", "c"]))
    found = [record.getMessage() for record in caplog.records if "<unk>" in record.getMessage()]
    assert [message.partition(" of the")[0] for message in found] == (
        [f"valid: {share}%"] if share else []
    )


@pytest.mark.parametrize(
    "rows",
    [
        [("a cat", "x"), ("a\tdog", None), ("a bird", "y")],
        [("a cat", None), ("a dog", None)],
    ],
)
def test_what_is_written_is_read_back(rows, tmp_path):
    assert write_split(tmp_path / "train.txt", rows) == len(rows)
    found = read_file(tmp_path / "train.txt")
    labels = found["label"][:] if "label" in found.column_names else [None] * len(rows)
    expected = [(" ".join(text.split()), label) for text, label in rows]
    assert list(zip(found["text"][:], labels, strict=True)) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "Society & Culture")], "the label 'Society & Culture' has a space"),
        ([("a", None), ("b", "x")], "the label 'x' comes after a text without"),
    ],
)
def test_labels_that_could_not_be_read_back_are_refused(rows, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_split(tmp_path / "train.txt", rows)
    assert not list(tmp_path.iterdir())


def test_importing_the_corpus_is_quick():
    slow = ("datasets", "nltk", "sentencepiece", "pyarrow")
    code = f"import sys, textvae.text.data.corpus; print([m for m in {slow} if m in sys.modules])"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"


def test_the_real_corpora_have_their_published_counts():
    for name, counts in (("ptb", [42_068, 3_370, 3_761]), ("yahoo", [8_000, 1_000, 1_000])):
        if not (REAL / name).is_dir():
            pytest.skip(f"no {REAL / name}: set TEXTVAE_TEST_DATA to a folder that has {name}/")
        corpus = read_corpus(REAL / name)
        assert [len(d) for d in corpus.values()] == counts
    split = encode_corpus(corpus, WordTokenizer.train(texts(corpus["train"]), max_size=20_000))
    assert split["test"].units.mean() == pytest.approx(80.113)


def test_another_policy_or_other_labels_are_not_taken_from_the_cache(folder):
    tokenizer = WordTokenizer.train(DOCUMENTS)
    corpus = read_corpus(fill(folder, "txt", "b\ta b c\nc\tb c\n", valid="c\tb\n"))
    lengths = {
        long: len(encode_corpus(corpus, tokenizer, max_length=3, long=long)["train"])
        for long in ("truncate", "drop")
    }
    assert lengths == {"truncate": 2, "drop": 1}
    assert encode_corpus(corpus, tokenizer)["train"].labels.tolist() == [0, 1]
    (folder / "valid.txt").write_text("a\tb\n")  # one more label, which comes first
    assert encode_corpus(read_corpus(folder), tokenizer)["train"].labels.tolist() == [1, 2]


# --- a tokenizer is learned once


@pytest.fixture
def learner():
    """Trains a tokenizer and records the texts it was given."""

    def learn(lines):
        learn.shown.append(list(lines))
        return WordTokenizer.train(learn.shown[-1])

    learn.shown = []
    return learn


def test_a_tokenizer_is_learned_once_from_the_same_texts(folder, cache, learner):
    dataset = read_corpus(fill(folder, "txt", "\n".join(DOCUMENTS)))["train"]
    first = learned_tokenizer(dataset, learner, {"size": 9})
    again = learned_tokenizer(dataset, learner, {"size": 9})
    assert learner.shown == [DOCUMENTS]
    assert again.fingerprint() == first.fingerprint()


def test_other_options_or_texts_make_another_tokenizer(folder, tmp_path, learner):
    dataset = read_corpus(fill(folder, "txt", "a b\nc"))["train"]
    learned_tokenizer(dataset, learner, {"size": 9})
    learned_tokenizer(dataset, learner, {"size": 8})
    fill(folder, "txt", "a b\nd")
    other = learned_tokenizer(read_corpus(folder)["train"], learner, {"size": 9})
    assert learner.shown == [["a b", "c"], ["a b", "c"], ["a b", "d"]]
    assert "d" in other.tokens(range(len(other)))


def test_a_damaged_tokenizer_in_the_cache_is_learned_again(folder, cache, learner):
    dataset = read_corpus(fill(folder, "txt", "a b"))["train"]
    learned_tokenizer(dataset, learner, {})
    (kept,) = cache.glob("tokenizers/*/tokenizer.json")
    kept.write_text("{")
    learned_tokenizer(dataset, learner, {})
    assert len(learner.shown) == 2
    learned_tokenizer(dataset, learner, {})
    assert len(learner.shown) == 2


def test_held_out_rows_are_in_the_order_of_the_data():
    rows = held_out(200, ["valid", "test"], "corpus", "document")
    assert all((np.diff(part) > 0).all() for part in rows.values())
