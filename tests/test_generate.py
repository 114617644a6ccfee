"""Generation: seeds, batches, beams against brute force, special tokens, any decoder."""

import itertools
import math

import pytest
import torch
from torch import nn

from textvae.errors import UserError
from textvae.text.decode.beam import beam_search
from textvae.text.decode.generate import draw, generate, invert
from textvae.text.nn.decoder import LSTMDecoder
from textvae.text.tokenizers import BOS, EOS, PAD, UNK
from textvae.vae.interpolation import between
from textvae.vae.noise import Purpose, RowNoise

INJECTIONS = ("none", "init", "input", "skip")


def decoder(vocab=40, injection="skip", layers=2, scale=0.6, hidden=24, seed=0):
    torch.manual_seed(seed)
    made = LSTMDecoder(vocab, 4, injection, hidden, hidden, layers)
    for parameter in made.parameters():
        torch.nn.init.uniform_(parameter, -scale, scale)
    return made


def latents(count, seed):
    return RowNoise(seed, Purpose.LATENT, range(count)).normal(1, 4)[0]


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
    model, z = decoder(injection=injection), latents(45, seed=1)
    whole = generate(model, z, max_new_tokens=15, seed=3, **options)
    for size in (1, 7, 32):
        assert torch.equal(in_batches(model, z, size, max_new_tokens=15, seed=3, **options), whole)


def test_seed_decides_the_sentences():
    model, z = decoder(), latents(8, seed=1)
    options = {"max_new_tokens": 15, "do_sample": True}
    first = generate(model, z, seed=0, **options)
    assert torch.equal(first, generate(model, z, seed=0, **options))
    assert not torch.equal(first, generate(model, z, seed=1, **options))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    generate(model, z, seed=0, **options)
    assert torch.equal(before, torch.random.get_rng_state())


def test_rows_have_independent_streams():
    model, z = decoder(), latents(9, seed=3)
    options = {"max_new_tokens": 15, "do_sample": True, "seed": 3}
    whole = generate(model, z, **options)
    rest = generate(model, z[4:], first_row=4, **options)
    assert torch.equal(whole[4:, : rest.size(1)], rest)
    assert not torch.equal(generate(model, z[4:], **options), rest)


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 3}])
def test_form_of_the_result(options):
    model, z = decoder(), latents(40, seed=2)
    ids = generate(model, z, max_new_tokens=9, **options)
    assert ids.dtype == torch.long and ids.shape[0] == 40 and ids.shape[1] <= 9
    assert not torch.isin(ids, torch.tensor([UNK, BOS])).any()
    for row in ids.tolist():
        end = row.index(EOS) if EOS in row else len(row) - 1
        assert PAD not in row[: end + 1] and set(row[end + 1 :]) <= {PAD}


def test_unk_is_generated_only_when_asked():
    model, z = decoder(), latents(20, seed=2)
    with torch.no_grad():
        model.output.bias[[PAD, BOS, UNK]] = 10.0
    for options in ({}, {"do_sample": True}, {"num_beams": 2}):
        plain = generate(model, z, max_new_tokens=6, **options)
        asked = generate(model, z, max_new_tokens=6, allow_unk=True, **options)
        assert not (plain == UNK).any() and (asked == UNK).any() and not (asked == BOS).any()


def test_empty_input_and_errors():
    model = decoder()
    assert generate(model, torch.empty(0, 4), max_new_tokens=5).shape == (0, 0)
    wrong = {"temperature": 0.0, "top_k": -1, "top_p": 0.0, "num_beams": 0, "max_new_tokens": 0}
    for name, value in wrong.items():
        options = {"max_new_tokens": 5, "do_sample": name.startswith("t"), name: value}
        with pytest.raises(UserError, match=f"{name}={value}: must be"):
            generate(model, torch.zeros(1, 4), **options)
    with pytest.raises(UserError, match="num_beams"):
        generate(model, torch.zeros(1, 4), max_new_tokens=5, num_beams=2, do_sample=True)
    for penalty in (400.0, float("nan")):
        with pytest.raises(UserError, match="length_penalty"):
            generate(
                model, torch.zeros(1, 4), max_new_tokens=5, num_beams=2, length_penalty=penalty
            )


def test_greedy_takes_the_most_likely_word():
    model, z = decoder(), latents(6, seed=4)
    ids = generate(model, z, max_new_tokens=8)
    tokens, stepper = torch.full((6,), BOS), model.stepper(z)
    for t in range(ids.size(1)):
        logits = stepper.step(tokens)
        logits[:, [PAD, UNK, BOS]] = -math.inf
        running = ids[:, t] != PAD
        assert torch.equal(logits.argmax(1)[running], ids[running, t])
        tokens = ids[:, t]


def test_one_beam_and_one_candidate_are_greedy():
    model, z = decoder(), latents(12, seed=4)
    greedy = generate(model, z, max_new_tokens=10)
    assert torch.equal(generate(model, z, max_new_tokens=10, num_beams=1), greedy)
    for options in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}):
        drawn = generate(model, z, max_new_tokens=10, do_sample=True, **options)
        assert torch.equal(drawn, greedy)


def log_p(model, sentence, z):
    """log p of a sentence that may lack its end."""
    total, stepper, token = 0.0, model.stepper(z), BOS
    for word in sentence:
        logits = stepper.step(torch.tensor([token]))
        total, token = total + float(torch.log_softmax(logits, 1)[0, word]), word
    return total


def assert_best(model, z, longest, found, penalty):
    """Check that every sentence has the best score of all sentences, for a vocabulary of 7."""
    words = (4, 5, 6)
    every = [
        (*start, EOS) for size in range(longest) for start in itertools.product(words, repeat=size)
    ] + list(itertools.product(words, repeat=longest))
    with torch.no_grad():
        for row, ids in zip(z, found.tolist(), strict=True):
            best = max(every, key=lambda s: log_p(model, s, row[None]) / len(s) ** penalty)
            assert tuple(i for i in ids if i != PAD) == best


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -1.0])
def test_many_beams_find_what_brute_force_finds(penalty):
    model, z = decoder(vocab=7, layers=1, scale=1.5, hidden=6), latents(4, seed=0)
    found = generate(model, z, max_new_tokens=3, num_beams=40, length_penalty=penalty)
    assert_best(model, z, 3, found, penalty)


def test_more_beams_find_more_likely_sentences():
    model, z = decoder(scale=1.0).eval(), latents(10, seed=0)
    means = []
    for beams in (1, 2, 8):
        penalty = {"length_penalty": 0.0} if beams > 1 else {}
        found = generate(model, z, max_new_tokens=8, num_beams=beams, **penalty)
        with torch.no_grad():
            scores = [
                log_p(model, [i for i in ids if i != PAD], row[None])
                for row, ids in zip(z, found.tolist(), strict=True)
            ]
        means.append(sum(scores) / len(scores))
    assert means[0] < means[1] < means[2]


class GRUDecoder(nn.Module):
    """A decoder from outside textvae, which only has a ``stepper``."""

    def __init__(self, vocab, hidden=12):
        super().__init__()
        self.embedding, self.cell = nn.Embedding(vocab, hidden), nn.GRUCell(hidden, hidden)
        self.to_state, self.output = nn.Linear(4, hidden), nn.Linear(hidden, vocab)

    def stepper(self, z):
        return GRUStepper(self, z)


class GRUStepper:
    def __init__(self, model, z):
        self.model, self.size, self.h = model, len(z), model.to_state(z).tanh()

    def step(self, tokens):
        self.h = self.model.cell(self.model.embedding(tokens), self.h)
        return self.model.output(self.h)

    def keep(self, rows):
        self.size, self.h = len(rows), self.h[rows]

    def move(self, rows):
        self.h = self.h[rows]


def gru(vocab):
    torch.manual_seed(0)
    model = GRUDecoder(vocab)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    return model


def test_any_decoder_can_be_decoded_greedily():
    model, z = gru(12), latents(20, seed=0)
    found = generate(model, z, max_new_tokens=20)
    assert (found == PAD).any() and (found == EOS).any()
    for row, ids in zip(z, found.tolist(), strict=True):
        stepper, token = model.stepper(row[None]), BOS
        for word in ids:
            if token == EOS:
                assert word == PAD
                continue
            logits = stepper.step(torch.tensor([token]))[0].detach()
            logits[[PAD, UNK, BOS]] = -math.inf
            assert word == logits.argmax()
            token = word


def test_any_decoder_can_be_sampled_from():
    model, z = gru(9), torch.zeros(1, 4)
    logits = model.stepper(z).step(torch.tensor([BOS]))[0].detach()
    logits[[PAD, UNK, BOS]] = -math.inf
    options = {"max_new_tokens": 3, "do_sample": True}
    found = generate(model, z.expand(4000, 4), **options)
    share = torch.bincount(found[:, 0], minlength=9) / 4000
    assert torch.allclose(share, logits.softmax(0), atol=0.03)
    assert torch.equal(found, generate(model, z.expand(4000, 4), **options))
    assert not torch.equal(found, generate(model, z.expand(4000, 4), seed=1, **options))


def test_any_decoder_can_be_searched_with_beams():
    model, z = gru(7), latents(4, seed=0)
    assert_best(model, z, 3, generate(model, z, max_new_tokens=3, num_beams=40), penalty=1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "options", [{}, {"do_sample": True, "top_k": 3, "top_p": 0.9}, {"num_beams": 3}]
)
def test_the_logits_of_a_decoder_may_have_any_precision(dtype, options):
    model, z = gru(12).to(dtype), latents(6, seed=0).to(dtype)
    found = generate(model, z, max_new_tokens=5, **options)
    if dtype == torch.float64:
        assert torch.equal(found, generate(gru(12), z.float(), max_new_tokens=5, **options))


class Scripted:
    """A stepper with the same probabilities of the next word for all sentences."""

    def __init__(self, size, *steps):
        self.size, self.steps = size, iter(steps)

    def step(self, tokens):
        p = torch.zeros(self.size, 7)
        for word, share in next(self.steps).items():
            p[:, word] = share
        return p.log()

    def keep(self, rows):
        self.size = len(rows)

    def move(self, rows):
        pass


def test_an_end_that_is_not_among_the_best_continuations_is_no_candidate():
    first, later = {4: 0.4, 5: 0.35, EOS: 0.25}, {EOS: 0.3, 4: 0.28, 5: 0.22, 6: 0.2}
    for beams, expected in ((2, [4, EOS]), (3, [EOS])):  # of log p -2.1 and -1.4
        stepper, banned = Scripted(beams, first, *[later] * 4), torch.tensor([PAD, UNK, BOS])
        found = beam_search(stepper, banned, 5, beams, length_penalty=0.0)
        assert [i for i in found[0].tolist() if i != PAD] == expected


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
        (2, 0.6): {1},  # after top_k, the first word by itself has 0.62
        (9, 1.0): set(range(6)),
    }
    uniforms = (torch.arange(20000).double() + 0.5) / 20000
    for (top_k, top_p), kept in cases.items():
        words = draw(logits.repeat(20000, 1), uniforms, top_k, top_p)
        share = torch.bincount(words, minlength=6) / 20000
        expected = p * torch.tensor([float(i in kept) for i in range(6)])
        assert torch.allclose(share, expected / expected.sum(), atol=1e-3)


def test_decoding_works_on_a_model_in_training_and_leaves_it_there():
    model, z = decoder().train(), latents(6, seed=4)
    trained = generate(model, z, max_new_tokens=8)
    assert model.training
    assert torch.equal(trained, generate(model.eval(), z, max_new_tokens=8))
    model.train()
    model.token_nll(torch.nn.functional.pad(trained, (1, 0), value=BOS).t(), z).sum().backward()


def test_bf16_autocast():
    model, z = decoder(), latents(20, seed=4)
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
    for same in latents(50, seed=0):  # rounding takes some cosines above 1
        assert torch.isfinite(between(same, same, 3, "spherical")).all()
    around = between(a, -2 * a, 5, "spherical")  # never through the origin
    torch.testing.assert_close(around.norm(dim=1), a.norm() * torch.linspace(1, 2, 5))
    torch.testing.assert_close(around[[0, -1]], torch.stack([a, -2 * a]))
    with pytest.raises(UserError, match="linear or spherical"):
        between(a, b, 3, "cubic")


def test_a_spherical_path_turns_at_constant_speed():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])  # at an angle of 135 degrees
    arc = between(a, b, 5, "spherical")
    angles = torch.atan2(arc[:, 1], arc[:, 0])
    torch.testing.assert_close(angles, torch.linspace(0, 0.75 * math.pi, 5))
    torch.testing.assert_close(arc.norm(dim=1), torch.linspace(2, math.sqrt(2), 5))


LATE = [{EOS: 0.7, 4: 0.3}, {4: 1.0}, {4: 1.0}, {4: 1.0}, {EOS: 1.0}]  # ln 0.3 / 5 > ln 0.7
SOON = [{EOS: 0.2, 4: 0.6}, *[{EOS: 1.0}] * 4]  # 2 ln 0.6 > ln 0.2 > 5 ln 0.6


@pytest.mark.parametrize(
    ("penalty", "steps", "expected"), [(1.0, LATE, [4, 4, 4, 4, EOS]), (-1.0, SOON, [4, EOS])]
)
def test_a_search_goes_on_while_an_open_beam_can_win(penalty, steps, expected):
    stepper, banned = Scripted(2, *steps), torch.tensor([PAD, UNK, BOS])
    found = beam_search(stepper, banned, 5, 2, length_penalty=penalty)
    assert [i for i in found[0].tolist() if i != PAD] == expected


def test_the_temperature_divides_the_logits():
    model, z = gru(9), torch.zeros(1, 4)
    logits = model.stepper(z).step(torch.tensor([BOS]))[0].detach()
    logits[[PAD, UNK, BOS]] = -math.inf
    for temperature in (0.5, 3.0):
        options = {"max_new_tokens": 1, "do_sample": True, "temperature": temperature}
        found = generate(model, z.expand(4000, 4), **options)
        share = torch.bincount(found[:, 0], minlength=9) / 4000
        assert torch.allclose(share, (logits / temperature).softmax(0), atol=0.03)
