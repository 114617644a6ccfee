"""Files as people have them: compressed, damaged, from pipes, with the line ends of another age."""

import bz2
import gzip
import lzma
import os
import random
import threading
import zlib

import pyarrow
import pytest

from textvae.errors import UserError
from textvae.text.data import streams
from textvae.text.data.corpus import read_corpus, read_file

TEXTS = ["it rains", "the sun is out", "caf\u00e9 \u4f60\u597d"]
CONTENT = "".join(f"{text}\n" for text in TEXTS).encode()
PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))


def read(path, **options):
    return read_file(path, **options)["text"][:]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_files(tmp_path, suffix):
    packed = PACK[suffix](CONTENT)
    assert read(written(tmp_path, f"a.txt.{suffix}", packed)) == TEXTS
    assert read(written(tmp_path, f"B.TXT.{suffix.upper()}", packed)) == TEXTS
    assert read(written(tmp_path, "c.txt", packed)) == TEXTS  # whatever it is called
    assert read(written(tmp_path, f"d.txt.{suffix}", packed + packed)) == TEXTS * 2
    for part in ("train", "valid"):
        written(tmp_path, f"{part}.jsonl.{suffix}", PACK[suffix](b'{"text": "a"}\n'))
    assert read_corpus(tmp_path)["valid"]["text"][:] == ["a"]


@pytest.mark.parametrize("suffix", PACK)
def test_a_damaged_compressed_file_is_one_line(tmp_path, suffix):
    rng = random.Random(0)
    words = " ".join(str(rng.random()) for _ in range(2000)).encode()
    packed = PACK[suffix](words)
    with pytest.raises(UserError, match=r"damaged .* file"):
        read(written(tmp_path, f"cut.txt.{suffix}", packed[: len(packed) // 2]))
    for trial in range(40):
        damaged = bytearray(packed)
        for _ in range(5):
            damaged[rng.randrange(12, len(damaged))] ^= 1 << rng.randrange(8)
        try:
            read(written(tmp_path, f"{trial}.txt.{suffix}", bytes(damaged)))
        except UserError as error:
            assert "\n" not in str(error)
    with pytest.raises(UserError, match=r"damaged \w+ file \(it does not begin like one\)"):
        read(written(tmp_path, f"none.txt.{suffix}", CONTENT))


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_what_follows_a_stream_is_read_or_refused(tmp_path, suffix):
    packed = PACK[suffix](CONTENT)
    long = PACK[suffix](CONTENT * 20_000)
    assert len(read(written(tmp_path, f"long.txt.{suffix}", long + packed))) == 60_003
    assert read(written(tmp_path, f"padded.txt.{suffix}", packed + bytes(8) + packed)) == TEXTS * 2
    for after in (b"damaged" + packed[7:], b"anything", packed[:-9]):
        with pytest.raises(UserError, match=r"damaged \w+ file"):
            read(written(tmp_path, f"more.txt.{suffix}", packed + after))


def test_a_deflate_stream_that_is_damaged_after_its_header(tmp_path):
    packed = bytearray(gzip.compress(CONTENT))
    packed[10:14] = b"\xff\xff\xff\xff"  # an invalid block type
    with pytest.raises(zlib.error):
        gzip.decompress(bytes(packed))
    with pytest.raises(UserError, match="damaged gzip file"):
        read(written(tmp_path, "a.txt.gz", bytes(packed)))


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("line", [b"\0", b"a b\n"])
def test_what_unpacks_to_far_more_than_text_is_not_unpacked(tmp_path, monkeypatch, suffix, line):
    monkeypatch.setattr(streams, "_ALWAYS_UNPACKED", 2**16)
    monkeypatch.setattr(streams, "LONGEST_LINE", 2**18)
    bomb = PACK[suffix](line * (2**22 // len(line)))
    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        read(written(tmp_path, f"a.txt.{suffix}", bomb))


def test_a_long_file_is_unpacked_if_its_ratio_is_that_of_text(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_ALWAYS_UNPACKED", 2**10)
    rng = random.Random(0)
    lines = [str(rng.random()) for _ in range(2000)]
    packed = gzip.compress("\n".join(lines).encode())
    assert read(written(tmp_path, "a.txt.gz", packed)) == lines


def test_a_line_without_an_end(tmp_path):
    path = written(tmp_path, "a.txt", b"a\n" + b"b" * 1000)
    with pytest.raises(UserError, match="line 2: longer than 999 bytes"):
        list(streams.read_lines(streams.input_file(path), longest=999))
    assert [line for line, _ in streams.read_lines(streams.input_file(path), longest=1000)] == [
        1,
        2,
    ]


@pytest.mark.parametrize("content", [b"a b\rc d\re\r", b"a b\rc d\re", b"text\ra\rb\r"])
def test_lines_that_end_with_cr_alone(tmp_path, content):
    for name in ("a.txt", "a.csv"):
        with pytest.raises(UserError, match=r"its lines end with CR alone.* tr '\\r' '\\n'"):
            read(written(tmp_path, name, content))


def test_a_cr_within_a_line_is_only_a_space(tmp_path):
    assert read(written(tmp_path, "a.txt", b"10%\r20%\nb\n")) == ["10%\r20%", "b"]
    assert read(written(tmp_path, "b.txt", b"a\r\nb\r\n")) == ["a", "b"]


def test_a_named_pipe_is_read_once_and_like_a_file(tmp_path):
    for name, content, expected in (
        ("pipe", CONTENT, TEXTS),
        ("a.jsonl", b'{"text": "a b"}\n', ["a b"]),
        ("zipped", gzip.compress(CONTENT), TEXTS),
    ):
        pipe = tmp_path / name
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        assert read(pipe) == expected
        writer.join()


def test_standard_input_is_a_corpus(tmp_path, monkeypatch):
    content = "".join(f"x\tline {i}\n" for i in range(40)).encode()
    with open(written(tmp_path, "lines", content)) as file:
        monkeypatch.setattr("sys.stdin", file)
        corpus = read_corpus("-")
    assert [len(part) for part in corpus.values()] == [36, 2, 2]
    assert set(corpus["train"]["label"]) == {"x"}
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="standard input is closed"):
        read_corpus("-")


def test_what_is_not_a_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.txt")
    with pytest.raises(UserError, match="a folder, not a file"):
        read(tmp_path)
