"""How a file is laid out: what is detected, what the log says, and what is refused as ambiguous."""

import json
import logging

import pytest

from textvae.builders.data import build_data
from textvae.config.experiment import Config, DataConfig
from textvae.errors import UserError
from textvae.text.data.corpus import read_corpus, read_file
from textvae.text.data.layout import Usual


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def read(tmp_path):
    """Writes a file and returns its rows as (text, label)."""

    def read(content, name="train.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [(row["text"], row.get("label")) for row in read_file(path, **options)]

    return read


TEXTS = ["it rains, again", "the sun is out", "a b"]
LABELED = list(zip(TEXTS, ["x", "y", "x"], strict=True))


def table(delimiter, header=("text", "label"), rows=LABELED):
    quoted = lambda cell: f'"{cell}"' if delimiter in cell else cell  # noqa: E731
    lines = [*([header] if header else []), *rows]
    return "".join(delimiter.join(map(quoted, line)) + "\n" for line in lines)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_gives_even_columns(read, delimiter, caplog):
    with caplog.at_level(logging.INFO):
        assert read(table(delimiter)) == LABELED
    name = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}[delimiter]
    assert f"read as csv, {name}-separated, header, text: text, label: label" in caplog.text
    assert "3 documents; first: 'it rains, again', label x" in caplog.text


def test_a_header_says_which_of_two_delimiters_is_meant(read):
    content = "text;label,n\na;b,1\nc;d,2\n"
    assert read(content) == [("a", None), ("c", None)]
    assert read(content, text_column="text;label") == [("a;b", None), ("c;d", None)]
    message = "separated by ',' or ';': set --data.delimiter"
    with pytest.raises(UserError, match=message):
        read("1,a;b\n2,c;d\n")
    assert read("1,a;b\n2,c;d\n", delimiter="comma") == [("a;b", "1"), ("c;d", "2")]
    with pytest.raises(UserError, match=message):
        read("hello, world; so\none, two, three; four; five\n")


@pytest.mark.parametrize("given", ["semicolon", ";"])
def test_a_delimiter_makes_any_text_file_a_table(read, given):
    assert read(table(";"), name="train.txt", delimiter=given) == LABELED
    assert read(table(";").replace(";", ":"), delimiter=":") == LABELED
    assert read(table("\t"), delimiter="tab") == read(table("\t"), delimiter="\\t") == LABELED


def test_a_table_in_a_text_file_is_recognized_by_its_header(read):
    assert read(table("\t"), name="train.txt") == LABELED


@pytest.mark.parametrize("header", [None, True])
def test_a_delimiter_that_leaves_the_columns_in_one_piece_is_refused(read, header):
    """Such as that of the training data, for a new file."""
    content = "text,label\nit rains again .,neg\nthe sun .,pos\n"
    with pytest.raises(UserError, match=r"are separated by ',', not by ';': set --data\.delimiter"):
        read(content, delimiter=";", header=header)
    one = read("text\nit rains, again\n", delimiter=";", header=header)
    assert one == [("it rains, again", None)]


@pytest.mark.parametrize("first", ["text", "sentence", "review_text"])
def test_one_column_below_a_header(read, first):
    assert read(f"{first}\nit rains again\nthe sun\n") == [
        ("it rains again", None),
        ("the sun", None),
    ]


@pytest.mark.parametrize("first", ["the cat sat on the mat", "so it is."])
def test_one_column_without_a_header_keeps_its_first_document(read, first):
    assert read(f"{first}\nthe sun is out\n") == [(first, None), ("the sun is out", None)]


@pytest.mark.parametrize(
    "content",
    [
        "apple\nbanana\n",
        "great film\nit rains again\n",
        "7\na b\n",
        "Wonderful.\nThe cat sat here today.\n",
    ],
)
def test_one_column_whose_first_row_may_be_either(read, content):
    with pytest.raises(
        UserError, match=r"may be a header or a document: set --data.header true or"
    ):
        read(content)
    first, second = content.split("\n")[:2]
    assert read(content, header=True) == [(second, None)]
    assert read(content, header=False) == [(first, None), (second, None)]


def test_an_integer_and_texts_are_the_layout_of_torchtext(read, caplog):
    content = '"3","Oil prices rise","so it is"\n"4","Chips","are faster now"\n'
    rows = [("Oil prices rise so it is", "3"), ("Chips are faster now", "4")]
    with caplog.at_level(logging.INFO):
        assert read(content) == rows
    assert (
        "torchtext-csv, comma-separated, no header, text: text1 + text2, label: label"
        in caplog.text
    )
    assert read(content.replace(",", ";")) == rows
    assert read(content, text_column="2") == [("Oil prices rise", None), ("Chips", None)]
    assert read(content, text_column="3", label_column="1")[0] == ("so it is", "3")


@pytest.mark.parametrize("header", ["2019,review", "0,1", "1,body"])
def test_a_header_that_is_a_number_is_not_taken_for_a_document(read, header):
    content = f"{header}\n4,great film indeed\n5,it is a bore\n"
    with pytest.raises(UserError, match="may be a header or a document"):
        read(content)
    name = header.split(",")[1]
    assert len(read(content, header=True, text_column=name)) == 2
    assert len(read(content, header=False, text_column="2")) == 3
    assert read("5,text\n1,a b\n") == [("a b", None)]


def test_the_columns_of_a_table_without_a_header_are_numbers(read):
    content = "1a\tgood film\n1b\tbad film\n"
    with pytest.raises(UserError, match=r"one of 1a, good film, or set .* label-tab-text"):
        read(content, name="train.tsv")
    with pytest.raises(
        UserError, match=r"no column 'text'; set --data.text_column to one of 1, 2$"
    ):
        read(content, name="train.tsv", header=False)
    options = {"text_column": "2", "label_column": "1"}
    expected = [("good film", "1a"), ("bad film", "1b")]
    assert read(content, name="train.tsv", header=False, **options) == expected
    assert read(content, name="train.tsv", **options) == expected


def test_two_columns_of_the_same_name(read):
    with pytest.raises(UserError, match="2 columns are named 'text'"):
        read("text,text\na,b\n")
    with pytest.raises(UserError, match="2 columns are named 'label'"):
        read("text,label,label\na,b,c\n")
    assert read("id,id,text\n1,2,a\n") == [("a", None)]  # nobody reads them
    with pytest.raises(UserError, match="line 1: not JSON: the key 'text' occurs twice"):
        read('{"text": "a", "text": "b"}\n', name="train.jsonl")


def test_options_for_other_formats_are_refused(read):
    for name, content in (("a.txt", "a\n"), ("a.jsonl", '{"text": "a"}\n')):
        with pytest.raises(
            UserError, match=r"--data.delimiter and --data.header apply only to tab"
        ):
            read(content, name=name, header=True)
    with pytest.raises(UserError, match="delimiter ';;': must be one character"):
        read("a\n", delimiter=";;")
    with pytest.raises(UserError, match="label_column='x': no effect without labels"):
        read("text,x\na,1\n", label_column="x", labels=False)


def test_labels_can_be_left_out(read):
    assert read(table(","), labels=False) == [(text, None) for text in TEXTS]
    assert read("x\ta b\ny\tc\n", name="a.txt", labels=False) == [("a b", None), ("c", None)]


def test_a_column_of_texts_is_no_label(read):
    assert read("label,n\na b,1\n", text_column="label") == [("a b", None)]


def test_a_line_with_the_word_text_is_no_header(read):
    assert read("text\na b\n", name="a.txt") == [("text", None), ("a b", None)]
    with pytest.raises(UserError, match="looks like the header of a table"):
        read("id,text\n1,a b\n", name="b.txt")


def test_as_many_labeled_lines_as_others_are_lines(read):
    assert read("x\ta b\nc d\n", name="a.txt") == [("x\ta b", None), ("c d", None)]
    with pytest.raises(UserError, match="line 3: not `label<TAB>text`, unlike most lines"):
        read("x\ta b\ny\tb\nc d\n", name="b.txt")


def test_the_usual_columns_are_read_if_a_file_has_them(read):
    usual = Usual(text_column="sentence", label_column="topic")
    content = "sentence,topic,text\na b,x,c\n"
    assert read(content, usual=usual) == [("a b", "x")]
    assert read(content, usual=usual, text_column="text") == [("c", "x")]
    assert read("sentence,topic,label\na b,x,y\n", usual=usual) == [("a b", "x")]
    assert read("text,id\na b,x\n", usual=usual) == [("a b", None)]
    assert read("a b\n", name="a.txt", usual=usual) == [("a b", None)]


def test_files_of_the_same_kind_are_read_like_the_training_data(read, caplog):
    tabs, table = "w\tso what\nv\tyes\n", "label;text\nx;a, b\ny;c\n"
    as_lines = Usual("data/train.txt", "lines")
    assert read(tabs, name="a.txt") == [("so what", "w"), ("yes", "v")]
    assert read(tabs, name="a.text", usual=as_lines) == [
        ("w\tso what", None),
        ("v\tyes", None),
    ]
    assert read(tabs, name="b.txt", usual=Usual("folder", "lines")) == [
        ("w\tso what", None),
        ("v\tyes", None),
    ]
    assert read(tabs, name="c.txt", usual=as_lines, format="label-tab-text")[0] == ("so what", "w")
    assert read("text,label\na,b\n", usual=as_lines) == [("a", "b")]  # another kind of file
    pipes = Usual("train.csv", delimiter="pipe", header=False, text_column="1")
    assert read("a,b|2\n", usual=pipes) == [("a,b", None)]
    assert read(table, usual=pipes, delimiter=";") == [("a, b", "x"), ("c", "y")]
    assert read("a\tb\n", name="a.dat", usual=Usual("b.dat", "lines")) == [("a\tb", None)]


def test_nested_columns_and_lists_of_tokens(read):
    record = {"data": {"text": ["a", "b"], "kind": {"name": "x"}}, "a.b": "c", "id": 1}
    content = json.dumps(record) + "\n"
    options = {"text_column": "data.text,a.b", "label_column": "data.kind.name"}
    assert read(content, name="a.jsonl", **options) == [("a b c", "x")]
    with pytest.raises(UserError, match=r"no column 'data.body'; it has"):
        read(content, name="a.jsonl", text_column="data.body")
    with pytest.raises(UserError, match=r"line 2: no 'data.text' here"):
        read(content + '{"data": 3}\n', name="a.jsonl", text_column="data.text")
    with pytest.raises(UserError, match="'ids' is of type list, not a string"):
        read('{"ids": [1, 2]}\n', name="a.jsonl", text_column="ids")


def test_a_message_is_one_line_whatever_the_columns_are_called(read):
    header = ",".join(['"a\nb"', "c" * 1000, *(f"n{i}" for i in range(100))])
    with pytest.raises(
        UserError, match=r"one of a\\nb, c{40}…, n0, .*, n17, and 82 more"
    ) as caught:
        read(header + "\n" + ",".join(["x"] * 102) + "\n")
    assert "\n" not in str(caught.value)


def test_only_the_start_of_a_run_logs_how_its_corpus_is_read(tmp_path, caplog):
    corpus, run = tmp_path / "texts.txt", tmp_path / "run"
    corpus.write_text("".join(f"line {i}\n" for i in range(40)))
    run.mkdir()
    config = Config(data=DataConfig(dir=str(corpus)))
    with caplog.at_level(logging.INFO):
        build_data(config, run, fresh=True)
        assert "read as lines" in caplog.text and "drawn from train" in caplog.text
        assert "40 documents; first: 'line 0'" in caplog.text
        caplog.clear()
        build_data(config, run)
        assert "texts.txt" not in caplog.text
        read_file(corpus)  # new data for that run
        assert "read as lines" in caplog.text


def test_a_table_in_a_text_file_is_ambiguous(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("text,label\na b,x\n")
    with pytest.raises(UserError, match="first line looks like the header of a table: set --data"):
        read_file(path)
    assert len(read_file(path, format="csv")) == 1 and len(read_file(path, format="lines")) == 2


def test_a_quotation_mark_that_is_never_closed_is_found(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text('text,label\n"a ""b""",x\n"c,y\nd,z\n')
    with pytest.raises(UserError, match="line 3: not csv: a quotation mark in this row is never"):
        read_file(path)


def test_a_column_that_is_almost_named_label_is_mentioned(tmp_path, caplog):
    (tmp_path / "data.csv").write_text("Review,Label\ngood food,1\nbad food,0\nfine food,1\n")
    with caplog.at_level("INFO"):
        read_corpus(tmp_path / "data.csv", text_column="Review", cache_dir=tmp_path / "cache")
    assert "text: Review; 'Label' is not read: see --data.label_column" in caplog.text


def test_a_folder_without_a_training_file_says_what_is_in_it(tmp_path):
    (tmp_path / "training.txt").write_text("a b c\n")
    with pytest.raises(UserError, match=r"no training file among training\.txt; name it"):
        read_corpus(tmp_path, cache_dir=tmp_path / "cache")
