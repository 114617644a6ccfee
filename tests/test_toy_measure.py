"""data/toy/measure.py: the grammar recognizes its own texts, and their topics."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

import textvae
from textvae.config.experiment import DataConfig, ModelConfig, TrainConfig

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
    texts = [text for text, _ in drawn]
    assert judge.derivable(texts) == 1.0 and judge.known_pairs(texts) == 1.0
    assert judge.derivable([*texts, "a sentence of a different grammar"] * 2) == 60 / 61
    assert judge.known_pairs(["? ?"]) < 0.5


def test_a_topic_is_recognized_even_in_broken_text(judge, drawn):
    rng = random.Random(1)
    broken = []
    for text, _ in drawn:
        words = text.split()
        words[rng.randrange(len(words))] = "the"
        broken.append(" ".join(words))
    assert judge.derivable(broken) < 0.2
    for texts in ([text for text, _ in drawn], broken):
        right = [judge.topic(text) == topic for text, (_, topic) in zip(texts, drawn, strict=True)]
        assert sum(right) >= 0.95 * len(right)


def test_a_shuffled_text_keeps_its_topic_only_by_chance(judge, drawn):
    texts = [text for text, _ in drawn]
    assert judge.topic_kept(list(zip(texts, texts, strict=True))) == 1.0
    assert judge.topic_kept(list(zip(texts, texts[1:] + texts[:1], strict=True))) < 0.4


def test_nothing_is_no_topic(judge):
    assert judge.topic("") is None and judge.topic("xyzzy") is None


def test_a_text_of_two_topics_has_none(judge):
    only = {word: topics for word, topics in judge.topics_of_word.items() if len(topics) == 1}
    first = next(iter(sorted(only)))
    other = next(word for word in sorted(only) if only[word] != only[first])
    assert judge.topic(f"{first} {first} {other}") in only[first]
    assert judge.topic(f"{first} {other}") is judge.topic(f"{other} {first}") is None


def test_the_command_measures_runs(tmp_path, capsys):
    corpus = tmp_path / "corpus"
    prepare = [sys.executable, str(TOY / "prepare.py"), "--out", str(corpus)]
    sizes = ["--train", "60", "--valid", "10", "--test", "10"]
    subprocess.run([*prepare, *sizes], check=True, capture_output=True)
    runs = []
    for latent_dim in (2, 0):
        config = textvae.Config(
            data=DataConfig(dir=str(corpus), tokenized=True),
            model=ModelConfig(
                latent_dim=latent_dim,
                injection="skip" if latent_dim else "none",
                embedding_dim=4,
                encoder_hidden=4,
                decoder_hidden=4,
            ),
            train=TrainConfig(max_steps=1, samples=0),
        )
        runs.append(str(tmp_path / f"run{latent_dim}"))
        textvae.train(config, runs[-1])
    textvae.fit_sampler(runs[0])
    assert measure.main([*runs, "--count", "5"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].count("|") == table[1].count("|") == table[3].count("|") == 9
    assert table[2].startswith("| run2 | ") and "–" not in table[2]
    assert table[3].startswith("| run0 | – | – | – |")
    for wrong, reason in (
        ([str(tmp_path / "none")], "none"),
        ([runs[0], "--data", str(TOY)], "test.jsonl: No such file"),
    ):
        assert measure.main(wrong) == 2
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1 and reason in error[0]
