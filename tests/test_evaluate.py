"""The metrics card: its values, its units, and what must not change it."""

import copy
import json
import math
import shutil
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal
from torch.nn.utils.rnn import pad_sequence

import textvae
from textvae.config.inference import Inference, with_steps
from textvae.errors import UserError
from textvae.evaluation.evaluate import evaluate, evaluate_quick
from textvae.evaluation.metrics import saving
from textvae.text.nn.decoder import LSTMDecoder
from textvae.text.nn.encoder import LSTMEncoder
from textvae.vae.batch import Batch
from textvae.vae.estimators import pointwise_information
from textvae.vae.heads import make_head
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.posteriors import ConstantEncoder, DiagGaussian
from textvae.vae.vae import VAE

VOCAB, COUNT = 11, 13


def sentences():
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 9, (COUNT,), generator=generator).tolist()
    words = [torch.randint(4, VOCAB, (n,), generator=generator) for n in lengths]
    ends = torch.tensor([2]), torch.tensor([3])
    return [torch.cat([ends[0], w, ends[1]]) for w in words]


def text_batches(rows=None, size=4, padding=0):
    """Batches of the sentences in the order of ``rows``, with unnecessary padding at the end."""
    texts, rows = sentences(), list(range(COUNT)) if rows is None else rows
    batches = []
    for start in range(0, len(rows), size):
        index = torch.tensor(rows[start : start + size])
        lengths = torch.tensor([len(texts[i]) - 1 for i in index])
        x = pad_sequence([texts[i] for i in index], batch_first=True)
        x = nn.functional.pad(x, (0, padding))
        batches.append(Batch(x, lengths, lengths, 5 * lengths, index))
    return batches


def text_vae(latent_dim=3, injection="skip"):
    torch.manual_seed(0)
    encoder = (
        LSTMEncoder(VOCAB, partial(make_head, latent_dim=latent_dim), 6, 7) if latent_dim else None
    )
    decoder = LSTMDecoder(VOCAB, latent_dim, injection, 6, 7)
    for parameter in [*decoder.parameters(), *(encoder.parameters() if encoder else [])]:
        nn.init.uniform_(parameter, -0.6, 0.6)
    return VAE(encoder, decoder, latent_dim)


def timeless(card):
    return {key: value for key, value in card.items() if key != "seconds"}


def assert_same(a, b, rel=1e-5):
    assert list(a) == list(b)
    for key in timeless(a):
        if isinstance(a[key], str) or a[key] is None:
            assert a[key] == b[key], key
        else:
            assert a[key] == pytest.approx(b[key], rel=rel, abs=1e-5), key


@pytest.mark.parametrize("size", [1, 5, COUNT])
def test_batch_size_padding_order_and_chunks_change_nothing(size):
    model, rows = text_vae(), torch.randperm(COUNT).tolist()
    expected = evaluate(model, text_batches(), samples=7)
    found = evaluate(model, text_batches(rows, size, padding=3), samples=7, max_symbols=50)
    assert_same(found, expected)


def test_means_and_perplexities_follow_from_the_sums():
    card, units = evaluate(text_vae(), text_batches(), samples=9), 0
    units = sum(int(batch.units.sum()) for batch in text_batches())
    assert (card["count"], card["units"], card["tokens"]) == (COUNT, units, units)
    assert card["bytes"] == 5 * units
    for bound in ("elbo", "iw"):
        nats = -card[bound] * COUNT
        assert card[f"ppl_{bound}"] == pytest.approx(math.exp(nats / units))
        assert card[f"ppl_token_{bound}"] == pytest.approx(math.exp(nats / units))
        assert card[f"bits_per_byte_{bound}"] == pytest.approx(nats / math.log(2) / (5 * units))
    assert card["elbo"] == pytest.approx(card["rec"] - card["kl"])
    assert card["kl"] == pytest.approx(sum(card["kl_per_dim"]))
    assert card["kl"] == pytest.approx(card["mi"] + card["marginal_kl"])
    assert card["mi_max"] == pytest.approx(math.log(COUNT))
    assert "ppl" not in card and card["bits_per_dim_elbo"] is card["bits_per_dim_iw"] is None
    quick = evaluate_quick(text_vae(), text_batches(), elbo_samples=9)
    assert quick["rec"] == pytest.approx(card["rec"])  # of the same draws


def test_a_decoder_of_zeros_has_the_perplexity_of_its_vocabulary():
    model = text_vae()
    for parameter in model.decoder.parameters():
        nn.init.zeros_(parameter)
    model.encoder = ConstantEncoder(3)  # q is the prior
    card = evaluate(model, text_batches(), samples=4)
    for key in ("ppl_elbo", "ppl_iw", "ppl_token_elbo", "ppl_token_iw"):
        assert card[key] == pytest.approx(VOCAB, rel=1e-5)
    assert (card["kl"], card["mi"], card["au"], card["mi_se"]) == (0, 0, 0, 0)


class UniformPerText(nn.Module):
    """A text of n words and an end has probability 50^-(n + 1), regardless of its tokens."""

    def log_prob(self, batch, z):
        return (-math.log(50) * batch.units).expand(z.size(0), -1)


def test_perplexity_per_word_does_not_depend_on_the_tokenizer():
    model = VAE(nn.Linear(1, 1), UniformPerText(), 0)
    model.posterior = lambda batch: ConstantEncoder(0)(batch)
    texts = ["a cat sat", "dogs bark", "it rains again today"]
    units = torch.tensor([len(text.split()) + 1 for text in texts])
    num_bytes = torch.tensor([len(text.encode()) for text in texts])

    def card_with(tokenize):
        lengths = torch.tensor([len(tokenize(text)) + 1 for text in texts])
        x = torch.zeros(3, int(lengths.max()) + 1, dtype=torch.long)
        return evaluate(model, [Batch(x, lengths, units, num_bytes, torch.arange(3))])

    words, characters = card_with(str.split), card_with(list)
    for key in ("ppl_elbo", "ppl_iw"):
        assert words[key] == pytest.approx(50)
        assert characters[key] == pytest.approx(50)
    assert words["units"] == characters["units"] == int(units.sum())
    assert words["tokens"] < characters["tokens"]
    assert words["bits_per_byte_iw"] == characters["bits_per_byte_iw"]
    assert words["ppl_token_iw"] == pytest.approx(50)
    assert characters["ppl_token_iw"] < 5


def test_a_perplexity_that_is_too_large_for_a_float_is_infinite():
    class Hopeless(nn.Module):
        def log_prob(self, batch, z):
            return (-710.0 * batch.units).expand(z.size(0), -1)

    card = evaluate(VAE(None, Hopeless(), 0), text_batches(), samples=1)
    assert card["ppl_elbo"] == card["ppl_iw"] == math.inf and math.isfinite(card["elbo"])


class Linear(nn.Module):
    """x = Wz + b + noise, as a decoder."""

    sd = 0.7

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 0.5], [1.0, -0.5], [0.0, 2.0]]))

    def log_prob(self, batch, z):
        return Normal(z @ self.weight.t(), self.sd).log_prob(batch.x).sum(-1)


class ExactEncoder(nn.Module):
    """The posterior of ``Linear``; ``widen`` is added to its log variance."""

    def __init__(self, decoder, widen=0.0):
        super().__init__()
        self.decoder, self.widen = decoder, widen

    def forward(self, batch):
        weight, variance = self.decoder.weight, self.decoder.sd**2
        precision = 1 + weight.square().sum(0) / variance
        mean = batch.x @ weight / variance / precision
        return DiagGaussian(mean, (self.widen - precision.log()).expand_as(mean))


def linear_gaussian(widen=0.0, count=400):
    decoder = Linear()
    weight = decoder.weight.detach()
    covariance = weight @ weight.t() + decoder.sd**2 * torch.eye(3)
    data = MultivariateNormal(torch.zeros(3), covariance)
    torch.manual_seed(1)
    x, ones = data.sample((count,)), torch.ones(count, dtype=torch.long)
    batch = Batch(x, 3 * ones, ones, ones, torch.arange(count))
    return VAE(ExactEncoder(decoder, widen), decoder, 2), [batch], float(data.log_prob(x).mean())


def test_bounds_meet_at_log_p_when_the_posterior_is_exact():
    model, batches, log_p = linear_gaussian()
    card = evaluate(model, batches, samples=20)
    assert card["iw"] == pytest.approx(log_p, abs=1e-4)
    assert card["elbo"] == pytest.approx(log_p, abs=0.05)  # rec has the noise of 8,000 draws
    # all of KL(q(z) || p) is that 400 points are not the whole of p(x)
    assert card["mi"] == pytest.approx(0.5 * math.log((1 + 2 / 0.49) * (1 + 4.5 / 0.49)), abs=0.25)
    assert card["au"] == 2
    assert card["collapse"] is None


def test_bounds_are_in_order_when_the_posterior_is_wrong():
    model, batches, log_p = linear_gaussian(widen=1.5)
    few, many = (evaluate(model, batches, samples=k) for k in (5, 50))
    assert few["elbo"] < few["iw"] < many["iw"] < log_p
    assert many["elbo"] == pytest.approx(few["elbo"], abs=0.5)


def test_a_refined_posterior_is_shown_next_to_the_encoder():
    model, batches, log_p = linear_gaussian(widen=1.5)
    steps = Inference("semi_amortized", steps=60, lr=0.02, loss_per="example", clip=0.0)
    card, own = evaluate(model, batches, inference=steps, samples=50), evaluate(model, batches)
    assert card["iw"] == pytest.approx(log_p, abs=0.05)
    for key in ("kl", "mi", "au"):
        assert card[f"encoder_{key}"] == own[key]
    assert card["encoder_elbo"] == pytest.approx(own["elbo"], abs=0.5)
    assert card["kl"] > card["encoder_kl"]
    assert "encoder_au" not in own


def test_the_gap_is_what_the_steps_add_to_the_elbo():
    model, batches, log_p = linear_gaussian(widen=1.5, count=2000)
    steps = Inference("semi_amortized", steps=60, lr=0.02, loss_per="example", clip=0.0)
    card = evaluate(model, batches, inference=steps, samples=50)
    assert card["gap"] == pytest.approx(card["elbo"] - card["encoder_elbo"])
    # the exact posterior is diagonal, so that all of log p(x) - ELBO can be closed
    assert card["gap"] == pytest.approx(log_p - evaluate(model, batches)["elbo"], abs=0.3)
    by_step = card["elbo_by_step"]
    assert len(by_step) == 61
    assert by_step[-1] == card["elbo"]
    assert by_step[0] == pytest.approx(card["encoder_elbo"], abs=0.5)


def test_steps_of_no_length_add_nothing():
    model, batches, _ = linear_gaussian(count=20)
    steps = Inference("semi_amortized", steps=1, lr=1e-9, loss_per="example")
    card = evaluate(model, batches, inference=steps, samples=2)
    assert card["gap"] == pytest.approx(0, abs=1e-4)  # both ELBOs are of the same draws


def test_a_refined_card_does_not_depend_on_the_batches():
    model = text_vae()
    steps = Inference("semi_amortized", steps=3, lr=0.1, loss_per="example", clip_per="example")
    a = evaluate(model, text_batches(), inference=steps, samples=4)
    b = evaluate(model, text_batches(list(range(COUNT))[::-1], 3, 2), inference=steps, samples=4)
    assert_same(a, b)


def test_a_model_is_evaluated_with_the_inference_that_it_was_trained_with():
    model = text_vae()
    model.inference = Inference("semi_amortized", steps=2, loss_per="example", clip_per="example")
    card = evaluate(model, text_batches(), samples=4)
    explicit = evaluate(model, text_batches(), samples=4, inference=model.inference)
    assert_same(card, explicit)
    scores = textvae.score(model, text_batches(), samples=4, regret_steps=0)
    assert card["elbo"] == pytest.approx(scores["elbo"].mean(), abs=1e-5)
    diagnosis = textvae.diagnose(model, text_batches(), samples=4)
    rows = {row.key: row for row in diagnosis.evidence}
    assert rows["elbo"].value == pytest.approx(card["elbo"], abs=1e-5)
    assert evaluate(model, text_batches(), samples=4, inference=Inference())["elbo"] < card["elbo"]


def test_zero_steps_give_the_encoders_card():
    model = text_vae()
    none = with_steps(Inference("semi_amortized"), 0, has_encoder=True)
    a, b = (evaluate(model, text_batches(), inference=i) for i in (none, Inference()))
    assert_same(a, b)


def test_svi_has_no_encoder_to_compare_with():
    model = text_vae()
    model.encoder = ConstantEncoder(3)
    card = evaluate(model, text_batches(), inference=Inference("svi", steps=3), samples=2)
    assert card["refine_steps"] == 3
    assert card["kl"] > 0
    assert "encoder_kl" not in card
    assert "gap" not in card


def test_shuffle_gap_of_a_decoder_that_reads_z_and_of_one_that_does_not():
    model, batches, _ = linear_gaussian()
    assert evaluate(model, batches, samples=3)["shuffle_gap"] > 3
    deaf = text_vae(injection="none")
    with torch.no_grad():
        deaf.encoder.head.weight *= 50  # an encoder that has much to say
    card = evaluate(deaf, text_batches(), samples=3)
    assert card["shuffle_gap"] == pytest.approx(0, abs=1e-5)
    assert card["kl"] > 0.1
    assert "although z carries information" in card["collapse"]


class FarCodes(nn.Module):
    """Row i is at 10 i, with very little noise."""

    def forward(self, batch):
        mean = 10.0 * batch.index[:, None].float()
        return DiagGaussian(mean, torch.full_like(mean, -10.0))


class Matches(nn.Module):
    """log p is -1 from a row's own code and -3 from any other."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def log_prob(self, batch, z):
        own = (z[..., 0] - 10.0 * batch.index).abs() < 5
        return torch.where(own, -1.0, -3.0)


@pytest.mark.parametrize("count", [2, 3, 20])
def test_no_example_keeps_its_own_z_in_the_shuffle(count):
    ones = torch.ones(count, dtype=torch.long)
    rows = [Batch(ones[i : i + 1, None], *[ones[:1]] * 3, torch.tensor([i])) for i in range(count)]
    card = evaluate(VAE(FarCodes(), Matches(), 1), rows, samples=2, seed=count)
    assert card["shuffle_gap"] == 2.0
    assert card["mi"] == pytest.approx(math.log(count), abs=1e-6)


def test_active_units_at_both_thresholds_over_the_whole_set():
    class Codes(nn.Module):
        def forward(self, batch):
            sign = torch.where(batch.index < 6, 1.0, -1.0)[:, None]
            mean = sign * torch.tensor([0.05, 0.12, 0.5])  # variances 0.0025, 0.0144, 0.25
            return DiagGaussian(mean, torch.zeros_like(mean))

    rows = range(12)
    model = text_vae(injection="none")
    model.encoder = Codes()
    card = evaluate_quick(model, text_batches(list(rows), size=6))
    assert (card["au"], card["au_02"], card["au_threshold"]) == (2, 1, 0.01)
    assert card["mean_variances"] == pytest.approx([0.0025, 0.0144, 0.25])
    assert evaluate_quick(model, text_batches(list(rows)), au_threshold=0.1)["au"] == 1


def test_without_a_latent_all_bounds_are_log_p():
    card = evaluate(text_vae(latent_dim=0), text_batches())
    assert card["elbo"] == card["iw"] == card["rec"] < 0
    assert card["ppl_elbo"] == card["ppl_iw"]
    assert (card["kl"], card["mi"], card["au"], card["latent_dim"]) == (0, 0, 0, 0)
    assert card["kl_per_dim"] == card["mean_variances"] == []
    assert card["shuffle_gap"] is None
    assert card["collapse"] is None


def test_quick_has_the_same_keys_and_no_iw():
    model = text_vae()
    quick, full = evaluate_quick(model, text_batches()), evaluate(model, text_batches(), samples=3)
    assert list(quick) == list(full)
    for key in ("iw", "ppl_iw", "ppl_token_iw", "bits_per_byte_iw", "shuffle_gap"):
        assert quick[key] is None
    for key in ("kl", "kl_per_dim", "mi", "au"):
        assert quick[key] == full[key]
    assert quick["elbo"] == pytest.approx(full["elbo"], abs=1)


def test_a_seed_fixes_the_card():
    model = text_vae()
    first, again, other = (
        timeless(evaluate(model, text_batches(), samples=3, seed=s)) for s in (1, 1, 2)
    )
    assert first == again
    assert first["iw"] != other["iw"]


def test_random_state_modes_and_weights_do_not_change():
    model = text_vae().train()
    model.decoder.embedding.eval()  # a part that the caller froze
    modes = [module.training for module in model.modules()]
    weights, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    evaluate(model, torch.utils.data.DataLoader(text_batches(), batch_size=None), samples=2)
    assert torch.get_rng_state().equal(state)
    assert [module.training for module in model.modules()] == modes
    assert all(weights[key].equal(value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modes_and_random_state_survive_an_error():
    model, state = text_vae().train(), torch.get_rng_state()

    def fail(done):
        torch.rand(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, text_batches(), samples=2, progress=fail)
    assert model.training
    assert torch.get_rng_state().equal(state)


def test_dropout_is_off():
    model = text_vae().train()
    card = evaluate(model, text_batches(), samples=3)
    assert timeless(card) == timeless(evaluate(model.eval(), text_batches(), samples=3))


def test_batches_from_a_list_a_function_and_a_generator_are_the_same():
    model = text_vae()
    sources = text_batches(), text_batches, (batch for batch in text_batches())
    cards = [timeless(evaluate(model, source, samples=2)) for source in sources]
    assert cards[0] == cards[1] == cards[2]


def test_no_examples_and_repeated_rows_are_errors():
    with pytest.raises(ValueError, match="no batch"):
        evaluate(text_vae(), [])
    with pytest.raises(ValueError, match="twice"):
        evaluate(text_vae(), text_batches() + text_batches()[:1])


def test_progress_and_generation():
    seen = []
    card = evaluate(
        text_vae(),
        text_batches(),
        samples=2,
        progress=seen.append,
        generation=lambda: {"bleu": 0.5},
    )
    assert seen == [4, 8, 12, 13]
    assert card["bleu"] == 0.5


def test_an_image_without_words_has_no_word_perplexity():
    model, (batch,), _ = linear_gaussian()
    zeros = torch.zeros_like(batch.units)
    card = evaluate(model, [Batch(batch.x, batch.lengths, zeros, zeros, batch.index)], samples=2)
    assert card["ppl_elbo"] is card["bits_per_byte_iw"] is None
    expected = -card["iw"] / 3 / math.log(2)
    assert card["bits_per_dim_iw"] == pytest.approx(expected)


def test_mixed_precision_leaves_the_latent_figures_alone():
    model = text_vae()
    with torch.no_grad():
        model.encoder.head.weight *= 8  # so that there is something to measure
    expected = evaluate(model, text_batches(), samples=2)
    with torch.autocast("cpu", torch.bfloat16):
        card = evaluate(model, text_batches(), samples=2)
    assert card["iw"] == pytest.approx(expected["iw"], rel=0.01)
    assert card["mi"] == pytest.approx(expected["mi"], rel=0.02)


def test_the_figures_of_another_model_are_not_saved_as_those_of_the_run(trained, tmp_path, caplog):
    run = shutil.copytree(trained, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    model = textvae.load(str(run))
    with torch.no_grad():
        model.decoder.output.bias.add_(torch.randn(model.config["vocab_size"]))
    card = textvae.evaluate_run(run, model=model, samples=2, generations=0)
    textvae.fit_sampler(run, model=model)
    textvae.probe(run, model=model)
    textvae.diagnose_run(run, model=model)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert "the model is not the one in" in caplog.text and model.sampler is not None
    assert card["elbo"] != json.loads((run / "metrics" / "test.json").read_text())["elbo"]
    own = textvae.load(str(run)).double()
    textvae.evaluate_run(run, model=own, samples=2, generations=0)
    assert json.loads((run / "metrics" / "test.json").read_text())["samples"] == 2


def test_results_that_cannot_be_saved_are_still_there(trained, tmp_path, monkeypatch, caplog):
    run = shutil.copytree(trained, tmp_path / "run")

    def full(path, record):
        raise UserError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(saving, "write_json", full)
    card = textvae.evaluate_run(run, samples=1, limit=3, generations=0)
    found = textvae.diagnose_run(run, samples=1, limit=3)
    assert card["count"] == 3 and found.verdict
    assert caplog.text.count("No space left on device: the results are printed, but not saved") == 2


def test_the_information_has_as_many_draws_as_asked_for():
    class Known(nn.Module):
        """q(z|x) = N(x, 0.5), and a decoder that does not matter."""

        def forward(self, batch):
            return DiagGaussian(batch.x, torch.full_like(batch.x, math.log(0.5)))

        def log_prob(self, batch, z):
            return -(z - batch.x).square().sum(-1)

    torch.manual_seed(0)
    model, x = VAE(Known(), Known(), 2), torch.randn(20, 2)
    q = DiagGaussian(x, torch.full_like(x, math.log(0.5)))
    noise = RowNoise(0, Purpose.MIXTURE, range(20))
    for draws in (1, 50):
        expected = float(pointwise_information(q, draws, noise=noise).lower.mean())
        assert evaluate(model, [x], mi_samples=draws)["mi"] == pytest.approx(expected, abs=1e-5)
