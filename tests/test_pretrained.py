"""Word vectors from files as initial embeddings."""

import gzip

import numpy as np
import pytest
import torch
from conftest import in_child

import textvae
from textvae.errors import UserError
from textvae.text.nn.pretrained import read_word_vectors

WORDS = {"cat": 4, "dog": 5, "ice cream": 6}


@pytest.mark.parametrize("header", ["", "3 2\n", "\ufeff"])
@pytest.mark.parametrize("packed", [False, True])
def test_vectors_of_known_words_are_read(tmp_path, header, packed):
    text = f"{header}cat 0.5 -1\nfish 1 2\ndog 3e-1 4 \ncat 9 9\n"
    path = tmp_path / ("vectors.txt.gz" if packed else "vectors.vec")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = read_word_vectors(path, WORDS, 2)
    assert {row: vector.tolist() for row, vector in found.items()} == {
        4: [0.5, -1.0],  # the first of two
        5: [pytest.approx(0.3), 4.0],
    }


def test_words_with_spaces_are_words(tmp_path):
    text = "cat 0.5 -1\ncat name@domain.com 1 2\nice cream 3 4\n. . . 5 6\n"
    (tmp_path / "v.txt").write_text(text)
    found = read_word_vectors(tmp_path / "v.txt", WORDS, 2)
    assert {row: vector.tolist() for row, vector in found.items()} == {4: [0.5, -1], 6: [3, 4]}


@pytest.mark.parametrize(
    "text, message",
    [
        ("cat 1 2 3\n", r"line 1: a vector of 3 numbers, but --model.embedding_dim is 2"),
        ("1 2\ndog 1 x\n", "line 2: not a word and 2 numbers"),
        ("dog 1 nan\n", "line 1: a number that is not finite"),
        ("Cat 1 2\n", "none of the 3 tokens"),
        ("", "none of the 3 tokens"),
        (None, "cannot be read"),
    ],
)
def test_files_that_do_not_fit(tmp_path, text, message):
    if text is not None:
        (tmp_path / "v.txt").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_word_vectors(tmp_path / "v.txt", WORDS, 2)
    assert len(str(raised.value).splitlines()) == 1


def test_a_damaged_gzip_file_is_one_line(tmp_path):
    packed = bytearray(gzip.compress(b"cat 1 2\n" * 999))
    packed[15] ^= 255
    (tmp_path / "v.gz").write_bytes(packed)
    with pytest.raises(UserError, match="cannot be read"):
        read_word_vectors(tmp_path / "v.gz", WORDS, 2)


@pytest.mark.parametrize("tied", [[], ["--model.tie_embeddings", "true"]])
def test_a_run_starts_from_the_vectors(tiny, tmp_path, capfd, tied):
    size = int(tiny[tiny.index("--model.embedding_dim") + 1])
    if tied:
        tied += ["--model.decoder_hidden", str(size)]
    vectors = {"cat": np.arange(size) / 7, "the": -np.arange(size) / 3}
    lines = (" ".join([word, *map(str, vector)]) for word, vector in vectors.items())
    (tmp_path / "v.txt").write_text("\n".join(lines))
    options = ["--train.init_embeddings", str(tmp_path / "v.txt"), "--optim.lr", "1e-9", *tied]
    run = tmp_path / "run"
    assert in_child(["train", *tiny, *options, "--out", str(run)]) == 0
    assert f"{tmp_path / 'v.txt'}: vectors for 2 of " in capfd.readouterr().err
    model = textvae.load(str(run))
    for part in (model.encoder, model.decoder):
        for word, vector in vectors.items():
            (row,) = model.tokenizer.encode(word)
            torch.testing.assert_close(
                part.embedding.weight[row], torch.tensor(vector).float(), atol=1e-5, rtol=0
            )
