"""Batches: which rows, in what order, how much padding, and a position that can be saved."""

import json
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textvae.text.data.batches import text_batch, token_ids
from textvae.text.data.corpus import encode_corpus, read_corpus
from textvae.text.tokenizers import WordTokenizer
from textvae.vae.batching import BatchLoader, LengthBuckets

LENGTHS = st.lists(st.integers(1, 40), min_size=4, max_size=120)


def realistic_lengths(mean: float, count: int) -> np.ndarray:
    """Sentence lengths distributed as in PTB: a gamma distribution with mean 22."""
    draws = np.random.default_rng(0).gamma(4.0, mean / 4, count)
    return np.maximum(2, draws.round()).astype(int)


@pytest.fixture
def split(tmp_path):
    words = [f"w{i}" for i in range(30)]
    lines = [" ".join(words[: 1 + i % 7]) for i in range(50)]
    (tmp_path / "train.txt").write_text("".join(f"{i % 3}\t{t}\n" for i, t in enumerate(lines)))
    (tmp_path / "valid.txt").write_text("0\tw1\n")
    corpus = read_corpus(tmp_path, cache_dir=tmp_path / "cache")
    return encode_corpus(corpus, WordTokenizer(words), cache_dir=tmp_path / "cache")["train"]


@given(
    LENGTHS,
    st.integers(1, 9) | st.none(),
    st.integers(10, 200) | st.none(),
    st.booleans(),
    st.integers(1, 4),
)
@settings(deadline=None)
def test_every_row_once_within_the_limits_over_all_replicas(
    lengths, batch_size, max_tokens, equal, replicas
):
    if batch_size is None and max_tokens is None:
        batch_size = 3
    ranks = [
        LengthBuckets(lengths, batch_size, max_tokens, equal, 7, replicas, rank)
        for rank in range(replicas)
    ]
    for plans in ([r.epoch(3) for r in ranks], [r.sequential() for r in ranks]):
        assert len({len(plan) for plan in plans}) == 1
        batches = [rows for plan in plans for rows in plan]
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        if replicas > 1 and max(map(len, batches)) <= 2:
            continue  # single rows may have been paired so that all ranks get equally many
        for rows in batches:
            found = np.array(lengths)[rows]
            assert batch_size is None or len(rows) <= batch_size
            assert max_tokens is None or len(rows) == 1 or found.max() * len(rows) <= max_tokens
            assert not equal or len(set(found)) == 1


@given(LENGTHS, st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None)
def test_an_epoch_is_a_pure_function_of_seed_and_epoch(lengths, seed, epoch):
    buckets = LengthBuckets(lengths, 4, seed=seed)
    first = buckets.epoch(epoch)
    buckets.epoch(epoch + 1)
    for again in (buckets.epoch(epoch), LengthBuckets(lengths, 4, seed=seed).epoch(epoch)):
        assert [rows.tolist() for rows in again] == [rows.tolist() for rows in first]


def test_single_rows_that_do_not_divide_among_replicas_go_in_pairs():
    plans = [LengthBuckets([5, 1, 2, 9], 1, num_replicas=3, rank=r).sequential() for r in range(3)]
    assert [[rows.tolist() for rows in plan] for plan in plans] == [[[1, 2]], [[0]], [[3]]]


def test_epochs_and_seeds_differ():
    lengths = realistic_lengths(22, 500)
    plans = [
        [rows.tolist() for rows in LengthBuckets(lengths, 8, seed=seed).epoch(epoch)]
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert plans[0] != plans[1] != plans[2] != plans[0]
    assert len({len(plan) for plan in plans}) == 1


def padding_share(buckets: LengthBuckets, batches: list[np.ndarray]) -> float:
    """Fraction of the tokens in these batches that are padding."""
    real = sum(int(buckets.lengths[rows].sum()) for rows in batches)
    padded = sum(int(buckets.lengths[rows].max()) * len(rows) for rows in batches)
    return 1 - real / padded


def test_batches_cut_by_hand():
    buckets = LengthBuckets([3, 1, 2, 5, 4], batch_size=2)
    assert [rows.tolist() for rows in buckets.sequential()] == [[3], [0, 4], [1, 2]]
    by_tokens = LengthBuckets([3, 1, 2, 5, 4, 30], batch_size=None, max_tokens=8)
    assert [rows.tolist() for rows in by_tokens.sequential()] == [[5], [3], [0, 4], [1, 2]]
    assert padding_share(buckets, buckets.sequential()) == pytest.approx(1 - 15 / (2 * 2 + 8 + 5))


@pytest.mark.parametrize("batch_size", [None, 1, 7])
@pytest.mark.parametrize("equal_length", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 40, 500])
def test_batches_are_as_large_as_the_limits_allow(batch_size, equal_length, max_tokens):
    lengths = np.sort(realistic_lengths(9, 300))
    buckets = LengthBuckets(lengths, batch_size, max_tokens=max_tokens, equal_length=equal_length)
    expected: list[list[int]] = []
    for row, length in enumerate(lengths):
        last = expected[-1] if expected else []
        fits = last and (len(last) + 1) * length <= max_tokens
        fits = fits and (batch_size is None or len(last) < batch_size)
        if fits and not (equal_length and lengths[last[0]] != length):
            last.append(row)
        else:
            expected.append([row])
    assert [rows.tolist() for rows in buckets.sequential()[::-1]] == expected


def test_almost_no_padding():
    lengths = realistic_lengths(22, 42_068)
    buckets = LengthBuckets(lengths, 32)
    assert padding_share(buckets, buckets.epoch(0)) < 0.01
    exact = LengthBuckets(lengths, 32, equal_length=True)
    assert padding_share(exact, exact.epoch(0)) == 0


def test_replicas_get_batches_of_similar_length_at_each_step():
    lengths = realistic_lengths(22, 4_000)
    plans = [LengthBuckets(lengths, 16, num_replicas=2, rank=r).epoch(0) for r in range(2)]
    gaps = [abs(lengths[a].max() - lengths[b].max()) for a, b in zip(*plans, strict=True)]
    assert np.mean(gaps) < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": None}, "batch_size or max_tokens"),
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"num_replicas": 2, "rank": 2}, "rank 2 of 2"),
        ({"num_replicas": 4}, "3 rows cannot feed 4"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LengthBuckets([1, 2, 3], **options)


def test_a_batch_by_hand(split):
    batch = split.batch(np.array([2, 0]))
    assert batch.x.tolist() == [[2, 4, 5, 6, 3], [2, 4, 3, 0, 0]]
    assert batch.lengths.tolist() == [4, 2]
    assert batch.units.tolist() == [4, 2]
    assert batch.num_bytes.tolist() == [8, 2]
    assert batch.index.tolist() == [2, 0]
    assert batch.labels.tolist() == [2, 0]


def test_texts_give_the_same_batch_as_the_rows_of_a_split(split):
    texts = [split.caption(i) for i in (5, 0)]
    ids = token_ids(texts, WordTokenizer([f"w{i}" for i in range(30)]), max_length=30)
    mine, theirs = text_batch(ids, [0, 1]), split.batch(np.array([5, 0]))
    for name in ("x", "lengths", "units", "num_bytes", "index"):
        assert getattr(mine, name).dtype == getattr(theirs, name).dtype
    for name in ("x", "lengths"):
        assert getattr(mine, name).tolist() == getattr(theirs, name).tolist()
    assert mine.index.tolist() == [0, 1]
    assert mine.units.tolist() == mine.num_bytes.tolist() == [0, 0]
    assert mine.labels is None


def test_a_batch_from_tensors_or_arrays():
    tensors, arrays = [torch.tensor([7, 8]), torch.tensor([9])], [np.array([7, 8]), np.array([9])]
    for ids in (tensors, arrays):
        batch = text_batch(ids, torch.tensor([4, 2]), labels=[1, 0])
        assert batch.x.tolist() == [[2, 7, 8, 3], [2, 9, 3, 0]]
        assert batch.index.tolist() == [4, 2] and batch.labels.tolist() == [1, 0]


def test_long_texts_are_cut_with_a_warning(caplog):
    tokenizer = WordTokenizer(["a", "b"])
    ids = token_ids(["a b a", "", "b"], tokenizer, max_length=2)
    assert [sentence.tolist() for sentence in ids] == [[4, 5], [], [5]]
    assert "1 of 3 texts cut to 2 tokens" in caplog.text
    assert text_batch(ids, [0, 1, 2]).x.tolist() == [[2, 4, 5, 3], [2, 3, 0, 0], [2, 5, 3, 0]]


@pytest.mark.parametrize("stop_after", [1, 5, 12, 13, 20])
def test_a_restored_position_continues_identically(split, stop_after):
    def run(loader, count):
        seen = []
        while len(seen) < count:
            for batch in loader:
                seen.append(batch.x.tolist())
                if len(seen) == count:
                    break
        return seen

    buckets = LengthBuckets(split.lengths, 4, seed=3)
    straight = run(BatchLoader(split, buckets), 30)
    first = BatchLoader(split, buckets)
    head = run(first, stop_after)
    state = json.loads(json.dumps(first.state_dict()))
    second = BatchLoader(split, LengthBuckets(split.lengths, 4, seed=3))
    second.load_state_dict(state)
    assert head + run(second, 30 - stop_after) == straight


def test_iterating_yields_one_epoch_then_the_next(split):
    loader = BatchLoader(split, LengthBuckets(split.lengths, 4))
    assert len(loader) == 13
    first = sorted(i for batch in loader for i in batch.index.tolist())
    assert first == list(range(50))
    assert loader.state_dict() == {"epoch": 1, "next_batch": 0}


def test_a_position_that_does_not_fit_is_refused(split):
    loader = BatchLoader(split, LengthBuckets(split.lengths, 32))
    with pytest.raises(ValueError, match="position 12 in an epoch of 2"):
        loader.load_state_dict({"epoch": 0, "next_batch": 12})


def test_fetching_and_padding_takes_well_under_a_millisecond(split):
    rows = np.arange(32)
    split.batch(rows)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        split.batch(rows)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 1e-3


def test_neither_batches_nor_rows_of_one_length_are_in_order():
    lengths = np.repeat([3, 9], 40)
    batches = LengthBuckets(lengths, 4, seed=0).epoch(0)
    means = [lengths[rows].mean() for rows in batches]
    assert means != sorted(means)
    assert any(np.ptp(rows) > 3 for rows in batches)
