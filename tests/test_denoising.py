"""Noise on the sentences that the encoder reads: what it changes, and what it must not."""

import copy
import signal
from itertools import pairwise

import pytest
import torch
from test_train import STATEFUL, assert_same_run, kill_at_update, resume, state, train

from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.text.data.batches import text_batch
from textvae.text.model import TextVAE
from textvae.text.nn.input_noise import REACH, add_noise
from textvae.text.tokenizers import EOS, PAD, UNK

KINDS = ("delete", "mask", "shuffle", "blank")
WORDS = [[], [10], [10, 11], list(range(20, 60)), list(range(10, 410))]


def sentences() -> tuple[torch.Tensor, torch.Tensor]:
    """Sentences whose words are consecutive numbers: 0, 1, 2, 40, and 400 of them."""
    batch = text_batch([torch.tensor(words, dtype=torch.long) for words in WORDS], range(5))
    return batch.x[:, 1:], batch.lengths


def noisy(kind: str, rate: float, seed: int = 0) -> list[list[int]]:
    """The words that are left; checks the end and the padding."""
    torch.manual_seed(seed)
    tokens, lengths = sentences()
    given = tokens.clone()
    found, left = add_noise(tokens, lengths, kind, rate)
    assert torch.equal(tokens, given) and found.shape == given.shape
    assert left.dtype == lengths.dtype and bool((left <= lengths).all() and (left >= 1).all())
    for row, length in zip(found, left, strict=True):
        assert row[length - 1] == EOS
        assert not {EOS, PAD} & set(row[: length - 1].tolist())
        assert bool((row[length:] == PAD).all())
    return [row[: length - 1].tolist() for row, length in zip(found, left, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_rate_of_0_changes_nothing(kind, seed):
    assert noisy(kind, 0.0, seed) == WORDS


@pytest.mark.parametrize("seed", range(20))
def test_deleted_words_are_gone_and_one_is_left(seed):
    for before, after in zip(WORDS, noisy("delete", 0.3, seed), strict=True):
        assert after == [word for word in before if word in after]
        assert bool(after) == bool(before)
    assert [len(after) for after in noisy("delete", 0.999, seed)][:3] == [0, 1, 1]


def test_a_rate_is_a_rate():
    kept = [len(noisy("delete", 0.3, seed)[4]) / 400 for seed in range(50)]
    assert sum(kept) / 50 == pytest.approx(0.7, abs=0.015)
    masked = [noisy("mask", 0.3, seed)[4].count(UNK) / 400 for seed in range(50)]
    assert sum(masked) / 50 == pytest.approx(0.3, abs=0.015)


def test_masked_words_keep_their_place():
    for before, after in zip(WORDS, noisy("mask", 0.5), strict=True):
        assert len(before) == len(after)
        assert all(b in (a, UNK) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_blanks_are_spans(seed):
    after = noisy("blank", 0.5, seed)[4]
    words = [word for word in after if word != UNK]
    assert words == sorted(words)
    expected: list[int] = []
    for last, word in pairwise([9, *words, 410]):  # one <unk> wherever words are missing
        expected += [word] if word == last + 1 else [UNK, word]
    assert after == expected[:-1]
    assert 70 < after.count(UNK) < 400 - len(words)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_words_stay_near(seed):
    for rate in (0.2, 0.999):
        for before, after in zip(WORDS, noisy("shuffle", rate, seed), strict=True):
            assert sorted(after) == before
            assert all(abs(before.index(w) - i) <= REACH for i, w in enumerate(after))
    moved = [abs(w - 10 - i) for i, w in enumerate(noisy("shuffle", 0.999, seed)[4])]
    assert max(moved) == REACH and sum(map(bool, moved)) > 200


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_a_function_of_the_seed(kind):
    assert noisy(kind, 0.4, 1) == noisy(kind, 0.4, 1) != noisy(kind, 0.4, 2)


def test_unknown_noise_is_refused():
    with pytest.raises(ValueError, match="noise 'swap'"):
        add_noise(*sentences(), "swap", 0.1)


SIZES = {"embedding_dim": 6, "encoder_hidden": 6, "decoder_hidden": 6, "latent_dim": 3}
BATCH = text_batch([torch.arange(4, 30), torch.arange(5, 8), torch.tensor([4])], range(3))


def model(**options) -> TextVAE:
    torch.manual_seed(0)
    plain = {"dropout_in": 0.0, "dropout_out": 0.0}
    return TextVAE(40, **SIZES, **plain, **options)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_encoder_and_only_in_training(kind, bidirectional):
    clean = model(bidirectional=bidirectional)
    denoising = model(bidirectional=bidirectional, encoder_noise=kind, encoder_noise_rate=0.5)
    assert clean.state_dict().keys() == denoising.state_dict().keys()
    for mode in (False, True):
        posteriors = [m.train(mode).posterior(BATCH).mean for m in (clean, denoising)]
        assert torch.equal(*posteriors) is not mode
    z = torch.randn(2, 3, 3)
    assert torch.equal(clean.log_likelihood(BATCH, z), denoising.log_likelihood(BATCH, z))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_deleted_word_is_as_if_it_had_never_been_there(bidirectional):
    denoising = model(bidirectional=bidirectional, encoder_noise="delete", encoder_noise_rate=0.5)
    torch.manual_seed(3)
    tokens, lengths = add_noise(BATCH.x[:, 1:], BATCH.lengths, "delete", 0.5)
    left = [row[: length - 1] for row, length in zip(tokens, lengths, strict=True)]
    expected = copy.deepcopy(denoising).eval().posterior(text_batch(left, range(3)))
    torch.manual_seed(3)
    found = denoising.train().posterior(BATCH)
    torch.testing.assert_close(found.mean, expected.mean)


def test_without_noise_nothing_is_drawn():
    plain = model().train()
    before = torch.get_rng_state()
    plain.posterior(BATCH)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_needs_an_encoder_and_words():
    for options in ({"latent_dim": 0, "injection": "none"}, {"encoder_layers": 0}):
        with pytest.raises(UserError, match="encoder_noise mask needs an encoder"):
            TextVAE(40, **SIZES | options, encoder_noise="mask")
    with pytest.raises(UserError, match="encoder_noise does not apply if"):
        Config.load(data={"kind": "images"}, model={"encoder_noise": "mask"})


def test_noise_and_a_learned_multiplier_resume_bit_for_bit(tiny, tmp_path):
    options = [*tiny, *STATEFUL, "--model.encoder_noise", "blank", "--objective.min_kl", "2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(whole, options) == 0
    assert train(killed, options, before=kill_at_update(7)) == -signal.SIGKILL
    assert float(state(killed)["objective"]["multiplier"]) > 0
    assert resume(killed) == 0
    assert_same_run(whole, killed)


def test_at_a_low_rate_a_few_words_move_rather_than_all_a_little():
    found = [noisy("shuffle", 0.2, seed)[4] for seed in range(5)]
    assert any(word - 10 != place for words in found for place, word in enumerate(words))
