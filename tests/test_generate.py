"""Generation: seeds, batches, beams against brute force, specials."""

import itertools
import math

import pytest
import torch

from textvae.errors import UserError
from textvae.text.decode.generate import draw, generate, invert
from textvae.text.nn.lstm import LSTMDecoder
from textvae.text.tokenizers import BOS, EOS, PAD, UNK
from textvae.vae.noise import between, normal_rows, uniform_rows

INJECTIONS = ("none", "init", "input", "skip")


def decoder(vocab=40, injection="skip", layers=2, scale=0.6, hidden=24, seed=0):
    torch.manual_seed(seed)
    made = LSTMDecoder(vocab, 4, injection, hidden, hidden, layers)
    for parameter in made.parameters():
        torch.nn.init.uniform_(parameter, -scale, scale)
    return made


def in_batches(model, z, size, **options):
    parts = [
        generate(model, rows, first_row=start, **options)
        for start, rows in zip(range(0, len(z), size), z.split(size), strict=True)
    ]
    width = max(part.size(1) for part in parts)
    pad = torch.nn.functional.pad
    return torch.cat([pad(part, (0, width - part.size(1)), value=PAD) for part in parts])


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True},
        {"do_sample": True, "top_k": 5, "temperature": 0.7},
        {"do_sample": True, "top_p": 0.8},
        {"num_beams": 3},
    ],
    ids=lambda options: "-".join(options) or "greedy",
)
def test_result_does_not_depend_on_the_batch_size(injection, options):
    model, z = decoder(injection=injection), normal_rows(45, 4, seed=1)
    whole = generate(model, z, max_new_tokens=15, seed=3, **options)
    for size in (1, 7, 32):
        assert torch.equal(in_batches(model, z, size, max_new_tokens=15, seed=3, **options), whole)


def test_seed_decides_the_sentences():
    model, z = decoder(), normal_rows(8, 4, seed=1)
    options = {"max_new_tokens": 15, "do_sample": True}
    first = generate(model, z, seed=0, **options)
    assert torch.equal(first, generate(model, z, seed=0, **options))
    assert not torch.equal(first, generate(model, z, seed=1, **options))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    generate(model, z, seed=0, **options)
    assert torch.equal(before, torch.random.get_rng_state())


def test_rows_have_streams_of_their_own():
    assert torch.equal(normal_rows(9, 5, 3)[4:], normal_rows(5, 5, 3, first_row=4))
    draws = normal_rows(4000, 5, 0)
    assert draws.mean().abs() < 0.03 and (draws.std() - 1).abs() < 0.03
    assert torch.corrcoef(draws.t()).fill_diagonal_(0).abs().max() < 0.06
    uniforms = uniform_rows(4000, 2, 0)
    assert (uniforms.mean() - 0.5).abs() < 0.02
    assert not torch.equal(normal_rows(1, 5, 0, 1), normal_rows(1, 5, 1, 0))


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 3}])
def test_form_of_the_result(options):
    model, z = decoder(), normal_rows(40, 4, seed=2)
    ids = generate(model, z, max_new_tokens=9, **options)
    assert ids.dtype == torch.long and ids.shape[0] == 40 and ids.shape[1] <= 9
    assert not torch.isin(ids, torch.tensor([UNK, BOS])).any()
    for row in ids.tolist():
        end = row.index(EOS) if EOS in row else len(row) - 1
        assert PAD not in row[: end + 1] and set(row[end + 1 :]) <= {PAD}


def test_unk_is_generated_only_when_asked():
    model, z = decoder(), normal_rows(20, 4, seed=2)
    with torch.no_grad():
        model.output.bias[UNK] = 10.0
    for options in ({}, {"do_sample": True}, {"num_beams": 2}):
        plain = generate(model, z, max_new_tokens=6, **options)
        asked = generate(model, z, max_new_tokens=6, allow_unk=True, **options)
        assert not (plain == UNK).any() and (asked == UNK).any()


def test_empty_input_and_errors():
    model = decoder()
    assert generate(model, torch.empty(0, 4), max_new_tokens=5).shape == (0, 0)
    wrong = {"temperature": 0.0, "top_k": -1, "top_p": 0.0, "num_beams": 0, "max_new_tokens": 0}
    for name, value in wrong.items():
        with pytest.raises(UserError, match=name):
            generate(model, torch.zeros(1, 4), **({"max_new_tokens": 5} | {name: value}))
    with pytest.raises(UserError, match="num_beams"):
        generate(model, torch.zeros(1, 4), max_new_tokens=5, num_beams=2, do_sample=True)


def test_greedy_takes_the_likeliest_word():
    model, z = decoder(), normal_rows(6, 4, seed=4)
    ids = generate(model, z, max_new_tokens=8)
    tokens, state = torch.full((6,), BOS), model.initial_state(z)
    model.eval()
    for t in range(ids.size(1)):
        logits, state = model.step(tokens, state)
        logits[:, [PAD, UNK, BOS]] = -math.inf
        running = ids[:, t] != PAD
        assert torch.equal(logits.argmax(1)[running], ids[running, t])
        tokens = ids[:, t]


def test_one_beam_and_one_candidate_are_greedy():
    model, z = decoder(), normal_rows(12, 4, seed=4)
    greedy = generate(model, z, max_new_tokens=10)
    assert torch.equal(generate(model, z, max_new_tokens=10, num_beams=1), greedy)
    for options in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}):
        drawn = generate(model, z, max_new_tokens=10, do_sample=True, **options)
        assert torch.equal(drawn, greedy)


def log_p(model, sentence, z):
    """log p of a sentence that may lack its end, the specials renormalised away."""
    total, state, token = 0.0, model.initial_state(z), BOS
    for word in sentence:
        logits, state = model.step(torch.tensor([token]), state)
        logits[:, [PAD, UNK, BOS]] = -math.inf
        total, token = total + float(torch.log_softmax(logits, 1)[0, word]), word
    return total


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -1.0])
def test_many_beams_find_what_brute_force_finds(penalty):
    model, z = decoder(vocab=7, layers=1, scale=1.5, hidden=6).eval(), normal_rows(4, 4, seed=0)
    words, longest = (4, 5, 6), 3
    every = [
        (*start, EOS) for size in range(longest) for start in itertools.product(words, repeat=size)
    ] + list(itertools.product(words, repeat=longest))
    found = generate(model, z, max_new_tokens=longest, num_beams=40, length_penalty=penalty)
    with torch.no_grad():
        for row, ids in zip(z, found.tolist(), strict=True):
            best = max(every, key=lambda s: log_p(model, s, row[None]) / len(s) ** penalty)
            assert tuple(i for i in ids if i != PAD) == best


def test_more_beams_find_likelier_sentences():
    model, z = decoder(scale=1.0).eval(), normal_rows(10, 4, seed=0)
    means = []
    for beams in (1, 2, 8):
        found = generate(model, z, max_new_tokens=8, num_beams=beams, length_penalty=0.0)
        with torch.no_grad():
            scores = [
                log_p(model, [i for i in ids if i != PAD], row[None])
                for row, ids in zip(z, found.tolist(), strict=True)
            ]
        means.append(sum(scores) / len(scores))
    assert means[0] < means[1] < means[2]


def test_inverse_distribution_function():
    for vocab in (5, 128, 300, 1000):
        weights = torch.rand(64, vocab)
        weights[:, [0, 2, vocab - 1]] = 0.0
        for uniforms in (
            torch.rand(64).double(),
            torch.zeros(64).double(),
            1 - torch.full((64,), 2.0**-53).double(),
        ):
            found = invert(weights, uniforms)
            cdf = weights.double().cumsum(1)
            target = uniforms[:, None] * cdf[:, -1:]
            low = (cdf - weights).gather(1, found[:, None])
            high = cdf.gather(1, found[:, None])
            slack = 1e-6 * vocab  # block sums are in single precision
            assert (low <= target + slack).all() and (target <= high + slack).all()
            assert (weights.gather(1, found[:, None]) > 0).all()


def test_draws_follow_the_filtered_distribution():
    logits = torch.tensor([0.5, 2.0, -1.0, 1.0, 0.0, 1.5])
    p = torch.softmax(logits, 0)
    order = p.argsort(descending=True)
    cases = {
        (0, 1.0): set(range(6)),
        (3, 1.0): set(order[:3].tolist()),
        (0, 0.7): set(order[:3].tolist()),  # 0.43 + 0.26 < 0.7 <= 0.43 + 0.26 + 0.16
        (2, 0.6): {1},  # after top_k the first word alone has 0.62
        (9, 1.0): set(range(6)),
    }
    uniforms = (torch.arange(20000).double() + 0.5) / 20000
    for (top_k, top_p), kept in cases.items():
        words = draw(logits.repeat(20000, 1), uniforms, top_k, top_p)
        share = torch.bincount(words, minlength=6) / 20000
        expected = p * torch.tensor([float(i in kept) for i in range(6)])
        assert torch.allclose(share, expected / expected.sum(), atol=1e-3)


def test_decoding_works_on_a_model_in_training_and_leaves_it_there():
    model, z = decoder().train(), normal_rows(6, 4, seed=4)
    trained = generate(model, z, max_new_tokens=8)
    assert model.training
    assert torch.equal(trained, generate(model.eval(), z, max_new_tokens=8))
    model.train()
    model.token_nll(torch.nn.functional.pad(trained, (1, 0), value=BOS).t(), z).sum().backward()


def test_bf16_autocast():
    model, z = decoder(), normal_rows(20, 4, seed=4)
    options = {"max_new_tokens": 8, "do_sample": True}
    with torch.autocast("cpu", torch.bfloat16):
        whole = generate(model, z, **options)
        assert torch.equal(in_batches(model, z, 6, **options)[:, : whole.size(1)], whole)


def test_between():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    line = between(a, b, 3, "linear")
    assert torch.allclose(line, torch.tensor([[2.0, 0.0], [1.0, 0.5], [0.0, 1.0]]))
    arc = between(a, b, 3, "spherical")
    assert torch.allclose(arc[[0, 2]], line[[0, 2]], atol=1e-6)
    assert torch.allclose(arc[1], torch.full((2,), 1.5 / math.sqrt(2)))
    for c in (a, 2 * a, -a, 0 * a):
        assert torch.isfinite(between(a, c, 4, "spherical")).all()
    with pytest.raises(UserError, match="linear or spherical"):
        between(a, b, 3, "cubic")
