"""The encoder and the decoder: causality, padding, gradients, and the paths of z."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from textvae.errors import UserError
from textvae.text.model import TextVAE
from textvae.text.nn.decoder import LSTMDecoder
from textvae.text.nn.dropout import drop_words
from textvae.text.nn.encoder import LSTMEncoder, reverse_each
from textvae.text.nn.recurrence import lstm
from textvae.text.tokenizers import BOS, EOS, PAD, UNK
from textvae.vae.batch import Batch
from textvae.vae.heads import make_head

INJECTIONS = ("none", "init", "input", "skip")
VOCAB, Z, H = 19, 3, 8


def sentences(lengths, seed=0, columns=None):
    """Random sentences of these lengths (including their ends), padded to ``columns``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.full((len(lengths), (columns or max(lengths)) + 1), PAD)
    for row, length in enumerate(lengths):
        x[row, 0], x[row, length] = BOS, EOS
        x[row, 1:length] = torch.randint(4, VOCAB, (length - 1,), generator=generator)
    counts = torch.tensor(lengths)
    return Batch(x, counts, counts, counts, torch.arange(len(lengths)))


def decoder(injection="skip", num_layers=1, **options):
    torch.manual_seed(0)
    sizes = {"embedding_dim": H, "hidden_dim": H, "num_layers": num_layers}
    made = LSTMDecoder(VOCAB, Z, injection, dropout_in=0.0, dropout_out=0.0, **sizes, **options)
    for parameter in made.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    return made


def encoder(num_layers=1, bidirectional=False, pooling="last"):
    torch.manual_seed(0)
    head = partial(make_head, latent_dim=Z)
    return LSTMEncoder(VOCAB, head, H, H, num_layers, bidirectional, pooling=pooling)


def vae(injection, latent_dim=Z, **options):
    torch.manual_seed(0)
    sizes = {"embedding_dim": H, "encoder_hidden": H, "decoder_hidden": H, "decoder_layers": 2}
    return TextVAE(VOCAB, latent_dim, injection, **sizes, **options)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_decoder_is_causal(injection):
    model = decoder(injection, num_layers=2)
    batch, z = sentences([7, 7]), torch.randn(2, Z)
    before = model.token_nll(batch.x.t(), z)
    changed = batch.x.clone()
    changed[:, 4] = (changed[:, 4] - 3) % (VOCAB - 4) + 4
    after = model.token_nll(changed.t(), z)
    assert torch.equal(before[:3], after[:3])  # predictions of the words before the changed one
    assert not torch.allclose(before[3:], after[3:])


@pytest.mark.parametrize("injection", INJECTIONS)
def test_decoder_ignores_padding(injection):
    model, z = decoder(injection, num_layers=2), torch.randn(1, 3, Z)
    short = model.log_prob(sentences([2, 6, 4]), z)
    padded = model.log_prob(sentences([2, 6, 4], columns=11), z)
    assert torch.allclose(short, padded, atol=1e-6)
    alone = model.log_prob(sentences([2]), z[:, :1])
    assert torch.allclose(short[:, :1], alone, atol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling_is_that_of_each_sentence_alone(pooling, bidirectional):
    model, batch = encoder(1, bidirectional, pooling), sentences([1, 6, 4])
    model.head = torch.nn.Identity()
    pooled = model(batch)
    for row, length in enumerate(batch.lengths.tolist()):
        words = model.embedding(batch.x[row, 1 : length + 1])[:, None]  # (T, 1, E)
        states = model.forward_layers[0](words)[0][:, 0]
        if bidirectional:
            behind = model.backward_layers[0](words.flip(0))[0][:, 0].flip(0)
            states = torch.cat([states, behind], dim=-1)
        expected = states.mean(0) if pooling == "mean" else states.max(0).values
        torch.testing.assert_close(pooled[row], expected)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_encoder_ignores_padding(bidirectional, num_layers, pooling):
    model = encoder(num_layers, bidirectional, pooling)
    together = model(Batch(sentences([1, 6, 4], columns=9).x))  # lengths need not be given
    for row, length in enumerate([1, 6, 4]):
        x = sentences([1, 6, 4], columns=9).x[row : row + 1, : length + 1]
        alone = model(Batch(x, *[torch.tensor([length])] * 4))
        assert torch.allclose(together.mean[row], alone.mean[0], atol=1e-6)
        assert torch.allclose(together.logvar[row], alone.logvar[0], atol=1e-6)


def test_bidirectional_encoder_reads_every_word_in_both_directions():
    model = encoder(bidirectional=True)
    batch = sentences([5, 3])
    embedded = model.embedding(batch.x[:, 1:].t())
    states = []
    for row, length in enumerate([5, 3]):
        words = embedded[:length, row : row + 1]
        _, (ahead, _) = model.forward_layers[0](words)
        _, (behind, _) = model.backward_layers[0](words.flip(0))
        states.append(torch.cat([ahead, behind], dim=1))
    assert torch.allclose(model(batch).mean, model.head(torch.cat(states)).mean, atol=1e-6)


def test_encoder_ends_in_the_head_it_is_given():
    class Scale(torch.nn.Module):
        def forward(self, features):
            return 2 * features

    features = []
    model = LSTMEncoder(VOCAB, lambda size: features.append(size) or Scale(), H, H, 1, True)
    assert features == [2 * H]
    assert model(sentences([5, 3])).shape == (2, 2 * H)


def test_the_head_is_created_last_so_that_it_changes_no_other_initial_weight():
    torch.manual_seed(0)
    without = LSTMEncoder(VOCAB, lambda size: torch.nn.Identity(), H, H)
    for name, parameter in without.named_parameters():
        assert torch.equal(parameter, encoder().get_parameter(name))


def test_reverse_each_leaves_padding_in_place():
    x = torch.tensor([[1, 4], [2, 5], [3, 0]])
    assert reverse_each(x, torch.tensor([3, 2])).tolist() == [[3, 5], [2, 4], [1, 0]]


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("initial_state", ["hidden", "cell"])
def test_step_by_step_equals_teacher_forcing(injection, num_layers, initial_state):
    model = decoder(injection, num_layers, initial_state=initial_state, output_bias=False)
    batch, z = sentences([6, 6, 6]), torch.randn(3, Z)
    expected = model.token_nll(batch.x.t(), z)
    stepper = model.stepper(z)
    for t in range(6):
        logits, target = stepper.step(batch.x[:, t]), batch.x[:, t + 1]
        assert logits.dtype == torch.float32
        nll = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        assert torch.allclose(nll, expected[t], atol=1e-5)


def test_stepper_keeps_and_moves_rows():
    model, z = decoder(num_layers=2), torch.randn(1, Z).expand(3, Z)
    first, second = torch.tensor([4, 5, 6]), torch.tensor([7, 8])
    whole, alone = model.stepper(z), model.stepper(z[:2])
    whole.step(first)
    whole.keep(torch.tensor([2, 0]))
    assert whole.size == 2
    alone.step(torch.tensor([4, 6]))
    alone.move(torch.tensor([1, 0]))
    assert torch.equal(whole.step(second), alone.step(second))


@pytest.mark.parametrize("bf16", [False, True])
def test_a_sentence_has_the_same_logits_alone_and_among_others(bf16):
    """To the last bit: products with one row and with several use different kernels."""
    torch.manual_seed(0)
    size = {"embedding_dim": 64, "encoder_hidden": 8, "decoder_hidden": 128}
    model = TextVAE(500, latent_dim=8, injection="skip", **size).eval().decoder
    z, tokens = torch.randn(9, 8), torch.full((9,), 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        all_, alone = model.stepper(z), model.stepper(z[:1])
        for _ in range(4):
            assert torch.equal(all_.step(tokens)[:1], alone.step(tokens[:1]))


@pytest.mark.parametrize("injection", INJECTIONS)
def test_every_parameter_gets_a_gradient(injection):
    model = vae(injection, encoder_layers=2, bidirectional=True, dropout_in=0.0, dropout_out=0.0)
    terms = model(sentences([6, 4, 5, 7, 6, 3]), samples=2)
    (terms.kl.sum() - terms.rec.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    heads = model.encoder.head.weight.grad.view(2, Z, -1)  # of mean and of logvar
    assert (heads.abs().sum(-1) > 0).all()


def latent_paths(model):
    paths = {f"layer {i}": layer.weight_latent for i, layer in enumerate(model.layers)}
    paths |= {"softmax": model.output_latent}
    paths |= {"state": None if model.to_state is None else model.to_state.weight}
    return {name: weight for name, weight in paths.items() if weight is not None}


PATHS = {
    "none": set(),
    "init": {"state"},
    "input": {"state", "layer 0"},
    "skip": {"state", "layer 0", "layer 1", "layer 2", "softmax"},
}


@pytest.mark.parametrize("injection", INJECTIONS)
def test_z_takes_exactly_the_paths_of_its_injection(injection):
    assert set(latent_paths(decoder(injection, num_layers=3))) == PATHS[injection]


@pytest.mark.parametrize("path", sorted(PATHS["skip"]))
def test_each_path_by_itself_carries_z(path):
    model, tokens = decoder("skip", num_layers=3), sentences([5]).x.t()
    z, other = torch.randn(1, Z), torch.randn(1, Z)
    with torch.no_grad():
        for name, weight in latent_paths(model).items():
            if name != path:
                weight.zero_()
        change = (model.token_nll(tokens, z) - model.token_nll(tokens, other)).abs()
        if path != "state":  # the effect of the state fades; the other paths act at every time step
            assert (change > 1e-7).all()
        assert change.max() > 1e-4
        latent_paths(model)[path].zero_()
        assert torch.equal(model.token_nll(tokens, z), model.token_nll(tokens, other))


def test_without_injection_z_changes_nothing():
    model, batch = decoder("none"), sentences([5, 4])
    z = torch.randn(2, 2, Z)
    log_prob = model.log_prob(batch, z)
    assert torch.equal(log_prob[0], log_prob[1])


@pytest.mark.parametrize("injection", INJECTIONS)
def test_samples_fold_into_the_batch(injection):
    model, batch, z = decoder(injection, 2), sentences([5, 3, 6]), torch.randn(4, 3, Z)
    loop = torch.stack([model.log_prob(batch, one[None])[0] for one in z])
    assert torch.allclose(model.log_prob(batch, z), loop, atol=1e-5)


def plain_log_prob(model, batch, z):
    """The equations of the decoder as written, with all logits at once."""
    tokens = batch.x.repeat(len(z), 1).t()  # (T+1, K*B)
    rows = z.flatten(0, 1)
    states, x = model.initial_state(rows), model.embedding(tokens[:-1])
    for layer, (h, c) in zip(model.layers, states, strict=True):
        latent = None if layer.weight_latent is None else rows
        weights = layer.weight_ih, layer.weight_hh, layer.bias
        x = lstm(x, *weights, h, c, latent, layer.weight_latent, implementation="plain")[0]
    logits = x @ model.output.weight.t() + model.output.bias
    if model.output_latent is not None:
        logits = logits + rows @ model.output_latent.t()
    real = tokens[1:] != PAD
    log_p = logits.log_softmax(-1).gather(-1, tokens[1:, :, None]).squeeze(-1)
    return (log_p * real).sum(0).view(z.shape[:2])


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("injection", INJECTIONS)
def test_values_and_gradients_equal_the_plain_equations(injection, num_layers, draws):
    model, batch = decoder(injection, num_layers).double(), sentences([5, 3, 6])
    z = torch.randn(draws, 3, Z, dtype=torch.float64, requires_grad=True)
    wanted = [*model.parameters(), z]
    found, expected = model.log_prob(batch, z), plain_log_prob(model, batch, z)
    torch.testing.assert_close(found, expected)
    upstream = torch.linspace(-1, 2, found.numel(), dtype=torch.float64).view_as(found)
    grads = torch.autograd.grad(found, wanted, upstream, allow_unused=True)
    expected = torch.autograd.grad(expected, wanted, upstream, allow_unused=True)
    for a, b in zip(grads, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["dropout_in", "dropout_out", "word_dropout"])
def test_with_dropout_every_draw_has_its_own_mask(kind):
    torch.manual_seed(0)
    options = {"dropout_in": 0.0, "dropout_out": 0.0} | {kind: 0.5}
    model = LSTMDecoder(VOCAB, Z, "skip", H, H, **options)
    batch, z = sentences([6, 5]), torch.zeros(2, 2, Z)
    first, second = model.log_prob(batch, z)
    assert not torch.allclose(first, second)


def gradient_flops(model, batch, z):
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(model.log_prob(batch, z).sum(), z)
    return counter.get_total_flops()


def test_a_gradient_of_only_z_computes_no_weight_gradient():
    model, batch = decoder("skip").double().requires_grad_(False), sentences([5, 5])
    z = torch.randn(1, 2, Z, dtype=torch.float64, requires_grad=True)
    tokens, latent = 2 * 5, 2 * Z * (H + 4 * H + VOCAB)  # z into the state, the gates, the softmax
    forward = tokens * (4 * H * (H + H) + VOCAB * H) + latent
    backward = tokens * (4 * H * H + VOCAB * H) + latent
    assert gradient_flops(model, batch, z) == 2 * (forward + backward)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_overfits_eight_sentences(injection):
    torch.manual_seed(1)  # where no two sentences begin with the same z
    sizes = {"embedding_dim": 32, "encoder_hidden": 32, "decoder_hidden": 64}
    dropout = {"dropout_in": 0.0, "dropout_out": 0.0}
    model = TextVAE(VOCAB, 4, injection, **sizes, **dropout)
    batch = sentences([7, 6, 5, 7, 6, 5, 7, 6])
    batch.x[:, 1] = torch.arange(4, 12)  # different first words: "none" can learn them
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    first = torch.log(torch.tensor(8.0)) if injection == "none" else 0.0  # which of the eight
    for _ in range(250):
        optimizer.zero_grad()
        z = model.posterior(batch).mean[None]
        nll = -model.log_likelihood(batch, z).mean()
        nll.backward()
        optimizer.step()
    assert nll < first + 0.2


def test_language_model_has_no_latent():
    model = vae("skip", latent_dim=0)
    batch = sentences([5, 3])
    terms = model(batch)
    assert not model.has_encoder and not latent_paths(model.decoder)
    assert terms.kl.shape == (2, 0) and torch.equal(terms.elbo, terms.rec)
    assert model.posterior(batch).mean.shape == (2, 0)


def test_word_dropout_never_touches_specials():
    x = sentences([40, 9, 20]).x.t()
    kept = (x == BOS) | (x == EOS) | (x == PAD)
    seen = torch.zeros_like(kept)
    for _ in range(20):
        dropped = drop_words(x, 0.5)
        assert torch.equal(dropped[kept], x[kept])
        assert ((dropped == x) | (dropped == UNK)).all()
        seen |= dropped == UNK
    assert seen[~kept].all()
    model, batch = decoder(word_dropout=0.5).train(), sentences([9, 9])
    z = torch.zeros(1, 2, Z)
    assert not torch.equal(model.log_prob(batch, z), model.log_prob(batch, z))
    model.eval()
    assert torch.equal(model.log_prob(batch, z), model.log_prob(batch, z))


def test_dropout_is_off_in_evaluation_and_never_on_z():
    torch.manual_seed(0)
    model = LSTMDecoder(VOCAB, Z, "skip", H, H, 2, dropout_in=0.9, dropout_out=0.9)
    batch, z = sentences([6, 5]), torch.randn(1, 2, Z)
    assert not torch.equal(model.log_prob(batch, z), model.log_prob(batch, z))
    model.eval()
    assert torch.equal(model.log_prob(batch, z), model.log_prob(batch, z))
    bias = model.output_bias(z[0])
    assert torch.equal(model.train().output_bias(z[0]), bias)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"vocab_size": 4}, "vocab_size=4: must be at least 5"),
        ({"latent_dim": -1}, "latent_dim=-1: must be at least 0"),
        ({"num_layers": 0}, "num_layers=0: must be at least 1"),
        ({"word_dropout": 1.0}, "word_dropout=1.0: must be at least 0 and below 1"),
        ({"injection": "all"}, "injection='all': choose none, init, input, or skip"),
        ({"initial_state": "h"}, "initial_state='h': choose hidden or cell"),
        ({"hidden_dim": 8.0}, "hidden_dim=8.0: must be an integer, at least 1"),
        ({"dropout_in": "no"}, "dropout_in='no': must be a finite number"),
        ({"tie_embeddings": True}, r"embedding_dim \(4\) to equal hidden_dim \(8\)"),
    ],
)
def test_arguments_out_of_range(argument, message):
    sizes = {"vocab_size": VOCAB, "latent_dim": Z, "embedding_dim": 4, "hidden_dim": 8}
    with pytest.raises(UserError, match=message):
        LSTMDecoder(**(sizes | argument))


def test_z_fills_the_state_of_the_top_layer_alone():
    z = torch.randn(3, Z)
    for kind in ("hidden", "cell"):
        model = decoder("init", 2, initial_state=kind)
        below, top = model.initial_state(z)
        filled = z @ model.to_state.weight.t() + model.to_state.bias
        expected = (filled, 0 * filled) if kind == "hidden" else (filled.tanh(), filled)
        torch.testing.assert_close(top, expected)
        assert not any(part.any() for part in below)
