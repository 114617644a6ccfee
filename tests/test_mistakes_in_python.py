"""What is wrong in a call from Python is said in one line, before anything is computed from it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import textvae
from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.training.interrupt import Interrupted
from textvae.training.own_checks import check_objective
from textvae.vae.conditioning import codes_of
from textvae.vae.conditions import Classes


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = textvae.TextVAE(12, latent_dim=2, encoder_hidden=4, decoder_hidden=4)
    model.tokenizer = textvae.WordTokenizer.train(["a b c d e f g h"])
    return model.eval()


class Table(SimpleNamespace):
    """A table iterates over the names of its columns, as in pandas."""

    def __iter__(self):
        return iter(self.columns)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (Table(columns=["text"]), r"not a Table: pass one column, such as table\['text'\]"),
        ({"text": ["a b"]}, "not a dict"),
        ({"a b"}, "not a set"),
        (Path("texts.txt"), "not a PosixPath: pass the lines"),
        (None, "not None"),
        (3, "not 3"),
        (["a", 3], "texts must be strings, not int: 3"),
    ],
)
def test_texts_are_a_list_of_strings(model, texts, said):
    for use in (model.encode, model.reconstruct, lambda given: textvae.score(model, given)):
        with pytest.raises(TypeError, match=said):
            use(texts)


def test_the_name_of_a_file_is_a_text_with_a_warning(model, tmp_path, caplog):
    path = tmp_path / "texts.txt"
    path.write_text("a b\n")
    assert len(model.encode(str(path)).mean) == 1
    assert "is read as text, although a file of this name exists" in caplog.text
    caplog.clear()
    model.encode("a" * 10_000 + "\0")
    assert not caplog.text


def test_a_column_of_texts_is_encoded(model):
    column = np.array(["a b", "c"], dtype=object)
    assert torch.equal(model.encode(column).mean, model.encode(["a b", "c"]).mean)
    assert len(model.encode("a b").mean) == len(model.encode(iter(["a b"])).mean) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 1.5}, "seed=1.5: must be an integer"),
        ({"seed": 2**70}, "must be an integer of 64 bits"),
        ({"seed": "x"}, "seed='x': must be an integer"),
        ({"batch_size": "3"}, "batch_size='3': must be an integer"),
        ({"batch_size": 2.0}, "batch_size=2.0: must be an integer"),
        ({"batch_size": True}, "batch_size=True: must be an integer"),
        ({"seed": False}, "seed=False: must be an integer"),
        ({"temperature": True}, "temperature=True: must be a finite number"),
        ({"refine_steps": -1}, "refine_steps=-1: must be at least 0"),
    ],
)
def test_numbers_in_a_call(model, options, said):
    with pytest.raises(UserError, match=said):
        model.reconstruct(["a b"], use="sample", **options)


@pytest.mark.parametrize("z", ["hello", None, [["a", "b"]], object()])
def test_z_is_a_tensor(model, z):
    with pytest.raises(TypeError, match=r"z must be a tensor \(N, 2\), not"):
        model.decode(z)


@pytest.mark.parametrize(
    ("prior", "error", "said"),
    [
        (-2, ValueError, "-2 dimensions: at least 0"),
        ("standard", TypeError, "the prior is 'standard': pass the number of latent dimensions"),
        (None, TypeError, "the prior is None"),
        (nn.Linear, TypeError, "the prior is a class"),
    ],
)
def test_the_prior_of_a_model(model, prior, error, said):
    with pytest.raises(error, match=said):
        textvae.VAE(model.encoder, model.decoder, prior)


def test_the_parts_of_a_model(model):
    with pytest.raises(TypeError, match=r"the encoder is a class: pass an object, Linear"):
        textvae.VAE(nn.Linear, model.decoder, 2)
    with pytest.raises(TypeError, match=r"the decoder is a class: pass an object, Linear"):
        textvae.VAE(model.encoder, nn.Linear, 2)


class LearnedWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, terms, beta):
        return self.weight * textvae.elbo(terms, beta)


def test_the_parameters_of_an_objective():
    objective = LearnedWeight()
    with pytest.raises(TypeError, match="the objective has parameters, and only those of the mod"):
        check_objective(objective)
    check_objective(objective.requires_grad_(False))


def test_batches_and_inference(model):
    batch = next(iter(model.batches(["a b"], 1)))
    with pytest.raises(TypeError, match="the batch is a list: wrap a tensor"):
        textvae.infer(model, ["a b"])
    with pytest.raises(TypeError, match=r"inference must be a textvae\.Inference"):
        textvae.infer(model, batch, "svi")
    with pytest.raises(ValueError, match="svi starts from the prior, and this model has an enc"):
        textvae.infer(model, batch, textvae.Inference(method="svi"))
    with pytest.raises(ValueError, match="samples=0: must be at least 1"):
        model(batch, samples=0)
    with pytest.raises(TypeError, match="x must be a tensor with B rows, not ndarray"):
        textvae.Batch(np.zeros((2, 3)))
    with pytest.raises(TypeError, match="not a single Batch"):
        textvae.evaluate(model, batch)
    with pytest.raises(TypeError, match=r"is a name: pass the model, textvae\.load"):
        textvae.score("runs/skip", ["a b"])


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"train": {"epochs": "3"}}, "train.epochs 3: must be an integer, not str"),
        ({"train": {"epochs": np.int64(3)}}, "must be an integer, not int64"),
        ({"optim": {"lr": np.float32(0.5)}}, "must be a number, not float32"),
        ({"data": {"dir": ["a\n", "b\n"]}}, r"data.dir \['a\\n', 'b\\n'\]: must be a string$"),
    ],
)
def test_values_of_the_wrong_type(sections, said):
    with pytest.raises(UserError, match=said):
        Config.load(**sections)


def test_a_config_takes_paths_and_checks_its_sections(tmp_path):
    assert Config.load(data={"dir": tmp_path}).data.dir == str(tmp_path)
    with pytest.raises(UserError, match=r"data={'dir': 'x'}: use Config.load\(data="):
        Config(data={"dir": "x"}).check()


def test_a_device_that_does_not_exist_is_not_a_damaged_file(model, tmp_path):
    model.save_pretrained(tmp_path)
    for device in ("nowhere", "cuda:99"):
        with pytest.raises(UserError, match=f"device {device}: "):
            textvae.TextVAE.from_pretrained(tmp_path, map_location=device)


def test_a_file_is_not_a_folder_for_a_run(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "texts.txt").write_text("a b\nc d\n" * 20)
    config = Config.load(data={"dir": tmp_path / "texts.txt", "tokenized": False})
    with pytest.raises(UserError, match="file is a file, not a folder"):
        textvae.train(config, tmp_path / "file")


def test_a_single_card_is_compared():
    card = {"model": "m", "elbo": -3.0}
    assert textvae.compare(card) == textvae.compare([card])


def test_a_loop_that_goes_on_after_errors_ends_when_it_is_interrupted():
    assert issubclass(Interrupted, KeyboardInterrupt) and not issubclass(Interrupted, Exception)


def conditional(**options):
    kind = {"condition": "label", "num_labels": 2} | options
    return textvae.TextVAE(12, latent_dim=2, encoder_hidden=4, decoder_hidden=4, **kind)


def test_a_conditional_model_needs_its_condition(tmp_path):
    with pytest.raises(UserError, match="condition label needs num_labels"):
        conditional(num_labels=0)
    model = conditional()
    model.tokenizer = textvae.WordTokenizer.train(["a b c d e f g h"])
    said = r"conditioned on a label: set model\.condition first, to a textvae\.vae\.cond.*Classes"
    for use in (
        lambda: model.encode(["a"], condition="x"),
        lambda: model.sample(1),
        lambda: model.save_pretrained(tmp_path / "model"),
    ):
        with pytest.raises(UserError, match=said):
            use()
    assert not list(tmp_path.glob("*/*.safetensors"))
    model.condition = textvae.vae.conditions.Classes(("x", "y"), (1, 2))
    model.save_pretrained(tmp_path / "model")
    again = textvae.load(tmp_path / "model")
    assert again.condition == model.condition
    assert again.reconstruct(["a b"], condition="x") == model.eval().reconstruct(
        ["a b"], condition="x"
    )


def test_a_model_is_saved_without_a_tokenizer(model, tmp_path):
    bare = textvae.TextVAE(12, latent_dim=2, encoder_hidden=4, decoder_hidden=4)
    bare.save_pretrained(tmp_path)
    loaded = textvae.load(tmp_path)
    with pytest.raises(UserError, match=r"has no tokenizer: set model\.tokenizer first"):
        loaded.sample(1)
    loaded.tokenizer = model.tokenizer
    assert len(loaded.sample(2)) == 2
    loaded.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        textvae.load(tmp_path)


def test_a_decoder_that_only_scores_cannot_generate(model):
    class Scores(nn.Module):
        def log_prob(self, batch, z):
            return z.sum(-1)

    class Mine(textvae.TextVAE):
        def make_decoder(self, config):
            return Scores()

    mine = Mine(12, latent_dim=2, encoder_hidden=4)
    mine.tokenizer = model.tokenizer
    with pytest.raises(UserError, match="Scores has no method stepper, which generating text"):
        mine.sample(1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 3.0}, "top_k=3.0: must be an integer, at least 0"),
        ({"max_new_tokens": 5.0}, "max_new_tokens=5.0: must be an integer, at least 1"),
        ({"temperature": None}, "temperature=None: must be a finite number"),
        ({"temperature": "1"}, "temperature='1': must be a finite number"),
        ({"num_beams": 2, "length_penalty": float("inf")}, "must be a finite number"),
        ({"repetition_penalty": float("nan")}, "must be a finite number"),
        ({"no_repeat_ngram_size": 1.5}, "must be an integer"),
        ({"n": 1.0}, "n=1.0: must be an integer, at least 0"),
    ],
)
def test_options_of_generation(model, options, said):
    with pytest.raises(UserError, match=said):
        model.sample(**options)


def test_counts_are_integers(model):
    for count in (-1, 2.0):
        with pytest.raises(UserError, match=r"count=.*: must be"):
            model.draw_z(count, 0)
    with pytest.raises(UserError, match=r"dimension 0\.5: this model has 2 latent dimensions"):
        textvae.traverse(model, torch.zeros(2), 0.5, [0, 1])
    assert len(textvae.traverse(model, torch.zeros(2), np.int64(1), 0.5)) == 1
    assert len(model.sample(np.int64(2), top_k=np.int32(3), temperature=np.float32(0.5))) == 2
    for options in ({"samples": "3"}, {"samples": 0}, {"regret_steps": 1.5}):
        with pytest.raises(UserError, match=r"must be (an integer, )?at least"):
            textvae.score(model, ["a"], **options)
    with pytest.raises(UserError, match="walk applies only to image models"):
        model.walk(3)
    with pytest.raises(UserError, match=r"n=2\.5: must be an integer"):
        textvae.neighbors("nowhere", ["a"], n=2.5)
    with pytest.raises(UserError, match="source='priro': choose prior or aggregate; did you mean"):
        model.sample(1, source="priro")


def test_rows_are_counted_from_0(model):
    with pytest.raises(UserError, match="first_row=-5: must be at least 0"):
        model.encode(["a b"], first_row=-5)


def test_refinement_steps_are_an_integer(model):
    with pytest.raises(UserError, match="refine_steps='3': must be an integer"):
        model.encode(["a b"], refine_steps="3")
    steps = [model.encode(["a b"], refine_steps=n).mean for n in (2, np.int64(2))]
    assert torch.equal(*steps)


def test_a_text_is_valid_unicode(model):
    for use in (model.encode, lambda texts: textvae.score(model, texts, samples=1)):
        with pytest.raises(UserError, match=r"'the \\ud800 cat' is not valid Unicode: it cont"):
            use(["the \ud800 cat"])


@pytest.mark.parametrize("given", [{"dog", "cat"}, {"dog": 1}, b"dog", object()])
def test_a_condition_is_a_label_or_a_list_of_them(given):
    condition = Classes(("cat", "dog"), (1, 1))
    with pytest.raises(TypeError, match="condition must be a label or a number, or a list of the"):
        codes_of(condition, given, 2)
    codes = codes_of(condition, (label for label in ("dog", "cat")), 2)
    assert codes.tolist() == [1, 0]


def test_a_card_in_python_has_numbers():
    with pytest.raises(UserError, match="a card has elbo='x': it must be a number"):
        textvae.compare([{"elbo": "x"}])
    with pytest.raises(TypeError, match="runs_or_cards must be a list, not None"):
        textvae.compare(None)
    with pytest.raises(UserError, match=r"there is no option model\.1"):
        Config.load(model={1: 2})
    with pytest.raises(TypeError, match=r"rows must be mappings, .* not 1\.0"):
        textvae.detect([1.0], "a")


def test_an_unknown_option_of_decoding(model):
    with pytest.raises(TypeError, match="there is no option 'num_beam'; did you mean num_beams"):
        model.sample(2, num_beam=3)


def test_texts_to_score(model):
    with pytest.raises(UserError, match="nothing to score: the list is empty"):
        textvae.score(model, [])
    with pytest.raises(TypeError, match="texts must be strings, not NoneType"):
        textvae.score(model, [None])


def test_one_vector_to_traverse(model):
    z = torch.zeros(1, 2)
    expected = textvae.traverse(model, z[0], 0, [-1.0, 1.0])
    assert textvae.traverse(model, z, 0, [-1.0, 1.0]) == expected
    with pytest.raises(UserError, match="z must be a single latent vector, not 3"):
        textvae.traverse(model, z.expand(3, 2), 0, 1.0)
