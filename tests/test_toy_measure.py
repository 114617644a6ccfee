"""data/toy/measure.py: the grammar recognizes its own texts, and their topics."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

TOY = Path(__file__).parent.parent / "data" / "toy"
sys.path.insert(0, str(TOY))

import grammar as toy  # noqa: E402
import measure  # noqa: E402


@pytest.fixture(scope="module")
def drawn():
    """60 texts of the grammar with their topics."""
    grammar, rng = toy.Grammar.load(), random.Random(0)
    return [(text, factors.topic) for text, factors, _ in (grammar.sample(rng) for _ in range(60))]


@pytest.fixture(scope="module")
def judge(drawn):
    return measure.Judge(toy.Grammar.load(), [text for text, _ in drawn])


def test_texts_of_the_grammar_are_well_formed(judge, drawn):
    found = judge.well_formed([text for text, _ in drawn])
    assert found["derivable"] == 1.0 and found["bigrams"] == 1.0
    assert -40 < found["mean_log_p"] < -10


def test_a_topic_is_recognized_even_in_broken_text(judge, drawn):
    rng = random.Random(1)
    broken = []
    for text, _ in drawn:
        words = text.split()
        words[rng.randrange(len(words))] = "the"
        broken.append(" ".join(words))
    assert judge.well_formed(broken)["derivable"] < 0.2
    for texts in ([text for text, _ in drawn], broken):
        right = [judge.topic(text) == topic for text, (_, topic) in zip(texts, drawn, strict=True)]
        assert sum(right) >= 0.95 * len(right)


def test_a_shuffled_text_keeps_its_topic_only_by_chance(judge, drawn):
    texts = [text for text, _ in drawn]
    assert judge.topic_kept(list(zip(texts, texts, strict=True))) == 1.0
    assert judge.topic_kept(list(zip(texts, texts[1:] + texts[:1], strict=True))) < 0.4


def test_nothing_is_no_topic(judge):
    assert judge.topic("") is None and judge.topic("xyzzy") is None


def test_the_command_reads_what_textvae_writes(drawn, tmp_path):
    rows = [{"source": text, "text": text} for text, _ in drawn[:5]]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, str(TOY / "measure.py")]
    done = subprocess.run(
        [*command, "--samples", path, "--reconstructions", path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["topic_kept"] == 1.0
    done = subprocess.run(
        [*command, "--samples", tmp_path / "none"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
