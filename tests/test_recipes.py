"""Every dataset with every method: the stack parses, is complete when saved, and trains."""

import itertools
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from textvae.cli.arguments import parse
from textvae.cli.train import config_of
from textvae.config.experiment import Config, options_read
from textvae.config.recipes import method_files
from textvae.errors import UserError
from textvae.images.drawings import Drawings, write_drawings
from textvae.training.sweeps.grid import make_grid
from textvae.training.train import train

ROOT = Path(__file__).parent.parent
METHODS = sorted(ROOT.glob("recipes/methods/*.yaml"))
SCRIPTS = sorted(ROOT.glob("recipes/*/run.sh"))
SETS = [path.parent.name for path in SCRIPTS]
OF_IMAGES = ("digits", "mnist", "omniglot")
SIZES = {
    "yahoo": ("small", "small-long", "z64"),
    "yelp": ("small",),
    "digits": ("mlp",),
    "mnist": ("mlp", "small"),
    "omniglot": ("mlp", "small"),
}
TINY = ["--data.batch_size", "4", "--train.max_steps", "2", "--train.samples", "0"]
TINY += ["--inference.steps", "2"]
TINY_TEXT = [
    *("--model.embedding_dim", "8", "--model.encoder_hidden", "8"),
    *("--model.decoder_hidden", "8", "--data.format", "auto"),
]
TINY_IMAGES = ["--images.encoder_hidden", "4", "--images.decoder_hidden", "4"]


def stack(recipe: str, model: str) -> list[Path]:
    base = ROOT / "recipes" / recipe / "base.yaml"
    return [base, *method_files(base, model)]


def makes_sense(recipe: str, size: str, method: str) -> bool:
    """Image decoders have no initial state and read no words; an MLP decoder needs z.

    Other sizes are tested only with the first methods.
    """
    if size and method not in ("lm", "vae", "skip_vae"):
        return False
    if recipe in OF_IMAGES:
        of_text = ("init", "word_dropout", "denoising", "pooled", "bag_of_words")
        return method not in of_text and (size, method) != ("mlp", "lm")
    return (size, method) != ("z64", "lm")


STACKS = [
    (recipe, "-".join(filter(None, (size, method.stem))))
    for recipe in SETS
    for size, method in itertools.product(("", *SIZES.get(recipe, ())), METHODS)
    if makes_sense(recipe, size, method.stem)
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    words = [(a, b, c) for a in "abcde" for b in ("sees", "likes") for c in "vwxyz"]
    lines = [f"{a}\tthe {a} {b} the {c} ." for a, b, c in words]
    (folder / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "valid.txt").write_text("\n".join(lines[:8]), encoding="utf-8")
    gray = np.random.default_rng(0).integers(256, size=(24, 8, 8), dtype=np.uint8)
    for split in ("train", "valid"):
        write_drawings(folder / f"{split}.npz", Drawings(gray, np.arange(24) % 3, list("abc")))
    return folder


@pytest.mark.parametrize(("recipe", "model"), STACKS, ids=[f"{r}-{m}" for r, m in STACKS])
def test_a_stack_is_complete_and_trains_two_steps(recipe, model, corpus, tmp_path):
    files = stack(recipe, model)
    config = Config.load(*files)
    config.save(tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert {part: tuple(options) for part, options in saved.items()} == options_read(config)
    assert Config.load(tmp_path / "config.yaml") == config

    tiny = TINY_IMAGES if recipe in OF_IMAGES else TINY_TEXT
    stacked = [word for file in files for word in ("--config", str(file))]
    _, args = parse(["train", *stacked, "--data.dir", str(corpus), *TINY, *tiny])
    train(config_of(args), tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_method_is_a_few_lines_that_explain_themselves(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and 1 <= len(lines) <= 8
    assert max(map(len, lines)) <= 110


def test_a_method_that_does_not_apply_to_the_data_is_one_line():
    with pytest.raises(
        UserError, match=r"word_dropout\.yaml, line 3: model\.word_dropout does not"
    ):
        Config.load(*stack("digits", "word_dropout"))


def test_the_models_of_a_recipe_are_stacks():
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        models = text.partition('\nmodels="')[2].partition('"')[0].split()
        assert models
        for model in models:
            assert stack(script.parent.name, model)


def test_the_sweeps_of_the_image_recipes_are_grids():
    """What a recipe passes to ``textvae sweep``, which is here only a name."""
    for recipe in ("mnist", "omniglot"):
        base = ROOT / "recipes" / recipe / "base.yaml"
        text = (base.parent / "run.sh").read_text(encoding="utf-8").replace("\\\n", " ")
        sweeps = re.findall(r'^  sweep \d+ "[^"]*" +"([^"]*)" +--vary (\S+)$', text, re.MULTILINE)
        assert len(sweeps) == text.count("\n  sweep ") > 0
        for models, vary in sweeps:
            option, _, values = vary.partition("=")
            grid = {option: [int(value) for value in values.split(",")]}
            cells = make_grid([base], methods=models.split(), vary=grid)
            assert len(cells) == len(models.split()) * len(values.split(","))
            key = option.partition(".")[2]  # images have no other decoder_layers
            for cell in cells:
                assert cell.name in (cell.method, f"{cell.method}-{key}-{cell.varied[option]}")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.parent.name)
def test_a_recipe_script_explains_itself(path):
    shown = subprocess.run(
        ["bash", str(path), "--help"], capture_output=True, text=True, check=True
    )
    assert f"bash recipes/{path.parent.name}/run.sh" in shown.stdout
    assert "--stop-stage" in shown.stdout


@pytest.mark.parametrize(
    "options",
    [
        *(["--stage"], ["--stage", "x"], ["--stage", ""]),
        *(["--models", "nonesuch"], ["--models", "vae-odd"], ["--models", " "]),
        ["--stage", "5", "--stop-stage", "2"],
        ["--data", "nowhere"],
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_one_line(options):
    script = str(ROOT / "recipes" / "toy" / "run.sh")
    done = subprocess.run(["bash", script, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        *[(stage, "no corpus in {out}: start with --stage 1") for stage in "23"],
        *[(stage, "no run of lm in {out}: start with --stage 2") for stage in "456"],
    ],
)
def test_an_earlier_stage_that_is_missing_is_one_line(stage, missing, tmp_path):
    script = str(ROOT / "recipes" / "toy" / "run.sh")
    command = ["bash", script, "--out", str(tmp_path), "--stage", stage, "--models", "lm"]
    environment = {**os.environ, "TEXTVAE_INSTALLED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"{script}: there is {missing.format(out=tmp_path)}"]


def test_every_recipe_explains_its_corpus():
    for path in SCRIPTS:
        assert (path.parent / "base.yaml").exists()
        assert (ROOT / "data" / path.parent.name / "prepare.py").exists()
        assert (ROOT / "data" / path.parent.name / "README.md").exists()


def test_the_study_of_molecules_says_what_it_needs():
    script = str(ROOT / "recipes" / "moses" / "rate_distortion.sh")
    environment = os.environ | {"TEXTVAE_INSTALLED": "1"}
    for options, message in (([], "No --source given"), (["--stage", "2"], "has no stages")):
        command = ["bash", script, *options]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 2 and message in done.stdout + done.stderr
