"""Long steps say what they do, and Ctrl-C stops them."""

import logging
import os
import signal
import threading
from types import SimpleNamespace

import pytest

from textvae.runs import slow_steps
from textvae.runs.slow_steps import SlowStep, counted, interruptible
from textvae.text.data.corpus import encode_corpus, read_file
from textvae.text.data.tokenizer import learned_tokenizer
from textvae.text.tokenizers import SentencePieceTokenizer

log = logging.getLogger(__name__)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(slow_steps, "EVERY", 0.0)


def test_a_quick_step_says_nothing(caplog):
    with caplog.at_level(logging.INFO):
        assert list(counted("abc", SlowStep(log, "%d"))) == ["a", "b", "c"]
        interruptible(lambda: None, SlowStep(log, "%.0f s"))
    assert caplog.text == ""


def test_a_slow_step_counts(often, caplog):
    with caplog.at_level(logging.INFO):
        assert list(counted("ab", SlowStep(log, "%d of %d"), 2)) == ["a", "b"]
    assert [record.message for record in caplog.records] == ["1 of 2", "2 of 2"]


def test_a_line_follows_another_after_ten_seconds(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(slow_steps, "time", SimpleNamespace(monotonic=lambda: now[0]))
    step = SlowStep(log, "%d")
    with caplog.at_level(logging.INFO):
        for now[0] in (4.0, 11.0, 15.0, 20.0, 22.0):
            step.show(now[0])
    assert [record.message for record in caplog.records] == ["11", "22"]


def test_ctrl_c_reaches_a_step_that_does_not_look_at_it():
    never = threading.Event()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        interruptible(never.wait, SlowStep(log, "%.0f s"))
    assert not never.is_set()
    never.set()


def test_an_error_in_a_step_is_raised():
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0, SlowStep(log, "%.0f s"))


def test_reading_learning_and_encoding_say_how_far_they_are(often, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {i}\n" for i in range(2000)))
    with caplog.at_level(logging.INFO):
        dataset = read_file(path)
        tokenizer = learned_tokenizer(
            dataset, lambda lines: SentencePieceTokenizer.train(lines, 280), {}
        )
        encode_corpus({"train": dataset}, tokenizer)
    for said in (
        f"{path}: 1000 documents read",
        "learning a tokenizer from 2,000 documents",
        "tokenizer: 1500 of 2000 documents read",
        "SentencePiece: learning unigram pieces, ",
        "token ids: 1000 of 2000 documents encoded",
    ):
        assert said in caplog.text
