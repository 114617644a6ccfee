"""Configs: stacks of YAML, the same validation for all sources of options, the complete record."""

import json
import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from textvae.cli.arguments import parse
from textvae.cli.train import config_of
from textvae.config import Config
from textvae.config.arguments import check_choice, check_integers, check_numbers, check_shares
from textvae.config.experiment import (
    OPTIONS,
    DataConfig,
    ImagesConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    TokenizerConfig,
    TrainConfig,
)
from textvae.config.inference import Inference
from textvae.config.types import LARGEST_INT, mistake
from textvae.errors import UserError


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str):
        path = tmp_path / f"{name}.yaml"
        path.write_text(content, encoding="utf-8")
        return path

    return write


def given(*words) -> Config:
    """The experiment that a command line asks for."""
    return config_of(parse(["train", *map(str, words)])[1])


def test_later_files_win_and_keep_the_rest_of_a_section(write):
    a = write("a", "model: {latent_dim: 5, injection: init}\ntrain: {epochs: 3}\n")
    b = write("b", "model: {latent_dim: 6}\noptim: {lr: 0.5}\n")
    config = Config.load(a, b)
    assert config.model == ModelConfig(latent_dim=6, injection="init")
    assert config.train == TrainConfig(epochs=3) and config.optim == OptimConfig(lr=0.5)
    assert Config.load(b, a).model.latent_dim == 5
    assert Config.load() == Config()


def test_the_command_line_overrides_files_in_any_order(write):
    a = write("a", "model: {latent_dim: 5, injection: init}\n")
    b = write("b", "model: {latent_dim: 6}\n")
    assert given("--config", a, f"--config={b}") == Config.load(a, b)
    for words in (
        ["--model.latent_dim", 7, "--config", a, "--config", b],
        ["--config", a, "--model.latent_dim=7", "--config", b],
        ["--config", a, "--config", b, "--model.latent_dim", 7],
    ):
        assert given(*words).model == ModelConfig(latent_dim=7, injection="init")


def test_a_resumed_run_starts_from_its_config(tmp_path, write):
    Config(model=ModelConfig(latent_dim=5, injection="init")).save(tmp_path / "config.yaml")
    more = write("more", "train: {epochs: 99}\nmodel: {latent_dim: 6}\n")
    assert given("--resume", tmp_path) == Config.load(tmp_path / "config.yaml")
    config = given("--config", more, "--resume", tmp_path, "--train.seed", 3)
    assert config.model == ModelConfig(latent_dim=6, injection="init")
    assert config.train == TrainConfig(epochs=99, seed=3)


def test_help_shows_the_defaults_of_the_files(write, capsys):
    with pytest.raises(SystemExit):
        parse(["train", "--config", str(write("a", "model: {latent_dim: 77}\n")), "--help"])
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "(integer >= 0, default: 77)" in shown


@pytest.mark.parametrize("kind", ["text", "images"])
def test_a_saved_config_is_complete_and_read_back(kind, tmp_path):
    config = Config(data=DataConfig(kind=kind, dir="place: {é}"), optim=OptimConfig(lr=1e-5))
    config.save(tmp_path / "deep" / "c.yaml")
    text = (tmp_path / "deep" / "c.yaml").read_text(encoding="utf-8")
    assert text == config.to_yaml() and Config.load(tmp_path / "deep" / "c.yaml") == config
    assert ("tokenizer:" in text, "images:" in text) == (kind == "text", kind == "images")
    assert ("token_share" in text, "word_dropout" in text) == (kind == "text",) * 2
    assert not list((tmp_path / "deep").glob(".*"))


def test_numbers_as_people_write_them(write):
    config = Config.load(write("a", "optim: {lr: 1e-3, weight_decay: 5E-4, clip: 1}\n"))
    assert (config.optim.lr, config.optim.weight_decay, config.optim.clip) == (0.001, 0.0005, 1)


MISTAKES = [
    ("model: {latent_dim: -1}", "line 1: model.latent_dim -1: must be at least 0"),
    ("optim:\n  lr: 0", "line 2: optim.lr 0: must be above 0"),
    ("optim:\n  lr: .inf", "line 2: optim.lr inf: must be finite"),
    ("optim:\n  lr: .nan", "must be finite"),
    ("optim:\n  lr:", "line 2: optim.lr null: must be a number"),
    ("optim:\n  lr: null", "optim.lr null: must be a number"),
    ("train:\n  epochs: null", "train.epochs null: must be an integer"),
    ("train: {epochs: 2.0}", "train.epochs 2.0: must be an integer"),
    ("train: {epochs: true}", "train.epochs True: must be an integer"),
    ("train: {threads: 9999}", "train.threads 9999: must be above 0 and at most 1024"),
    ("model: {kappa: 1e5}", "model.kappa 100000.0: must be above 0 and at most 10000"),
    ("train: {max_steps: 0}", "train.max_steps 0: must be above 0"),
    ("train: {seed: 9223372036854775808}", "must be at least 0 and at most 9223372036854775807"),
    ("model: {tie_embeddings: 1}", "tie_embeddings 1: must be true or false"),
    ("model: {dropout_in: 1.0}", "dropout_in 1.0: must be at least 0 and below 1"),
    ("data: {dir: 3}", "data.dir 3: must be a string"),
    ("data: {dir: 2001-13-45}", "line 1: data.dir 2001-13-45: cannot be read as a value"),
    ("data: {dir: !!python/name:os.system x}", "cannot be read as a value"),
    ("model: {latent_dim: !!int abc}", "model.latent_dim abc: cannot be read as a value"),
    ("model: {injection: skp}", "choose one of none, init, input, skip; did you mean skip?"),
    ("model:\n  latent_dim: [1, 2]", "line 2: model.latent_dim is an option: give it a single"),
    ("model:\n  latent_dim: {a: 1}", "line 2: model.latent_dim is an option: give it a single"),
    ("model:\n  [a, b]: 3", "line 2: must be the name of an option"),
    ("? [a]\n: 3", "line 1: must be the name of a section"),
    ("model: &m {latent_dim: 3}\noptim: *m", "line 1: there is no option optim.latent_dim"),
    ("model: {<<: {latent_dim: 3}}", "there is no option model.<<"),
    ("model: " + "[" * 5000, "nested too deeply"),
    ("data: {kind: images}\ntokenizer: {kind: char}", "line 2: tokenizer.kind does not apply"),
]


@pytest.mark.parametrize(("content", "message"), MISTAKES, ids=[c[:40] for c, _ in MISTAKES])
def test_an_error_in_a_file_is_one_line(content, message, write):
    with pytest.raises(UserError) as error:
        Config.load(write("bad", content))
    assert message in str(error.value) and "bad.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_alias_bomb_is_not_expanded(write):
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))
    with pytest.raises(UserError, match="there is no section a0"):
        Config.load(write("bomb", f"a0: &a0 x\n{levels}\n"))


WRONG = [
    (Config(model=ModelConfig(latent_dim=-1)), "model.latent_dim -1: must be at least 0"),
    (Config(optim=OptimConfig(lr="fast")), "optim.lr fast: must be a number"),
    (Config(optim=OptimConfig(name="lion")), "optim.name lion: choose one of sgd, adam"),
    (Config(objective=ObjectiveConfig(kl_ramp=0)), "kl_ramp 0: must be above 0 and at most 1"),
    (Config(images=ImagesConfig(encoder="mlp")), "images.encoder does not apply"),
    (
        Config(data=DataConfig(kind="images"), tokenizer=TokenizerConfig(min_count=2)),
        "tokenizer.min_count does not apply if --data.kind is images",
    ),
]


@pytest.mark.parametrize(("config", "message"), WRONG, ids=[m for _, m in WRONG])
def test_an_error_in_python_is_one_line(config, message):
    with pytest.raises(UserError, match=re.escape(message)):
        config.check()


def test_the_defaults_are_valid():
    Config().check()
    Config(data=DataConfig(kind="images")).check()
    Config(optim=OptimConfig(lr=1)).check()  # an integer is a number


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optim.lr", "0"], "--optim.lr 0: must be above 0"),
        (["--optim.lr", "inf"], "--optim.lr inf: must be finite"),
        (["--optim.lr", "null"], "--optim.lr null: must be a number"),
        (["--train.max_steps", "0"], "--train.max_steps 0: must be above 0"),
        (["--train.epochs", "null"], "--train.epochs null: must be an integer"),
        (["--tokenizer.kind", "char", "--data.kind", "images"], "--tokenizer.kind does not apply"),
        (["--data.kind", "sounds"], "--data.kind sounds: choose one of text, images"),
        (["--config"], "--config: expected one argument"),
    ],
)
def test_an_error_on_the_command_line_is_one_line(words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        given(*words)


def test_only_optional_options_accept_null():
    optional = [
        f"{section}.{name}"
        for section, types in OPTIONS.items()
        for name, kind in types.items()
        if mistake(kind, None) is None
    ]
    assert "train.max_steps" in optional and "model.init_scale" in optional
    defaults = Config()
    for section, types in OPTIONS.items():
        for name in types:
            value = getattr(getattr(defaults, section), name)
            assert value is not None or f"{section}.{name}" in optional


def test_a_method_may_have_options_for_both_kinds_of_data(write):
    images = write("images", "data: {kind: images}\n")
    svi = "model: {encoder_layers: 0}\nimages: {encoder_layers: 0}\ninference: {method: svi}\n"
    method = write("svi", svi)
    config = Config.load(images, method)
    assert config.images.encoder_layers == 0 and config.model == ModelConfig()
    config.check()
    config = Config.load(method)
    assert config.model.encoder_layers == 0 and config.images == ImagesConfig()
    config.check()
    assert given("--config", method, "--data.kind", "images").images.encoder_layers == 0
    with pytest.raises(UserError, match=r"words\.yaml, line 1: model\.word_dropout does not apply"):
        Config.load(images, write("words", "model: {word_dropout: 0.3}\n"))


def test_inference_json(tmp_path):
    path = tmp_path / "inference.json"
    options = Inference(method="svi", steps=3)
    options.save(path)
    assert Inference.load(path) == options
    for record, message in (
        ({"steps": "x"}, "inference.json: steps x: must be an integer"),
        ({"lr": -1}, "lr -1: must be above 0"),
        ({"method": ["svi"]}, "choose one of"),
        ({"stops": 4}, "does not know 'stops'"),
    ):
        path.write_text(json.dumps(record))
        with pytest.raises(UserError, match=re.escape(message)):
            Inference.load(path)


def test_files_of_the_first_release_have_their_spelling_of_the_method(tmp_path):
    path = tmp_path / "inference.json"
    path.write_text('{"method": "semi_amortised", "steps": 7}')
    assert Inference.load(path) == Inference(method="semi_amortized", steps=7)
    path = tmp_path / "config.yaml"
    path.write_text("inference: {method: amortised}\ntokenizer: {kind: char}")
    assert Config.load(path).inference.method == "amortized"
    path.write_text("inference: {method: amortisated}")
    with pytest.raises(UserError, match="choose one of amortized"):
        Config.load(path)


def test_a_config_json_is_checked_like_the_options():
    from textvae.images.model import ImageVAE
    from textvae.text.model import TextVAE

    sizes = {"vocab_size": 9, "embedding_dim": 4, "encoder_hidden": 4, "decoder_hidden": 4}
    for wrong, message in (
        ({"latent_dim": -1}, "model: latent_dim -1: must be at least 0"),
        ({"vocab_size": 4}, "vocab_size 4: must be at least 5"),
        ({"max_length": 0}, "max_length 0: must be above 0"),
        ({"injection": None}, "injection null: choose one of"),
    ):
        with pytest.raises(UserError, match=message):
            TextVAE(**(sizes | wrong))
    with pytest.raises(UserError, match="height 0: must be above 0"):
        ImageVAE(0, 8)


def test_a_record_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        replace(Config()).save(tmp_path / "file" / "c.yaml")


def test_sections_override_the_files(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {epochs: 3, seed: 4}\n", encoding="utf-8")
    config = Config.load(tmp_path / "a.yaml", train={"epochs": 5}, data={"dir": "x.txt"})
    assert (config.train.epochs, config.train.seed, config.data.dir) == (5, 4, "x.txt")
    with pytest.raises(UserError, match="did you mean train"):
        Config.load(trian={"epochs": 5})
    with pytest.raises(UserError, match=r"no option train\.epoch; did you mean train\.epochs"):
        Config.load(train={"epoch": 5})
    with pytest.raises(UserError, match=r"train\.epochs 0"):
        Config.load(train={"epochs": 0})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder": "unroled"}, "inference.encoder unroled: .* did you mean unrolled"),
        ({"loss_per": "exampel"}, "inference.loss_per exampel"),
        ({"steps": -3}, "inference.steps -3: must be above 0"),
        ({"lr": "fast"}, "inference.lr fast: must be a number"),
    ],
)
def test_options_of_inference_are_checked_in_python(wrong, message):
    with pytest.raises(UserError, match=message):
        Inference(**wrong)


def test_arguments_in_range():
    check_integers(0, a=0, b=np.int64(3), c=LARGEST_INT)
    check_integers(1, 5, a=1, b=5)
    check_numbers(a=0, b=-1.5, c=np.float32(2.0), d=np.int64(3))
    check_shares(a=0, b=0.999)
    check_choice(["one", "two"], a="two")


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (partial(check_integers, 1), 0, "a=0: must be at least 1"),
        (partial(check_integers, 1), 1.0, "a=1.0: must be an integer, at least 1"),
        (
            partial(check_integers, 1),
            LARGEST_INT + 1,
            f"must be at least 1 and at most {LARGEST_INT}",
        ),
        (partial(check_integers, 1, 5), 6, "a=6: must be at least 1 and at most 5"),
        (partial(check_integers, 1, 5), "x", "must be an integer, at least 1 and at most 5"),
        *((check_numbers, value, "must be a finite number") for value in (math.nan, math.inf, "1")),
        (check_numbers, None, "a=None: must be a finite number"),
        *((check_shares, value, "at least 0 and below 1") for value in (1, 1.0, -0.1)),
        (check_shares, math.nan, "must be a finite number"),
        (partial(check_choice, ["one", "two"]), "tw", "choose one or two; did you mean two"),
        (partial(check_choice, ["one", "two", "six"]), None, "choose one, two, or six"),
    ],
)
def test_an_argument_out_of_range_is_one_line(check, value, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check(a=value)
