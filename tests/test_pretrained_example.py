"""The example of a pretrained language model: its tokenizer, its decoder, and a run."""

import json
import runpy
from pathlib import Path

import pytest
import torch

import textvae
from textvae.cli.main import main
from textvae.text.decode.token_log_probs import token_log_probs
from textvae.text.tokenizers import load_tokenizer

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

FILE = Path(__file__).parent.parent / "examples" / "pretrained_text_model.py"
PARTS = runpy.run_path(str(FILE))
TEXTS = ["the cat sees a dog", "a dog", "does the caf\u00e9 open ? yes , it does", "the dog saw it"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder of a tiny language model with random weights and a byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("pretrained")
    learned = tokenizers.Tokenizer(tokenizers.models.BPE())
    learned.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learned.train_from_iterator(TEXTS * 5, trainer)
    learned.save(str(folder / "tokenizer.json"))
    size = learned.get_vocab_size() + 3  # as many embeddings are padded
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "initializer_range": 0.3}
    ends = {"bos_token_id": 1, "eos_token_id": 0}
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=size, **sizes, **ends)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model_class(pretrained):
    return type("Tiny", (PARTS["PretrainedVAE"],), {"PRETRAINED": str(pretrained)})


@pytest.fixture
def model(model_class, pretrained):
    words = load_tokenizer(pretrained)
    torch.manual_seed(1)
    made = model_class(vocab_size=len(words), latent_dim=3, max_length=30).eval()
    made.tokenizer = words
    torch.nn.init.normal_(made.decoder.from_z.weight, std=0.5)
    return made


def test_it_starts_from_the_pretrained_weights(model, pretrained):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(pretrained)
    expected = theirs.get_input_embeddings().weight
    for part in (model.encoder, model.decoder):
        assert torch.equal(part.model.get_input_embeddings().weight, expected)
    torch.nn.init.zeros_(model.decoder.from_z.weight)
    ids = torch.tensor([[1, *load_tokenizer(pretrained)._tokenizer.encode(TEXTS[0]).ids]])
    embedded = torch.cat([torch.zeros(1, 1, 16), theirs.get_input_embeddings()(ids)], 1)
    with torch.no_grad():
        logits = theirs(inputs_embeds=embedded).logits[0, 1:, : len(model.tokenizer) - 4]
        log_p = logits.log_softmax(-1)
        expected = log_p[:-1].gather(1, ids[0, 1:, None]).sum() + log_p[-1, 0]
        (batch,) = model.batches(TEXTS[:1], 1)
        found = model.decoder.log_prob(batch, torch.zeros(1, 1, 3))
    assert found.item() == pytest.approx(expected.item(), abs=1e-4)


def test_log_prob_is_what_the_stepper_predicts_whatever_the_padding(model):
    (batch,) = model.batches(TEXTS, 8)
    z = torch.randn(2, len(TEXTS), 3)
    with torch.no_grad():
        found = model.decoder.log_prob(batch, z)
        for k, draws in enumerate(z):
            steps = token_log_probs(model.decoder.stepper(draws), batch.x).sum(1)
            assert torch.allclose(found[k], steps, atol=1e-4)
        longer = textvae.Batch(torch.nn.functional.pad(batch.x, (0, 5)))
        assert torch.allclose(model.decoder.log_prob(longer, z), found, atol=1e-4)
        q, padded = model.encoder(batch), model.encoder(longer)
        assert torch.allclose(q.mean, padded.mean, atol=1e-5)
        other = model.decoder.log_prob(batch, z + 1)
    assert not torch.allclose(found, other, atol=0.1)


def test_no_word_sees_a_later_one(model):
    (one,) = model.batches(["the cat sees"], 1)
    (other,) = model.batches(["the cat saw"], 1)
    z = torch.randn(1, 3)
    first, second = (token_log_probs(model.decoder.stepper(z), each.x)[0] for each in (one, other))
    same = int((one.x[0, 1:] == other.x[0, 1:]).long().cumprod(0).sum())
    assert same >= 2 and torch.allclose(first[:same], second[:same], atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "top_p": 0.9}])
def test_texts_do_not_depend_on_the_batch(model, options):
    z = torch.randn(5, 3)
    together = model.decode(z, seed=3, max_new_tokens=8, **options)
    apart = [
        model.decode(z[i : i + 1], seed=3, first_row=i, max_new_tokens=8, **options)[0]
        for i in range(5)
    ]
    assert together == apart


def test_a_run_on_the_command_line(pretrained, model_class, tmp_path, capfd):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS * 20), encoding="utf-8")
    mine = tmp_path / "mine.py"
    mine.write_text(
        f"{FILE.read_text(encoding='utf-8')}\n\n"
        f"class Tiny(PretrainedVAE):\n    PRETRAINED = {str(pretrained)!r}\n",
        encoding="utf-8",
    )
    own = ["--own-model", f"{mine}:Tiny"]
    run = tmp_path / "run"
    command = ["train", "--out", str(run), "--data.dir", str(texts), "--data.tokenized", "false"]
    command += ["--tokenizer.path", str(pretrained), "--data.max_length", "35", *own]
    command += ["--model.latent_dim", "3", "--optim.name", "adam", "--optim.lr", "0.01"]
    command += ["--train.epochs", "30", "--train.samples", "2"]
    assert main(command) == 0, capfd.readouterr().err
    assert main(["evaluate", str(run), "--samples", "3", *own]) == 0, capfd.readouterr().err
    card = json.loads((run / "metrics" / "test.json").read_text())
    assert 1 < card["ppl_iw"] < 60
    config = json.loads((run / "config.json").read_text())
    assert config["architecture"]["model_type"] == "gpt2"
    away = pretrained.rename(tmp_path / "away")  # a saved model does not need it
    try:
        capfd.readouterr()
        assert main(["sample", str(run), "-n", "2", "--num-beams", "2", *own]) == 0
        assert len(capfd.readouterr().out.splitlines()) == 2
        assert main(["explain", str(run), "the cat sees a dog", *own]) == 0
        assert capfd.readouterr().out.split()[:5] == ["the", "cat", "sees", "a", "dog"]
    finally:
        away.rename(pretrained)


def test_what_does_not_fit_is_one_line(pretrained, model_class, model, tmp_path):
    endless = transformers.AutoModelForCausalLM.from_pretrained(pretrained)
    endless.config.eos_token_id = endless.generation_config.eos_token_id = None
    endless.save_pretrained(tmp_path)
    kind = type("Endless", (PARTS["PretrainedVAE"],), {"PRETRAINED": str(tmp_path)})
    with pytest.raises(ValueError, match=r"has no token for the end of a text: set eos_token_id"):
        kind(vocab_size=len(model.tokenizer), latent_dim=3)
    with pytest.raises(ValueError, match="the tokenizer has 896 tokens, but the pretrained model"):
        model_class(vocab_size=900, latent_dim=3)
    long = textvae.Batch(torch.full((1, 41), 9))
    with pytest.raises(ValueError, match=r"has 40 positions: set --data\.max_length 39 or less"):
        model_class(vocab_size=len(model.tokenizer), latent_dim=3, max_length=40)
    kind = type("Missing", (PARTS["PretrainedVAE"],), {"PRETRAINED": str(tmp_path / "missing")})
    with pytest.raises(textvae.UserError, match=r"missing cannot be loaded: "):
        kind(vocab_size=len(model.tokenizer), latent_dim=3)
    with pytest.raises(textvae.UserError, match="has 40 positions: allow at most 39 tokens"):
        model.decoder.log_prob(long, torch.zeros(1, 1, 3))
