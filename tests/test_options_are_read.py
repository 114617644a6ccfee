"""No option is ignored: every command, and training, reads each of its options."""

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest

import textvae
from textvae import load
from textvae.cli.main import COMMANDS, parse
from textvae.config.experiment import OPTIONS

SENTENCE = "my dog eats the house"
COMMAND_LINES = [
    "evaluate RUN --samples 1 --generations 2",
    "diagnose RUN --samples 1",
    "report RUN --out FOLDER/report.html --samples 1",
    "compare RUN",
    "score RUN FILE --samples 1",
    "sample RUN -n 2",
    "reconstruct RUN --file FILE",
    "interpolate RUN SENTENCE SENTENCE --steps 3",
    "traverse RUN SENTENCE --dim 0 --steps 2",
    "arithmetic RUN --from 0 --to 1 SENTENCE",
    "neighbors RUN SENTENCE",
    "encode RUN FILE --out FOLDER/means.npz",
    "decode RUN LATENTS",
    "optimize RUN --objective OBJECTIVE --budget 2",
    "probe RUN",
    "map RUN --out FOLDER/map.png",
    "cache",
]


class Recorder:
    """The values of the options; it remembers which were asked for."""

    def __init__(self, values):
        self.values, self.read = values, set()

    def __getitem__(self, name):
        self.read.add(name)
        return self.values[name]

    def get(self, name, default=None):
        self.read.add(name)
        return self.values.get(name, default)

    def __getattr__(self, name):
        return self[name]


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return shutil.copytree(trained, tmp_path_factory.mktemp("read") / "vae")


@pytest.mark.parametrize("line", COMMAND_LINES, ids=lambda line: line.partition(" ")[0])
def test_a_command_reads_all_its_options(line, run, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "new.txt").write_text(f"{SENTENCE}\nthe house\n" * 2, encoding="utf-8")
    (tmp_path / "length.py").write_text("def length(text):\n    return len(text)\n")
    np.savez(tmp_path / "latents.npz", mean=np.zeros((2, load(run).latent_dim), np.float32))
    places = {"RUN": str(run), "FILE": str(tmp_path / "new.txt"), "SENTENCE": SENTENCE}
    places |= {"LATENTS": str(tmp_path / "latents.npz")}
    places |= {"OBJECTIVE": f"{tmp_path / 'length.py'}:length"}
    words = [places.get(word, word.replace("FOLDER", str(tmp_path))) for word in line.split()]
    command, values = parse(words)
    options = Recorder(values)
    COMMANDS[command].run(options)
    assert not set(vars(values)) - options.read


def test_the_recorder_notices_an_option_that_is_not_read():
    options = Recorder({"seed": 1, "split": "test"})
    assert (options.seed, options.get("nothing", 2)) == (1, 2)
    assert {"seed", "split"} - options.read == {"split"}


@pytest.mark.parametrize("section", ["tokenizer", "objective", "inference", "optim", "train"])
def test_every_field_of_a_config_is_read(section):
    # The other sections are the arguments of constructors, or are read by the name of a split.
    package = Path(textvae.__file__).parent
    files = (path for path in package.rglob("*.py") if path.parent.name not in ("cli", "config"))
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not set(OPTIONS[section]) - read
