"""``textvae explain``: the gain of every token, against known answers and the metrics card."""

import itertools
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch

import textvae
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.explanation.explain import _donors
from textvae.evaluation.explanation.result import ExplainedText, Explanation
from textvae.text.decode.token_log_probs import token_log_probs
from textvae.text.tokenizers import train_tokenizer
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.posteriors import select

TEXTS = ["the dog sees a bird", "a cat", "the cat sees the tree", "a bird sees a dog"]


@pytest.fixture(scope="module")
def model(trained):
    return textvae.load(str(trained))


def test_the_tokens_add_up_to_the_likelihood_at_the_same_z(model):
    found = textvae.explain(model, TEXTS, draws=3, seed=5)
    q = model.encode(TEXTS, seed=5)
    (batch,) = model.batches(TEXTS, 8)
    own = torch.arange(len(TEXTS))
    with torch.no_grad():
        z = q.rsample(3, RowNoise(5, Purpose.LATENT, own))[:, batch.index]
        log_px = model.log_likelihood(batch, z).mean(0)  # (B,)
    for row, expected in zip(batch.index.tolist(), log_px.tolist(), strict=True):
        text = found.texts[row]
        assert text.words == [*TEXTS[row].split(), "</s>"]
        assert text.log_px.sum() == pytest.approx(expected, abs=1e-3)
        assert np.allclose(text.cost, text.gain - text.log_px)
    assert found.gain == pytest.approx(np.mean([text.gain.sum() for text in found.texts]))


def test_over_a_language_model_the_gain_is_that_over_its_likelihood(model, language_model):
    baseline = textvae.load(str(language_model))
    found = textvae.explain(model, TEXTS[:1], baseline=baseline)  # a single text will do
    exact = textvae.score(baseline, TEXTS[:1], samples=1)["elbo"][0]
    assert found.over_baseline
    assert -found.texts[0].cost.sum() == pytest.approx(exact, abs=1e-3)


class FirstWord:
    """A stepper whose z decides the first token, and which knows nothing about the others."""

    def __init__(self, z, vocab_size):
        self.size, self.z, self.vocab_size, self.steps = len(z), z, vocab_size, 0

    def step(self, tokens):
        self.steps += 1
        if self.steps > 1:
            return torch.zeros(len(tokens), self.vocab_size)
        return 3 * self.z[:, :1] * torch.arange(self.vocab_size)


def test_a_z_that_only_knows_the_first_word(model, monkeypatch):
    size = len(model.tokenizer)
    monkeypatch.setattr(model.decoder, "stepper", lambda z: FirstWord(z, size))
    found = textvae.explain(model, TEXTS, draws=2)
    for text in found.texts:
        assert np.allclose(text.gain[1:], 0, atol=1e-6)
        assert np.allclose(text.cost[1:], math.log(size), atol=1e-5)
    first, *others = found.by_position()
    assert first.name == "1" and first.gain == pytest.approx(found.gain)
    assert all(part.gain == pytest.approx(0, abs=1e-6) for part in others)
    own = model.encode(TEXTS).rsample(2, RowNoise(0, Purpose.LATENT, torch.arange(4)))  # (K, N, Z)
    donors = _donors(4, 4, 2, True, 0)
    other = torch.stack(
        [
            select(model.encode(TEXTS), donors[k]).rsample(
                1, RowNoise(0, Purpose.DONOR, torch.arange(4), k)
            )[0]
            for k in range(2)
        ]
    )
    words = torch.tensor([model.tokenizer.encode(text)[0] for text in TEXTS])
    log_p = [
        (3 * z[..., :1] * torch.arange(size)).log_softmax(-1)[:, torch.arange(4), words].mean(0)
        for z in (own, other)
    ]
    gains = [text.gain[0] for text in found.texts]
    assert np.allclose(gains, (log_p[0] - log_p[1]).tolist(), atol=1e-4)


@pytest.mark.parametrize(("given", "count", "draws"), [(5, 5, 4), (500, 500, 4), (500, 1, 32)])
def test_no_text_receives_its_own_z_or_the_same_one_twice(given, count, draws):
    for same in (True, False):
        if same and given != count:
            continue
        donors = _donors(given, count, draws, same, 3)
        assert donors.shape == (draws, count)
        assert all(len(set(column)) == draws for column in donors.t().tolist())
        assert not same or (donors != torch.arange(count)).all()


def test_the_gain_is_the_shuffle_gap_of_the_card(model, monkeypatch):
    size = len(model.tokenizer)
    monkeypatch.setattr(model.decoder, "stepper", lambda z: FirstWord(z, size))

    def log_prob(batch, z, token_share=None):
        flat = z.flatten(0, -2)
        x = batch.x.repeat(len(flat) // len(batch), 1)
        return token_log_probs(FirstWord(flat, size), x).sum(1).view(z.shape[:-1])

    monkeypatch.setattr(model.decoder, "log_prob", log_prob)
    texts = [" ".join(words) for words in itertools.product(("the", "a"), ("cat", "dog"), "ab")]
    found = textvae.explain(model, texts, draws=200)
    batches = list(model.counted_batches(texts, 4))
    cards = [textvae.evaluate(model, batches, samples=2, seed=seed) for seed in range(40)]
    gaps = np.array([card["shuffle_gap"] for card in cards])
    assert found.gain == pytest.approx(gaps.mean(), abs=4 * gaps.std() / 40**0.5)


def test_the_batch_size_does_not_change_a_text(model):
    alone = textvae.explain(model, TEXTS, others=TEXTS[2:], batch_size=1)
    together = textvae.explain(model, TEXTS, others=TEXTS[2:], batch_size=64)
    for one, other in zip(alone.texts, together.texts, strict=True):
        assert np.allclose(one.log_px, other.log_px, atol=1e-5)
        assert np.allclose(one.gain, other.gain, atol=1e-5)
    again = textvae.explain(model, TEXTS, others=TEXTS[2:], batch_size=64)
    assert np.array_equal(again.texts[0].gain, together.texts[0].gain)
    assert again.texts[0].gain.any()


def test_positions_words_and_shares_by_hand():
    end = "</s>"
    texts = [
        ExplainedText(["a", "b", end], np.array([-1.0, -2, -3]), np.array([1.0, 2, 0])),
        ExplainedText(["a"] * 5 + [end], -np.ones(6), np.array([3.0, 0, 0, 1, 0, 1])),
    ]
    found = Explanation(texts, 1)
    assert found.gain == 4
    parts = {part.name: part for part in found.by_position()}
    assert list(parts) == ["1", "2", "3", "4 to 5", end]
    assert parts["1"] == ("1", 2, 3.0, 2.0, 4 / 8)
    assert parts["4 to 5"] == ("4 to 5", 2, 1.5, 0.5, 1 / 8)
    assert parts[end] == (end, 2, 2.5, 0.5, 1 / 8)
    (word,) = found.by_word()
    assert (word.name, word.words, word.gain) == ("a", 6, pytest.approx(5 / 6))
    # b has 2 nats, and a 5/6 nats on average.
    assert [part.name for part in found.by_word(at_least=1)] == ["b", "a"]
    rare = [
        ExplainedText(["lucky"] * 2 + ["word"] * 4, -np.ones(6), np.array([9.0, 0, 2, 2, 2, 2]))
    ]
    assert [part.name for part in Explanation(rare, 1).by_word(at_least=2)] == ["word", "lucky"]
    assert found.gain_se == pytest.approx(1)  # of 3 and 5
    # 6 of the 8 nats, and 12 of the 20 nats that all tokens cost.
    assert found.in_words() == (
        "75% of the gain, and 60% of the cost without it, is in the first 3 words."
    )
    for gains in ([0.0], [-3.0], [], [9.0, -8.0]):  # nothing, a loss, no token, too uncertain
        texts = [ExplainedText(["a"], -np.ones(1), np.array([gain])) for gain in gains]
        none = Explanation(texts or [ExplainedText([end], -np.ones(1), np.zeros(1))], 1)
        assert none.by_position()[0].share is None and "too small or too uncertain" in str(none)


@pytest.mark.parametrize("kind", ["unigram", "char"])
def test_the_tokens_of_a_word_add_up_to_it(kind):
    words = train_tokenizer(TEXTS * 9, kind=kind, vocab_size=300)
    size = len(words)
    small = textvae.TextVAE(size, latent_dim=2, embedding_dim=4, encoder_hidden=4, decoder_hidden=4)
    small.tokenizer = words
    found = textvae.explain(small, TEXTS, unit="word")
    tokens = textvae.explain(small, TEXTS, unit="token")
    assert textvae.explain(small, TEXTS).unit == ("token" if kind == "char" else "word")
    assert "nats per word" in str(found) and "nats per token" in str(tokens)
    for text, whole, parts in zip(TEXTS, found.texts, tokens.texts, strict=True):
        assert whole.words == [*text.split(), "</s>"]
        assert "".join(whole.spelling) == f"{text} </s>"
        assert len(parts.words) == len(words.encode(text)) + 1
        assert whole.gain.sum() == pytest.approx(parts.gain.sum(), abs=1e-5)
        assert whole.log_px[-1] == pytest.approx(parts.log_px[-1])  # </s>
        ends = np.cumsum([count for _, count in words.words(words.encode(text))])
        starts = [0, *ends[:-1]]
        by_hand = [parts.gain[a:b].sum() for a, b in zip(starts, ends, strict=True)]
        assert np.allclose(whole.gain[:-1], by_hand, atol=1e-6)
    with pytest.raises(UserError, match="unit='letter': choose word or token"):
        textvae.explain(small, TEXTS, unit="letter")


def test_blanks_and_wide_characters_keep_the_columns():
    tokens = ["a", " ", "\n", "犬", "\x1b", "c"]
    text = str(ExplainedText(tokens, -np.ones(6), np.arange(6.0)))
    lines = text.splitlines()
    assert len(lines) == 3 and lines[0].split() == ["a", "␣", "\\n", "犬", "\ufffd", "c"]
    assert lines[0].index("c") + 1 == lines[2].index("5.0")  # 犬 takes two columns


def test_columns_fit_the_line_and_keep_their_words_together():
    words = [f"word{i}" for i in range(30)]
    text = str(ExplainedText(words, -np.ones(30), np.linspace(-1, 1, 30)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) % 3 == 0
    assert lines[0].split() == words[: len(lines[0].split())]
    assert lines[1].startswith("cost") and lines[2].startswith("gain")
    assert lines[2].index("-1.0") == lines[0].index("word0")


def test_the_command(trained, language_model, capsys):
    assert main(["explain", str(trained), "--limit", "20", "--draws", "2"]) == 0
    table = capsys.readouterr().out
    assert table.startswith(f"{trained.name}, test: 20 texts, z gains") and "position" in table
    assert main(["explain", str(trained), *TEXTS[:2], "--baseline", str(language_model)]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].split() == [*TEXTS[0].split(), "</s>"]
    assert "under the language model" in shown
    assert main(["explain", str(trained), TEXTS[0], "--json", "--limit", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["texts"][0]["words"] == [*TEXTS[0].split(), "</s>"] and found["count"] == 1
    assert found["over"] == "z of other texts"


def test_given_texts_with_a_baseline_need_no_data(trained, language_model, tmp_path, capsys):
    run, expected = tmp_path / "run", [str(trained), TEXTS[0], "--baseline", str(language_model)]
    assert main(["explain", *expected]) == 0
    shown = capsys.readouterr().out
    shutil.copytree(trained, run)
    config = run / "config.yaml"
    config.write_text(re.sub(r"dir: .*", "dir: /not/here", config.read_text()))
    given = [str(run), TEXTS[0], "--baseline", str(language_model)]
    assert main(["explain", *given]) == 0
    assert capsys.readouterr().out == shown
    assert main(["explain", *given, "--data", str(tmp_path)]) == 2
    assert "--data has no effect" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["language model", "baseline with z", "no texts"])
def test_what_cannot_be_explained_is_one_line(trained, language_model, capsys, kind):
    run, more, message = {
        "language model": (language_model, [], "no latent variable"),
        "baseline with z": (trained, ["--baseline", str(trained)], "a baseline is a language mod"),
        "no texts": (trained, ["--limit", "1"], "a single text has no other to take z from"),
    }[kind]
    assert main(["explain", str(run), *more]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_a_baseline_with_other_tokens_is_refused(model):
    other = textvae.TextVAE(50, latent_dim=0, injection="none", embedding_dim=4, decoder_hidden=4)
    other.tokenizer = textvae.CharTokenizer.train(["abc"])
    with pytest.raises(UserError, match="the baseline has another tokenizer"):
        textvae.explain(model, TEXTS, baseline=other)


class TwoWords:
    """A stepper whose first token is decided by dimension 0 of z, and the second by dimension 1."""

    def __init__(self, z, vocab_size):
        self.size, self.z, self.vocab_size, self.steps = len(z), z, vocab_size, 0

    def step(self, tokens):
        self.steps += 1
        if self.steps > 2:
            return torch.zeros(len(tokens), self.vocab_size)
        return self.z[:, self.steps - 1, None] * torch.arange(self.vocab_size)


def test_a_dimension_gains_where_the_decoder_reads_it(model, monkeypatch):
    size = len(model.tokenizer)
    monkeypatch.setattr(model.decoder, "stepper", lambda z: TwoWords(z, size))
    whole = textvae.explain(model, TEXTS)
    for place in range(2):
        found = textvae.explain(model, TEXTS, dimension=place)
        assert found.dimensions == [place] and f"dimension {place} of z gains" in str(found)
        for text, all_of_z in zip(found.texts, whole.texts, strict=True):
            others = np.delete(text.gain, place)
            assert np.allclose(others, 0, atol=1e-6)
            assert text.gain[place] == pytest.approx(all_of_z.gain[place], abs=1e-4)
    both = textvae.explain(model, TEXTS, dimension=[0, 1])
    assert both.gain == pytest.approx(whole.gain, abs=1e-4)
    assert "dimensions 0 and 1 of z gain " in str(both)


def test_what_no_dimension_can_explain(model, trained, language_model, capsys):
    baseline = textvae.load(str(language_model))
    with pytest.raises(UserError, match=f"dimension 99: this model has {model.latent_dim}"):
        textvae.explain(model, TEXTS, dimension=99)
    with pytest.raises(UserError, match="a baseline replaces z itself: give no dimension"):
        textvae.explain(model, TEXTS, dimension=0, baseline=baseline)
    for nothing in ([], (), np.array([], dtype=int)):
        with pytest.raises(UserError, match="give at least one dimension"):
            textvae.explain(model, TEXTS, dimension=nothing)
    assert textvae.explain(model, TEXTS, dimension=[1, 1]).dimensions == [1]
    assert main(["explain", str(trained), "--dim", "0", "1", "--limit", "20"]) == 0
    assert "dimensions 0 and 1 of z" in capsys.readouterr().out


def test_what_is_explained_may_be_anything_like_a_list(model, language_model):
    found = textvae.explain(model, iter(TEXTS[:2]), others=iter(TEXTS[2:]))
    again = textvae.explain(model, np.array(TEXTS[:2]), others=np.array(TEXTS[2:]))
    assert np.array_equal(found.texts[1].gain, again.texts[1].gain)
    assert "too small or too uncertain" in str(textvae.explain(model, ["", ""]))
    baseline = textvae.load(str(language_model))
    with pytest.raises(UserError, match="no other texts"):
        textvae.explain(model, TEXTS, others=TEXTS, baseline=baseline)
    with pytest.raises(UserError, match="there is no text to explain"):
        textvae.explain(model, [], others=TEXTS)


def test_a_baseline_predicts_in_evaluation_mode(model, language_model):
    baseline = textvae.load(str(language_model))
    expected = textvae.explain(model, TEXTS, baseline=baseline).gain
    layer = torch.nn.Dropout(0.5)
    stepper = baseline.decoder.stepper

    class Dropped:
        def __init__(self, z):
            self.inner, self.size = stepper(z), len(z)

        def step(self, tokens):
            return layer(self.inner.step(tokens))

    baseline.decoder.stepper = Dropped
    baseline.decoder.layer = layer
    baseline.train()
    assert textvae.explain(model, TEXTS, baseline=baseline).gain == pytest.approx(expected)
    assert layer.training
