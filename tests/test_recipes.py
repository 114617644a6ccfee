"""Every recipe's YAML is complete, parses and trains; every run.sh has its parts."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from textvae.cli.arguments import config_of, parse
from textvae.config.experiment import Config, DataConfig, options_read
from textvae.images.readers import Drawings, write_drawings
from textvae.training.loop import train

ROOT = Path(__file__).parent.parent
YAMLS = sorted(ROOT.glob("recipes/*/*.yaml"))
RECIPES = sorted(ROOT.glob("recipes/*/run.sh"))
TINY = ["--data.batch_size", "4", "--train.max_steps", "2", "--train.samples", "1"]
TINY_OF = {
    "text": [
        *("--model.embedding_dim", "8", "--model.encoder_hidden", "8"),
        *("--model.decoder_hidden", "8", "--data.format", "auto"),
    ],
    "images": ["--images.encoder_hidden", "4", "--images.decoder_hidden", "4"],
}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def kind_of(path: Path) -> str:
    """The kind of data of a recipe; that it is text goes without saying."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))["data"].get("kind", "text")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    lines = [f"the {a} {b} the {c} ." for a in "abcde" for b in ("sees", "likes") for c in "vwxyz"]
    (folder / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "valid.txt").write_text("\n".join(lines[:8]), encoding="utf-8")
    grey = np.random.default_rng(0).integers(256, size=(24, 8, 8), dtype=np.uint8)
    for split in ("train", "valid"):
        write_drawings(folder / f"{split}.npz", Drawings(grey))
    return folder


@pytest.mark.parametrize("path", YAMLS, ids=name_of)
def test_a_recipe_is_complete(path):
    given, kind = yaml.safe_load(path.read_text(encoding="utf-8")), kind_of(path)
    given["data"]["kind"] = kind
    read = options_read(Config(data=DataConfig(kind=kind)))
    assert {part: set(fields) for part, fields in given.items()} == {
        part: set(fields) for part, fields in read.items()
    }


@pytest.mark.parametrize("path", YAMLS, ids=name_of)
def test_a_recipe_trains_two_steps(path, corpus, tmp_path):
    options = ["--config", str(path), "--out", str(tmp_path / "run"), "--data.dir", str(corpus)]
    _, args = parse(["train", *options, *TINY, *TINY_OF[kind_of(path)]])
    train(config_of(args), tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_a_recipe_script_explains_itself(path):
    shown = subprocess.run(
        ["bash", str(path), "--help"], capture_output=True, text=True, check=True
    )
    assert f"bash recipes/{path.parent.name}/run.sh" in shown.stdout
    assert "--stop-stage" in shown.stdout


@pytest.mark.parametrize(
    "options",
    [["--stage"], ["--stage", "x"], ["--models", "nonesuch"], ["--models", "vae-odd"]],
    ids=" ".join,
)
def test_a_wrong_option_is_one_line(options):
    script = str(RECIPES[0])
    done = subprocess.run(["bash", script, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_every_recipe_has_its_corpus_explained():
    for path in RECIPES:
        assert (ROOT / "data" / path.parent.name / "prepare.py").exists()
        assert (ROOT / "data" / path.parent.name / "README.md").exists()
