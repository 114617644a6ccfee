"""The example of a Transformer: its decoder, the cache of its stepper, and a run."""

import json
import runpy
from functools import partial
from pathlib import Path

import pytest
import torch

import textvae
from textvae.cli.main import main
from textvae.text.decode.generate import generate
from textvae.text.tokenizers import BOS, EOS, PAD, UNK

FILE = Path(__file__).parent.parent / "examples" / "transformer_text_model.py"
PARTS = runpy.run_path(str(FILE))
Model = PARTS["TransformerVAE"]
SIZES = {"latent_dim": 3, "embedding_dim": 8, "encoder_hidden": 12, "decoder_hidden": 16}
SIZES |= {"encoder_layers": 2, "decoder_layers": 2, "dropout_in": 0.0, "dropout_out": 0.0}
VOCABULARY, LONGEST = 20, 9


def new_model(**options):
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": VOCABULARY, "max_length": LONGEST - 1}
    return Model(**sizes | options).eval()


def texts(*lengths):
    """A batch of random texts with this many words."""
    draws = torch.Generator().manual_seed(1)
    x = torch.full((len(lengths), max(lengths) + 2), PAD)
    for row, length in zip(x, lengths, strict=True):
        words = torch.randint(UNK + 3, VOCABULARY, (length,), generator=draws)
        row[: length + 2] = torch.tensor([BOS, *words, EOS])
    return textvae.Batch(x)


def padded(batch, by):
    return textvae.Batch(torch.nn.functional.pad(batch.x, (0, by), value=PAD))


def next_log_p(model, words, z):
    """Log p of the next word (V,), from all words so far (T,), read again."""
    candidates = torch.arange(VOCABULARY)  # as the last word of V texts that are otherwise alike
    x = torch.cat([words.expand(VOCABULARY, -1), candidates[:, None]], 1)
    before = textvae.Batch(words[None])
    z = z.expand(1, VOCABULARY, -1)
    seen = model.decoder.log_prob(before, z[:, :1]) if len(words) > 1 else 0.0
    log_p = (model.decoder.log_prob(textvae.Batch(x), z) - seen)[0]
    log_p[PAD] = torch.log1p(-log_p[PAD + 1 :].exp().sum())  # log_prob leaves padding out
    return log_p


class Rereading:
    """A stepper without a cache: it reads the whole text again for every word."""

    def __init__(self, model, z):
        self.model, self.z, self.size = model, z, len(z)
        self.words = torch.empty(len(z), 0, dtype=torch.long)

    def step(self, tokens):
        self.words = torch.cat([self.words, tokens[:, None]], 1)
        pairs = zip(self.words, self.z, strict=True)
        return torch.stack([next_log_p(self.model, words, z) for words, z in pairs])

    def keep(self, rows):
        self.z, self.size = self.z[rows], len(rows)
        self.move(rows)

    def move(self, rows):
        self.words = self.words[rows]


@pytest.mark.parametrize("layers", [1, 3])
def test_log_prob_is_what_the_stepper_predicts(layers):
    """So no word sees itself or a later one."""
    model = new_model(decoder_layers=layers)
    z = torch.randn(3, 3)
    textvae.check_stepper(model.decoder, texts(LONGEST - 1, 4, 1), z)


def test_a_missing_causal_mask_would_be_noticed():
    model, batch = new_model(), texts(6, 4)
    for block in model.decoder.blocks:
        whole = torch.ones(1, 1, 1, 7, dtype=torch.bool)
        read = block.forward

        def leak(x, mask=None, past=None, read=read, whole=whole):
            return read(x, whole if x.size(1) == 7 else mask, past)

        block.forward = leak
    with pytest.raises(ValueError, match="a missing causal mask"):
        textvae.check_stepper(model.decoder, batch, torch.randn(2, 3))


def test_logits_depend_on_z_and_on_all_words_so_far_at_every_step():
    model = new_model()
    words = texts(6).x[0, :-1]
    z = torch.randn(3)

    def last_logits(words, z):
        stepper = model.decoder.stepper(z[None])
        return [stepper.step(word[None]) for word in words][-1][0]

    for t in range(1, len(words)):
        logits = last_logits(words[: t + 1], z)
        assert not torch.allclose(logits, last_logits(words[: t + 1], z + 1))
        for earlier in range(t + 1):
            other = words[: t + 1].clone()
            other[earlier] = 1 + other[earlier] % (VOCABULARY - 1)
            assert not torch.allclose(logits, last_logits(other, z)), (t, earlier)


def test_padding_changes_nothing():
    model, batch = new_model(), texts(5, 2)
    longer = padded(batch, by=LONGEST - 6)
    z = torch.randn(4, 2, 3)
    scored = model.decoder.log_prob(batch, z)
    assert torch.allclose(scored, model.decoder.log_prob(longer, z), atol=1e-4)
    alone = textvae.Batch(batch.x[1:, :4])
    assert torch.allclose(scored[:, 1:], model.decoder.log_prob(alone, z[:, 1:]), atol=1e-4)
    for found, expected in zip(model.posterior(longer), model.posterior(batch), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)
    for found, expected in zip(model.posterior(alone), model.posterior(batch), strict=True):
        assert torch.allclose(found, expected[1:], atol=1e-4)


def test_the_encoder_reads_every_word_and_their_order():
    model, batch = new_model(), texts(5)
    mean = model.posterior(batch).mean
    for step in range(1, 6):
        other = batch.x.clone()
        other[0, step] = 1 + other[0, step] % (VOCABULARY - 1)
        assert not torch.allclose(mean, model.posterior(textvae.Batch(other)).mean)
    swapped = batch.x[:, [0, 2, 1, 3, 4, 5, 6]]
    assert not torch.allclose(mean, model.posterior(textvae.Batch(swapped)).mean)


@pytest.mark.parametrize("search", [{"do_sample": True}, {"num_beams": 3}, {}])
def test_texts_are_those_of_a_decoder_without_a_cache(search, monkeypatch):
    """Of different lengths, so that ``keep`` leaves some out, and beams ``move``."""
    model = new_model()
    with torch.no_grad():
        model.decoder.from_z.weight.mul_(4)
        model.decoder.output.bias[EOS] = 1.5
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(2))
    calls = []
    for name in ("keep", "move"):
        usual = getattr(PARTS["TransformerStepper"], name)

        def noting(self, rows, name=name, usual=usual):
            calls.append((name, rows.tolist() == list(range(self.size))))
            usual(self, rows)

        monkeypatch.setattr(PARTS["TransformerStepper"], name, noting)
    found = generate(model.decoder, z, max_new_tokens=LONGEST, seed=3, **search)
    monkeypatch.undo()
    assert ("keep", False) in calls
    assert ("move", False) in calls
    monkeypatch.setattr(model.decoder, "stepper", partial(Rereading, model))
    assert torch.equal(found, generate(model.decoder, z, max_new_tokens=LONGEST, seed=3, **search))
    assert len({tuple(row) for row in found.tolist()}) > 5


def test_the_cache_goes_with_its_sentence():
    model, batch = new_model(), texts(4, 4, 4)
    z = torch.randn(3, 3)
    stepper, whole = model.decoder.stepper(z), Rereading(model, z)
    rows = torch.tensor([2, 0])
    for tokens in batch.x.t()[:2]:
        stepper.step(tokens)
        whole.step(tokens)
    for each in (stepper, whole):
        each.keep(rows)
    assert stepper.size == 2 and stepper.cache[0].size(1) == 2
    tokens = batch.x[rows, 2]
    found, expected = (each.step(tokens).log_softmax(1) for each in (stepper, whole))
    assert torch.allclose(found, expected, atol=1e-4)
    same = z[:1].expand(3, -1)  # three beams
    stepper, whole = model.decoder.stepper(same), Rereading(model, same)
    beams = torch.tensor([1, 1, 0])
    for each in (stepper, whole):
        each.step(batch.x[:, 0])
        each.step(batch.x[:, 1])
        each.move(beams)
    found, expected = (each.step(batch.x[:, 2]).log_softmax(1) for each in (stepper, whole))
    assert torch.allclose(found, expected, atol=1e-4)
    assert stepper.size == 3 and stepper.cache[0].shape == (2, 3, 4, 3, 4)


def test_there_is_a_position_for_every_step_and_no_more():
    model, batch = new_model(), texts(LONGEST - 1)
    assert model.decoder.log_prob(batch, torch.zeros(1, 1, 3)).isfinite().all()
    assert model.posterior(batch).mean.isfinite().all()
    with pytest.raises(textvae.UserError, match=f"has {LONGEST} positions.*data.max_length"):
        model.decoder.log_prob(texts(LONGEST), torch.zeros(1, 1, 3))
    stepper = model.decoder.stepper(torch.zeros(1, 3))
    for _ in range(LONGEST):
        stepper.step(torch.tensor([BOS]))
    with pytest.raises(textvae.UserError, match="generate at most 9 tokens"):
        stepper.step(torch.tensor([BOS]))


def test_a_share_of_the_tokens_is_an_unbiased_estimate():
    model, batch = new_model(), texts(6, 3)
    z = torch.randn(2, 2, 3)
    with torch.no_grad():
        draws = [model.decoder.log_prob(batch, z, share=0.5) for _ in range(3000)]
        found, exact = torch.stack(draws), model.decoder.log_prob(batch, z)
    assert float(found.std(0).min()) > 1
    error = (found.mean(0) - exact).abs() / (found.std(0) / len(draws) ** 0.5)
    assert float(error.max()) < 4


def test_the_number_of_heads():
    with pytest.raises(ValueError, match="16 hidden units cannot be divided among 3 heads"):
        new_model(heads=3)
    model = new_model(heads=2)
    assert model.decoder.blocks[0].heads == model.encoder.blocks[0].heads == 2


def test_a_prior_that_the_encoder_cannot_read():
    with pytest.raises(ValueError, match="this encoder reads words"):
        new_model(prior="vamp")


@pytest.mark.parametrize(
    "options",
    [
        {"model.latent_dim": 0},
        {"model.condition": "label"},
        {"model.head": "batch_norm"},
        {"model.posterior": "vmf"},
        {"inference.method": "semi_amortized", "inference.steps": 2},
        {"inference.method": "semi_amortized", "inference.steps": 2, "inference.token_share": 0.5},
        {"inference.method": "svi", "inference.steps": 2, "model.encoder_layers": 0},
        {"train.precision": "bf16", "model.dropout_in": 0.1, "model.dropout_out": 0.1},
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()),
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_methods(options, tiny, tmp_path, capfd):
    run, own = str(tmp_path / "run"), ["--own-model", f"{FILE}:TransformerVAE"]
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    short = ["--train.max_steps", "3", "--data.max_length", "20"]
    assert main(["train", "--out", run, *tiny, *short, *words, *own]) == 0
    assert main(["evaluate", run, "--samples", "2", "--generations", "3", *own]) == 0
    capfd.readouterr()
    assert main(["sample", run, "-n", "3", *own]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 3
    if "model.condition" in options:
        assert main(["sample", run, "-n", "2", "--condition", "1", *own]) == 0
        model = Model.from_pretrained(run)
        z = torch.zeros(1, 4)
        first, second = (model.decoder.with_condition(z, torch.tensor([y])) for y in (0, 1))
        logits = [model.decoder.stepper(each).step(torch.tensor([BOS])) for each in (first, second)]
        assert not torch.equal(*logits)
        means = [model.encode(["a cat sees"], condition=y).mean for y in ("0", "1")]
        assert not torch.equal(*means)


def test_a_run_on_the_command_line(tiny, tmp_path, capfd):
    """Trained in two parts, it has the weights of a run without a break."""
    own = ["--own-model", f"{FILE}:TransformerVAE"]
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    options = [*tiny, *own, "--optim.name", "adam", "--optim.lr", "0.003"]
    assert main(["train", "--out", whole, *options, "--train.max_steps", "8"]) == 0
    assert main(["train", "--out", parts, *options, "--train.max_steps", "3"]) == 0
    assert main(["train", "--resume", parts, "--train.max_steps", "8", *own]) == 0
    weights = [Model.from_pretrained(run).state_dict() for run in (whole, parts)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert main(["evaluate", parts, "--samples", "4", "--generations", "5", *own]) == 0
    card = json.loads((Path(parts) / "metrics/test.json").read_text())
    assert card["elbo"] <= card["iw"] < 0
    capfd.readouterr()
    for words in (
        ["sample", parts, "-n", "4"],
        ["sample", parts, "-n", "4", "--num-beams", "3"],
        ["reconstruct", parts, "the cat sees the tree", "a dog", "my fish", "a bird eats"],
        ["interpolate", parts, "the cat sees the tree", "a dog", "--steps", "4"],
    ):
        assert main([*words, *own]) == 0, words
        assert len(capfd.readouterr().out.splitlines()) >= 4, words


def test_training_in_python_learns_the_words(corpus, tmp_path):
    config = textvae.Config.load(
        data={"dir": str(corpus), "tokenized": True, "batch_size": 16},
        model=SIZES | {"latent_dim": 4},
        optim={"name": "adam", "lr": 0.01},
        train={"epochs": 8, "samples": 0, "precision": "fp32", "threads": 1},
    )
    model = textvae.train(config, tmp_path / "run", model_class=partial(Model, heads=2))
    assert Model.from_pretrained(tmp_path / "run").heads == model.heads == 2
    card = textvae.evaluate_run(tmp_path / "run", model=model, samples=10)
    assert card["ppl_iw"] < 5  # 17 for a uniform distribution over the vocabulary
