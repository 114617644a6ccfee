"""Advice against collapse and its relatives, and against diverging training."""

import functools
import itertools
import shlex
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from textvae.builders.model import check_model
from textvae.cli.arguments import parse
from textvae.cli.main import main
from textvae.cli.train import config_of
from textvae.config import recipes
from textvae.config.experiment import (
    Config,
    DataConfig,
    ImagesConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    TrainConfig,
    config_from,
    read_options,
)
from textvae.config.inference import Inference
from textvae.errors import UserError
from textvae.evaluation.diagnosis.advice import overshoot, steadier
from textvae.evaluation.diagnosis.judge import COLLAPSED, PARTIAL, SEVERITY, UNCLEAR
from textvae.evaluation.diagnosis.remedies import remedies_for
from textvae.evaluation.diagnosis.remedy import UNKNOWN, Case, as_read, retrain
from textvae.evaluation.diagnosis.training_state import Training
from textvae.text.model import TextVAE

ROOT = Path(__file__).parent.parent


def config(**parts) -> Config:
    sections = {
        "data": DataConfig,
        "model": ModelConfig,
        "images": ImagesConfig,
        "objective": ObjectiveConfig,
        "inference": Inference,
        "optim": OptimConfig,
        "train": TrainConfig,
    }
    return replace(Config(), **{name: sections[name](**given) for name, given in parts.items()})


ADAM = {"name": "adam", "lr": 0.001}
PLAIN = config(model={"injection": "input"}, optim=ADAM)


def names(remedy) -> list[str]:
    return [Path(file).stem for file in remedy.files]


def first(verdict, **parts):
    return remedies_for(verdict, Case(config(**{"optim": ADAM, **parts})))[0]


def test_the_first_remedy_for_a_collapse_is_what_the_studies_found():
    assert names(first("collapsed", model={"injection": "input"})) == [
        *("skip_vae", "autoencode", "free_bits")
    ]
    assert names(first("collapsed")) == ["autoencode", "free_bits"]  # skip is the default
    assert names(first("collapsed", train={"autoencode_epochs": 2.0})) == ["free_bits"]
    everything = first("collapsed", objective={"free_bits": 4.0}, train={"autoencode_epochs": 2.0})
    assert everything.options == ("--objective.free_bits", "8")


def test_a_pooled_encoder_is_the_second_remedy_where_a_last_state_is_read():
    plain = {"model": {"injection": "input"}}
    assert names(remedies_for("collapsed", Case(PLAIN))[1]) == ["skip_vae", "pooled"]
    for parts in (
        {"model": {"pooling": "mean"}},
        {"data": {"kind": "images"}},
        {"inference": {"method": "svi"}},
    ):
        found = remedies_for("collapsed", Case(config(optim=ADAM, **{**plain, **parts})))
        assert not any("pooled" in names(remedy) for remedy in found)
    own = remedies_for("collapsed", Case(PLAIN, own=True))  # an encoder that nothing is known of
    assert not any("pooled" in remedy.title for remedy in own)


def test_adam_autoencodes_where_sgd_trains_the_rest():
    found = first("collapsed", optim={"name": "sgd", "lr": 1.0})
    assert found.options[-2:] == ("--optim.autoencode_name", "adam")
    assert "With SGD, the encoder would learn nothing in these epochs" in found.reason
    by_sgd = {"train": {"autoencode_epochs": 2.0}, "objective": {"free_bits": 4.0}}
    found = first("collapsed", optim={"name": "sgd"}, **by_sgd)
    assert found.options == ("--optim.autoencode_name", "adam")


@pytest.mark.parametrize("name", ["name", "encoder_name", "autoencode_name"])
def test_adam_is_not_suggested_to_an_encoder_that_has_it(name):
    tried = {"train": {"autoencode_epochs": 2.0}, "objective": {"free_bits": 4.0}}
    for options in (tried, {}):
        found = first("collapsed", optim={"name": "sgd", name: "adam"}, **options)
        assert "adam" not in found.options


def test_a_short_run_autoencodes_for_a_third_of_its_epochs():
    assert "--train.autoencode_epochs" not in first("collapsed", train={"epochs": 30}).options
    short = first("collapsed", train={"epochs": 3}).options
    assert short[:2] == ("--train.autoencode_epochs", "1")


def test_a_large_kl_weight_is_the_first_suspect():
    found = first("collapsed", objective={"beta": 20.0})
    assert found.options == ("--objective.beta", "1") and "20" in found.reason


def test_holes_need_no_training():
    for_run = Case(PLAIN, run=Path("runs/x"))
    assert remedies_for("holes", for_run)[0].command == "textvae sample runs/x --from aggregate"
    sphere = Case(config(model={"posterior": "vmf"}), run=Path("runs/x"))
    assert not any("aggregate" in remedy.command for remedy in remedies_for("holes", sphere))


def test_holes_are_closed_by_the_density_gap():
    def files(**sections) -> list[tuple[str, ...]]:
        return [r.files for r in remedies_for("holes", Case(config(**sections)))]

    gap = ("recipes/methods/density_gap.yaml",)
    pooled = ("recipes/methods/pooled.yaml",)
    normalized = {"model": {"head": "batch_norm"}}
    assert gap in files(model={"pooling": "mean"}) and gap in files(**normalized)
    assert pooled in files() and pooled in files(**normalized)  # before the density gap
    assert gap not in files(objective={"density_gap": 0.5})
    assert gap not in files(model={"posterior": "vmf"})
    svi = {"inference": {"method": "svi"}, "model": {"encoder_layers": 0}}
    assert gap not in files(**svi)


def test_the_number_of_living_dimensions_is_suggested_for_a_partial_collapse():
    found = remedies_for("partly collapsed", Case(PLAIN, alive=11))
    assert ("--model.latent_dim", "11") in [remedy.options for remedy in found]


@pytest.mark.parametrize(
    ("model", "alive", "expected"),
    [
        ({"latent_dim": 5}, 1, "1"),
        ({"latent_dim": 5}, 0, "1"),
        ({"latent_dim": 5, "posterior": "vmf"}, 1, "2"),
        ({"latent_dim": 1}, 0, None),
        ({"latent_dim": 2, "posterior": "vmf"}, 1, None),
    ],
)
def test_a_smaller_latent_space_is_possible_and_smaller(model, alive, expected):
    found = remedies_for("partly collapsed", Case(config(model=model, optim=ADAM), alive=alive))
    sizes = [r.options[1] for r in found if r.options[:1] == ("--model.latent_dim",)]
    assert sizes == ([] if expected is None else [expected])


def test_an_interrupted_run_is_resumed_and_a_finished_one_made_longer():
    run = Path("runs/x")
    stopped = Training(False, 2, 1.0, 1.0, 0.5, -40.0)
    (found,) = remedies_for("under-trained", Case(PLAIN, stopped, run=run))
    assert found.command == "textvae train --resume runs/x"
    (found,) = remedies_for("under-trained", Case(PLAIN, stopped._replace(finished=True), run=run))
    assert found.options == ("--train.epochs", "60") and "0.50 nats" in found.reason


def test_refinement_gets_shorter_or_fewer_steps():
    case = Case(config(inference={"method": "semi_amortized", "lr": 3.0}), best_steps=4)
    options = [remedy.options for remedy in remedies_for("over-refined", case)]
    assert options == [("--inference.lr", "1"), ("--inference.steps", "4")]


def test_a_larger_split_is_suggested_if_there_is_one():
    case = Case(PLAIN, larger_split="train", run=Path("x"))
    assert remedies_for(UNCLEAR, case)[0].command == "textvae diagnose x --split train"
    assert remedies_for(UNCLEAR, Case(PLAIN)) == ()


def test_a_healthy_model_needs_nothing():
    assert remedies_for("healthy", Case(PLAIN)) == ()


CHOICES = {
    "injection": [{"model": {"injection": name}} for name in ("input", "skip")],
    "posterior": [{}, {"model": {"posterior": "vmf"}}, {"model": {"head": "batch_norm"}}],
    "prior": [{}, {"model": {"prior": "vamp"}}],
    "objective": [
        *({}, {"objective": {"free_bits": 4.0}}, {"objective": {"bound": "iwae", "samples": 5}}),
        *({"objective": {"min_kl": 5.0}}, {"objective": {"beta": 0.0, "mmd": 10.0}}),
        {"objective": {"beta": 0.0, "density_gap": 1.0}},
        {"objective": {"beta": 4.0, "free_bits": 2.0, "free_bits_per": "batch"}},
    ],
    "inference": [
        *({}, {"inference": {"method": "semi_amortized"}}, {"inference": {"encoder": "elbo"}}),
        {"inference": {"method": "semi_amortized", "encoder": "kl"}},
        {"inference": {"method": "svi"}, "model": {"encoder_layers": 0}},
    ],
    "train": [
        {},
        {"train": {"autoencode_epochs": 2.0, "max_steps": 500}},
        {"data": {"max_tokens": 999}},
        {"data": {"batch_size": 1}},
    ],
}


def experiments():
    """Every combination of these choices that is a valid experiment, and one for images."""
    for chosen in itertools.product(*CHOICES.values()):
        parts: dict[str, dict] = {}
        for choice in chosen:
            for section, given in choice.items():
                parts.setdefault(section, {}).update(given)
        experiment = config(**parts)
        try:
            check_model(experiment)
        except UserError:
            continue
        yield experiment
    yield config(data={"kind": "images"}, model={"injection": "input"})


@functools.cache
def settings(file: str, kind: str) -> dict[str, dict]:
    """The options in a method file, by section."""
    return read_options([ROOT / file], kind)


def retrained(experiment: Config, remedy) -> Config:
    """The experiment that a remedy trains."""
    options: dict[str, dict] = asdict(experiment)
    for file in remedy.files:
        for section, given in settings(file, experiment.data.kind).items():
            options[section].update(given)
    for option, value in zip(remedy.options[::2], remedy.options[1::2], strict=True):
        section, _, name = option.removeprefix("--").partition(".")
        options[section][name] = yaml.safe_load(value)
    return config_from(options)


def test_no_remedy_breaks_an_experiment_or_leaves_it_as_it_is():
    tried = 0
    for experiment, verdict in itertools.product(experiments(), (*SEVERITY, UNCLEAR)):
        for remedy in remedies_for(verdict, Case(experiment, best_steps=3, alive=5)):
            if remedy.title:
                assert replace(remedy, in_words=True).title  # for models that no recipe has made
                changed = retrained(experiment, remedy)
                check_model(changed)
                assert changed != experiment, (verdict, remedy)
                tried += 1
    assert tried > 1000


@pytest.mark.parametrize("verdict", SEVERITY[1:])
@pytest.mark.parametrize("kind", ["text", "images"])
def test_a_command_can_be_pasted(verdict, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there are no recipes
    run = tmp_path / "my 'best' run"
    run.mkdir()
    experiment = config(data={"kind": kind, "dir": "d"}, model={"injection": "input"})
    experiment.save(run / "config.yaml")
    for remedy in remedies_for(verdict, Case(experiment, best_steps=3, run=run, data="new place")):
        program, *words = shlex.split(remedy.command)
        command, args = parse(words)
        assert program == "textvae" and str(run) in remedy.command.replace("'\"'\"'", "'")
        if command == "train":
            changed = config_of(args)
            assert changed.data.dir == "new place" and changed != experiment
            assert Path(args.out).parent == tmp_path and args.out != str(run)


@pytest.mark.parametrize("name", [".", "..", "../run"])
def test_the_new_run_lies_next_to_the_old_one(name, tmp_path, monkeypatch):
    (tmp_path / "run" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / ("deeper" if name == ".." else ""))
    (remedy, *_) = remedies_for("collapsed", Case(PLAIN, run=Path(name)))
    *_, out = shlex.split(remedy.command)
    assert Path(out).resolve() == tmp_path / "run-skip_vae-autoencode-free_bits"


def test_an_installed_package_has_the_methods(tmp_path, monkeypatch, capsys):
    """As setup.py installs them: in a folder of the package, without the rest of the recipes."""
    shutil.copytree(ROOT / "recipes/methods", tmp_path / "methods")
    monkeypatch.setattr(recipes, "CHECKOUT", tmp_path / "nowhere")
    monkeypatch.setattr(recipes, "PACKAGED", tmp_path / "methods")
    monkeypatch.chdir(tmp_path)
    case = Case(Config(), run=Path("runs/vae"))
    command = retrain(case, ["free_bits"], "why").command
    assert f"--config {tmp_path}/methods/free_bits.yaml" in command
    for name, where in (("methods/mdr", f"it is {tmp_path}/methods/mdr.yaml"), ("toy/base", "")):
        assert main(["train", "--config", f"recipes/{name}.yaml", "--out", "x"]) == 2
        said = capsys.readouterr().err
        assert (where or "recipes are part of the repository") in said
    (tmp_path / "base.yaml").write_text("train: {epochs: 1}\n")
    assert recipes.method_files(tmp_path / "base.yaml", "mdr") == [tmp_path / "methods/mdr.yaml"]


def test_setup_installs_the_methods():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert '"textvae.methods": "recipes/methods"' in setup
    assert recipes.PACKAGED == ROOT / "textvae" / "methods"


def test_a_command_uses_the_recipes_below_the_current_folder(monkeypatch):
    monkeypatch.chdir(ROOT)
    (remedy, *_) = remedies_for("collapsed", Case(PLAIN, run=Path("runs/vae")))
    assert remedy.command == (
        "textvae train --config runs/vae/config.yaml --config recipes/methods/skip_vae.yaml "
        "--config recipes/methods/autoencode.yaml --config recipes/methods/free_bits.yaml "
        "--out runs/vae-skip_vae-autoencode-free_bits"
    )


def test_refinement_that_overshoots_needs_shorter_steps():
    said = overshoot(-2.7, config(inference={"method": "semi_amortized", "lr": 0.3}))
    assert said.startswith("refinement lowers the ELBO by 2.70 nats")
    assert said.endswith("try --inference.lr 0.1")


def test_steadier_names_only_what_is_not_done_yet():
    refined = config(inference={"method": "semi_amortized", "lr": 1.0}, train={"precision": "bf16"})
    assert steadier(refined) == (
        "try --optim.lr 0.3 or --optim.name adam --optim.lr 0.001 or --inference.lr 0.3 "
        "or --train.precision fp32"
    )
    free = config(inference={"method": "semi_amortized", "max_growth": 0.0})
    assert "or --inference.max_growth 3" in steadier(free)
    plain = config(optim={"name": "adam", "lr": 0.001}, train={"precision": "fp32"})
    assert steadier(plain) == "try --optim.lr 0.0003"


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steadier_names_options_that_the_command_line_takes(name):
    advised = steadier(config(optim={"name": name}, inference={"method": "svi"}))
    options = advised.removeprefix("try ").replace(" or ", " ").split()
    _, args = parse(["train", "--out", "run", "--data.dir", "corpus", *options])
    assert config_of(args).optim.lr < OptimConfig().lr


def test_a_model_that_no_recipe_made_is_advised_in_words():
    found = {verdict: remedies_for(verdict, Case(UNKNOWN, alive=3)) for verdict in SEVERITY}
    titles = [remedy.title for remedies in found.values() for remedy in remedies]
    assert not any(".yaml" in title or "--model" in title for title in titles)
    assert found[COLLAPSED][0].title == "skip connections from z + autoencoding first + free bits"
    assert found[PARTIAL][-1].title == "latent_dim 3"


class Own(TextVAE):
    """A class of the user's own, with the decoder of textvae."""


def test_a_class_of_ones_own_keeps_what_its_decoder_has():
    model = Own(10, latent_dim=2, embedding_dim=4, encoder_hidden=4, decoder_hidden=4)
    read = as_read(config(model={"injection": "skip"}), model)
    assert read.model.injection == "skip" and read.model.latent_dim == UNKNOWN.model.latent_dim


def test_a_remedy_that_was_tried_is_compared(tmp_path):
    case = Case(PLAIN, run=tmp_path / "vae")
    words = shlex.split(remedies_for(COLLAPSED, case)[0].command)
    tried = Path(words[words.index("--out") + 1])
    tried.mkdir()
    (tried / "config.yaml").touch()
    again = remedies_for(COLLAPSED, case)[0]
    assert again.command == shlex.join(["textvae", "compare", str(tmp_path / "vae"), str(tried)])
    assert again.reason.endswith(f"(already tried in {tried})")


def test_more_examples_keep_the_baseline():
    case = Case(PLAIN, larger_split="test", run=Path("run"), baseline="lm")
    (remedy,) = remedies_for(UNCLEAR, case)
    assert remedy.command == "textvae diagnose run --split test --baseline lm"
