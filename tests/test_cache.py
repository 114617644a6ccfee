"""The cache: damaged, read-only, without locks, on a full disk; listed and pruned."""

import errno
import logging
import os
import re
import zlib

import filelock
import numpy as np
import pytest

from textvae.cli.main import main
from textvae.errors import UserError
from textvae.runs.cache import cache_place, checksum, entries, prune
from textvae.text.data.corpus import encode_corpus, read_corpus, read_file
from textvae.text.data.tokenizer import learned_tokenizer
from textvae.text.tokenizers import WordTokenizer

TOKENIZER = WordTokenizer(["a", "b", "c"])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.txt").write_text("x\ta b\ny\tc\n" * 50)
    return tmp_path / "a.txt"


def use(path):
    dataset = read_file(path)
    learned_tokenizer(dataset, WordTokenizer.train, {})
    split = encode_corpus({"train": dataset}, TOKENIZER)["train"]
    return dataset["text"][:], split.values.tolist(), split.labels.tolist()


def test_damage_that_keeps_the_size_is_found_and_mended(path, cache):
    expected = use(path)
    files = [*cache.rglob("*.arrow"), *cache.rglob("*.bin"), *cache.rglob("*.npy")]
    assert len(files) >= 6
    for file in files:
        content = bytearray(file.read_bytes())
        for damaged in (bytes(len(content)), bytes(content[:-1] + bytes([content[-1] ^ 1]))):
            file.write_bytes(damaged)
            assert use(path) == expected
            assert file.read_bytes() == bytes(content)


def test_a_checksum_is_that_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * 5000  # more than is read at a time
    (tmp_path / "a").write_bytes(content)
    assert checksum(tmp_path / "a") == zlib.crc32(content)


def test_records_that_are_no_records_are_written_again(path, cache):
    expected = use(path)
    for content in ("[]", "null", '{"checksums": 3, "content": [1]}', "[" * 100_000):
        for file in [*cache.glob("sources/*.json"), *cache.glob("encoded/*/facts.json")]:
            file.write_text(content)
        assert use(path) == expected


def no_lock(number):
    def acquire(self, *_, **__):
        raise OSError(number, os.strerror(number))

    return acquire


def test_a_complete_cache_needs_no_lock(path, monkeypatch):
    expected = use(path)
    monkeypatch.setattr(filelock.FileLock, "acquire", no_lock(errno.EROFS))
    assert use(path) == expected
    path.write_text("c\n")
    with pytest.raises(UserError, match=r"cache folder .*cache: cannot be written \(Read-only"):
        use(path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_it_goes_on_and_says_so(path, monkeypatch, caplog, number):
    monkeypatch.setattr(filelock.FileLock, "acquire", no_lock(number))
    with caplog.at_level(logging.WARNING):
        assert use(path)[0][:2] == ["a b", "c"]
    assert "this file system has no locks; continuing without them" in caplog.text


def test_a_full_disk_while_arrays_are_written(path, cache, monkeypatch):
    def full(*_, **__):
        raise OSError("800 requested and 0 written")  # numpy's has no errno

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match=r"cannot be written \(800 requested and 0 written\); free"):
        use(path)
    assert not list(cache.rglob("*.tmp"))
    monkeypatch.undo()


def test_entries_are_listed_and_pruned(path, cache, capfd):
    expected = use(path)
    os.utime(next(cache.glob("texts/*.arrow")), (0, 0))
    found = entries(cache)
    assert [entry.part for entry in found][-1] == "texts"
    assert sorted(entry.part for entry in found) == ["encoded", "texts", "tokenizers"]
    assert main(["cache"]) == 0
    *lines, total = capfd.readouterr().out.splitlines()
    assert re.fullmatch(rf"texts +\d+\.\d KB +\d+\.\d days ago  {path}", lines[-1])
    assert re.fullmatch(rf"{cache}: 3 entries, \d+\.\d KB", total)
    assert main(["cache", "--prune", "1000"]) == 0
    assert f"{cache}: removed 1 entry" in capfd.readouterr().out
    assert [entry.part for entry in entries(cache)] != []
    (cache / "texts" / "thesis").mkdir()  # not an entry
    (cache / "texts" / "thesis" / "chapter.txt").touch()
    assert len(list(cache.glob("sources/*.json"))) == 0  # the name of a file of the user
    assert len(prune(cache, 0)) == 2
    assert (cache / "texts" / "thesis" / "chapter.txt").exists()
    assert main(["cache", "--cache-dir", str(cache / "nothing")]) == 2
    assert "there is no such folder" in capfd.readouterr().err
    assert entries(cache) == []
    assert use(path) == expected


def test_what_is_being_written_is_neither_listed_nor_removed(path, cache):
    use(path)
    part = cache / "texts" / f".{'0' * 32}.tmp"
    part.touch()
    assert len(prune(cache, 0)) == 3 and entries(cache) == [] and part.exists()
    os.utime(part, (0, 0))  # by a process that was killed long ago
    assert [entry.path for entry in prune(cache, 1)] == [part]
    empty = cache / "encoded" / f".{'1' * 32}.tmp"
    empty.mkdir()  # by a process that was killed before it wrote into it
    assert entries(cache) == [] and empty.exists()
    os.utime(empty, (0, 0))
    assert [entry.path for entry in prune(cache, 1)] == [empty]


def test_an_entry_is_used_when_it_is_read(path, cache):
    use(path)
    for file in (file for part in cache.iterdir() for file in (part, *part.rglob("*"))):
        os.utime(file, (0, 0))  # what a file system without times of access would say
    assert min(entry.days for entry in entries(cache)) > 1000
    use(path)
    assert max(entry.days for entry in entries(cache)) < 1


def test_a_held_out_split_leaves_nothing_else_in_the_cache(path, cache):
    splits = encode_corpus(read_corpus(path), TOKENIZER)
    assert splits["valid"].label_names == ["x", "y"]
    assert len(list(cache.glob("texts/*.arrow"))) == 1


def test_a_listing_changes_nothing(tmp_path, capfd):
    (tmp_path / "other").mkdir()
    assert main(["cache", "--cache-dir", str(tmp_path / "other")]) == 0
    assert not list((tmp_path / "other").iterdir())
    capfd.readouterr()
    assert main(["cache", "--cache-dir", "", "--prune", "0"]) == 2
    assert "the name of the cache folder is empty" in capfd.readouterr().err


def test_an_empty_home_is_not_the_root_folder(monkeypatch):
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("TEXTVAE_CACHE", raising=False)
    with pytest.raises(UserError, match="there is no home folder for the cache"):
        cache_place(None)


def test_compiled_kernels_are_listed_and_removed(cache, capfd):
    kernels = cache / "kernels" / ("0" * 32 + ".so")
    kernels.parent.mkdir(parents=True, exist_ok=True)
    kernels.write_bytes(b"code")
    assert main(["cache"]) == 0 and "kernels" in capfd.readouterr().out
    assert main(["cache", "--prune", "0"]) == 0 and not kernels.exists()
