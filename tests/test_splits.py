"""Which files are which split: shards, hidden files, folders of documents, saved datasets."""

import logging

import datasets
import pytest

from textvae.errors import UserError
from textvae.text.data.corpus import encode_corpus, read_corpus, warn_of_known_texts
from textvae.text.data.sources import is_one_split
from textvae.text.data.targets import read_targets
from textvae.text.tokenizers import CharTokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def shards(folder, numbers, total, split="train"):
    for i in numbers:
        (folder / f"{split}-{i:05d}-of-{total:05d}.txt").write_text(f"shard {i}\n")


@pytest.mark.parametrize("first", [0, 1])
def test_all_shards_are_read_in_order(folder, first):
    shards(folder, range(first, first + 12), 12)
    write(folder, valid_txt="v\n")
    texts = read_corpus(folder)["train"]["text"][:]
    assert texts == [f"shard {i}" for i in range(first, first + 12)]


def test_a_missing_shard_is_named(folder):
    shards(folder, [0, 2], 3)
    with pytest.raises(UserError, match=r"train has 2 of 3 shards \(1 missing\)"):
        read_corpus(folder)
    shards(folder, [1], 3)
    shards(folder, [0], 2, split="valid")
    with pytest.raises(UserError, match=r"valid has 1 of 2 shards \(1 missing\)"):
        read_corpus(folder)
    corpus = read_corpus(folder, valid="valid-00000-of-00002.txt")
    assert [len(part) for part in corpus.values()] == [3, 1]


def test_a_shard_in_two_formats_is_ambiguous(folder):
    shards(folder, [0, 1], 2)
    (folder / "train-00001-of-00002.csv").write_text("text\na\n")
    with pytest.raises(UserError, match="have the same shard twice; remove one"):
        read_corpus(folder)


def test_two_sets_of_shards_are_ambiguous(folder):
    shards(folder, [0, 1], 2)
    shards(folder, [0], 1)
    with pytest.raises(UserError, match=r"could both be train; choose one with --data.train NAME"):
        read_corpus(folder)


def test_hidden_files_are_left_alone(folder):
    write(folder, train_txt="a\nb\n", valid_txt="v\n")
    (folder / "._train.txt").write_bytes(b"\0\5\26\7")
    (folder / ".train.txt.swp.txt").write_text("x\n")
    assert read_corpus(folder)["train"]["text"][:] == ["a", "b"]


def test_split_files_may_be_elsewhere(folder, tmp_path, monkeypatch):
    write(folder, one_txt="a\nb\n")
    write(tmp_path, two_txt="v\n", three_txt="t\n")
    monkeypatch.chdir(tmp_path)
    files = {"train": "one.txt", "valid": "two.txt", "test": str(tmp_path / "three.txt")}
    corpus = read_corpus(folder, **files)
    assert [part["text"][:] for part in corpus.values()] == [["a", "b"], ["v"], ["t"]]
    alone = read_corpus(folder / "one.txt", valid="two.txt", test="three.txt")
    assert [part["text"][:] for part in alone.values()] == [["a", "b"], ["v"], ["t"]]
    with pytest.raises(UserError, match="is a single file, so it is the training data"):
        read_corpus(folder / "one.txt", train="two.txt")


def test_a_folder_per_class_has_one_document_per_file(folder):
    write(
        folder,
        train__pos__2_txt="a good\nfilm\n",
        train__pos__10_txt="great",
        train__neg__1_txt="a bore",
        test__neg__1_txt="bad",
        train__neg___hidden="x",
    )
    (folder / "train" / "neg" / "._1.txt").write_bytes(b"\0")
    corpus = read_corpus(folder)
    rows = {(row["text"], row["label"]) for part in corpus.values() for row in part}
    assert rows == {
        ("a good\nfilm", "pos"),
        ("great", "pos"),
        ("a bore", "neg"),
        ("bad", "neg"),
    }
    assert corpus["test"]["text"][:] == ["bad"]
    unlabeled = read_corpus(folder, labels=False)
    assert unlabeled["test"].column_names == ["text"]


def test_a_folder_of_classes_without_splits_needs_the_format(folder):
    for i in range(20):
        write(folder, **{f"pos__{i}_txt": f"good {i}", f"neg__{i}_txt": f"bad {i}"})
    with pytest.raises(UserError, match=r"no training file.*or use folders train/CLASS/"):
        read_corpus(folder)
    corpus = read_corpus(folder, format="documents")
    assert [len(part) for part in corpus.values()] == [36, 2, 2]
    assert set(corpus["train"]["label"]) == {"pos", "neg"}


def test_documents_in_the_folders_of_splits_stay_in_their_splits(folder):
    write(folder, train__a_txt="one\ntwo", train__b_txt="three", val__a_txt="four", test__a_txt="5")
    corpus = read_corpus(folder, format="documents")
    assert {name: part["text"][:] for name, part in corpus.items()} == {
        "train": ["one\ntwo", "three"],
        "valid": ["four"],
        "test": ["5"],
    }
    assert corpus["train"].column_names == ["text"]


def test_folders_of_splits_are_never_mixed_or_dropped_in_silence(folder, caplog):
    write(folder, train__a_txt="one", valid__a_txt="two", dev__a_txt="three")
    with pytest.raises(UserError, match="dev and valid could both be valid: rename one"):
        read_corpus(folder, format="documents")
    (folder / "dev").rename(folder / "unsup")
    write(folder, **{".hidden__a_txt": "x"})
    read_corpus(folder, format="documents")
    assert "not a split, and left out: unsup" in caplog.text


def test_files_that_are_no_split_are_named(folder, caplog):
    caplog.set_level("INFO")
    write(folder, train_txt="one", valid_txt="two", test_txt="3", unsup_txt="x", facts_json="{}")
    read_corpus(folder)
    assert f"{folder}: not a split, and left out: unsup.txt" in caplog.messages
    caplog.clear()
    (folder / "unsup.txt").unlink()
    read_corpus(folder)
    assert not any("left out" in message for message in caplog.messages)
    (folder / "all.txt").write_text("four")
    read_corpus(folder, train="all.txt")
    assert f"{folder}: not a split, and left out: train.txt" in caplog.messages


def test_a_single_folder_called_train_is_a_split(folder):
    write(folder, **{f"train__{i}_txt": f"text {i}" for i in range(20)})
    corpus = read_corpus(folder, format="documents")
    assert [len(part) for part in corpus.values()] == [18, 1, 1]
    assert corpus["train"].column_names == ["text"]


def test_a_folder_of_corpora_is_not_a_split(folder):
    write(folder, ptb__train_txt="a", ptb__valid_txt="b")
    assert not is_one_split(folder)
    write(folder, pos__1_txt="a")
    assert not is_one_split(folder)


def test_a_class_may_be_called_train(folder):
    for i in range(20):
        write(folder, **{f"train__{i}_txt": f"a train {i}", f"bus__{i}_txt": f"a bus {i}"})
    corpus = read_corpus(folder, format="documents")
    assert set(corpus["train"]["label"]) == {"train", "bus"}


def test_documents_in_a_folder_for_what_is_missing_are_unlabeled(folder):
    for i in range(20):
        write(folder, **{f"train__pos__{i}_txt": f"good {i}", f"train__-1__{i}_txt": f"so {i}"})
    corpus = read_corpus(folder)
    assert set(corpus["train"]["label"]) == {"pos", None}


def test_shards_that_are_read_differently_are_named(folder, caplog):
    (folder / "train-00000-of-00002.txt").write_text("plain\nlines\n")
    (folder / "train-00001-of-00002.txt").write_text("x\ta\ny\tb\n")
    (folder / "valid.txt").write_text("a\n")
    with caplog.at_level("INFO"):
        read_corpus(folder)
    expected = "1 more: read as lines; train-00001-of-00002.txt as label-tab-text"
    assert expected in caplog.text


def test_a_late_line_that_is_no_label_and_text_is_refused(folder):
    labeled = "x\ta text\n" * 1000
    (folder / "train.txt").write_text(labeled + "a long sentence, a tab,\tand the rest\n")
    with pytest.raises(UserError, match=r"line 1001: .* does not look like a label, .* lines if"):
        read_corpus(folder)
    (folder / "valid.txt").write_text("x\ta\n")
    corpus = read_corpus(folder, format="label-tab-text")
    assert corpus["train"]["label"][-1] == "a long sentence, a tab,"


def saved():
    features = datasets.Features(
        {"body": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    return datasets.Dataset.from_dict(
        {"body": ["good", "so so", "bad"], "label": [1, -1, 0]}, features=features
    )


def test_the_classes_of_a_column_are_names_and_not_numbers(folder):
    datasets.DatasetDict({"train": saved(), "validation": saved()}).save_to_disk(folder)
    corpus = read_corpus(folder, text_column="body")
    splits = encode_corpus(corpus, CharTokenizer.train(["a"]))
    found = read_targets(splits, "label", dir=str(folder), text_column="body")
    assert found == {"train": ["pos", None, "neg"], "valid": ["pos", None, "neg"]}


def test_a_folder_of_save_to_disk(folder, tmp_path):
    datasets.DatasetDict({"train": saved(), "validation": saved()}).save_to_disk(folder)
    corpus = read_corpus(folder, text_column="body")
    assert list(corpus) == ["train", "valid"]
    split = encode_corpus(corpus, CharTokenizer.train(["a"]))["train"]
    assert (split.label_names, split.labels.tolist()) == (["neg", "pos"], [1, -1, 0])
    with pytest.raises(UserError, match="one of body, label"):
        read_corpus(folder)
    with pytest.raises(UserError, match="apply only to files"):
        read_corpus(folder, text_column="body", format="csv")
    both = {"train": saved(), "val": saved(), "validation": saved()}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "both")
    with pytest.raises(UserError, match="val and validation could both be valid; choose one with"):
        read_corpus(tmp_path / "both", text_column="body")
    named = read_corpus(tmp_path / "both", text_column="body", valid="val")
    assert list(named) == ["train", "valid"]
    single = tmp_path / "single"
    datasets.concatenate_datasets([saved()] * 10).save_to_disk(single)
    assert [len(d) for d in read_corpus(single, text_column="body").values()] == [26, 2, 2]
    for file in folder.rglob("*.arrow"):
        file.write_bytes(b"damaged")
    with pytest.raises(UserError, match="a damaged save_to_disk folder"):
        read_corpus(folder, text_column="body")


def test_texts_that_are_also_in_train_are_reported(folder, caplog):
    distinct = [f"text {i}\n" for i in range(100)]
    write(folder, train_txt="".join(distinct), valid_txt="".join(distinct[:10] + ["new\n"] * 90))
    write(folder, test_txt="".join(distinct[:11] + ["new\n"] * 89))
    warn_of_known_texts(read_corpus(folder))
    assert [message for message in caplog.messages if "also in train" in message] == [
        "test: 11% of its 100 texts are also in train, so its metrics are better than those of "
        "new texts: remove duplicates from the data"
    ]


def test_pictures_are_no_corpus_of_text(folder):
    (folder / "train").mkdir()
    (folder / "train" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"has images: train on them with --data\.kind images"):
        read_corpus(folder)


def test_a_picture_among_texts_does_not_matter(folder):
    write(folder, valid_txt="v\n")
    (folder / "logo.png").write_bytes(b"")
    with pytest.raises(UserError, match="no training file"):
        read_corpus(folder)


def test_duplicates_in_a_single_file_are_reported(folder, caplog):
    write(folder, all_txt="once\n" + "again and again\n" * 99)
    warn_of_known_texts(read_corpus(folder / "all.txt"))
    assert "valid: 100% of its 5 texts are also in train" in caplog.text


def test_reading_a_dataset_leaves_the_progress_bars_of_others_alone(folder, capfd):
    datasets.DatasetDict({"train": saved(), "validation": saved()}).save_to_disk(folder)
    datasets.enable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.INFO)
    capfd.readouterr()
    assert read_corpus(folder, text_column="body")["train"]["text"][:]
    assert capfd.readouterr().err == ""
    assert not datasets.utils.are_progress_bars_disabled()
    assert logging.getLogger("huggingface_hub").level == logging.INFO
