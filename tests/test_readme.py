"""A new user's path through the README: its commands run one after another."""

import re
import shlex
from pathlib import Path

import pytest
from test_docs import shell_lines

from textvae.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = shell_lines(README)
TINY = (
    "--model.embedding_dim 8 --model.encoder_hidden 8 --model.decoder_hidden 8 "
    "--data.max_length 20 --train.epochs 1 --tokenizer.vocab_size 300"
)


@pytest.fixture
def first_user(tmp_path, monkeypatch):
    """A checkout with my_texts.txt in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    lines = [f"The {a} {b} the {c}." for a in "abcdef" for b in ("sees", "likes") for c in "uvwxyz"]
    (tmp_path / "my_texts.txt").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def test_every_script_named_in_the_readme_exists():
    scripts = re.findall(r"bash ([\w./]+\.sh)", README)
    assert scripts
    for script in scripts:
        assert (ROOT / script).exists(), script


def test_the_commands_and_the_python_example_run(first_user, capsys):
    chain = [line for line in LINES if line.startswith("textvae")]
    assert len(chain) == 7
    for command in chain:
        words = shlex.split(command)[1:]
        if words[0] == "train":
            words += TINY.split()
        if words[0] == "evaluate":
            words += ["--samples", "2", "--generations", "2"]
        if words[0] == "bounds":
            words += ["--limit", "3", "--steps", "2", "--samples", "2", "--simulated", "2"]
        if words[0] == "explain":
            words += ["--limit", "10"]
        assert main(words) == 0, (command, capsys.readouterr().err)
    assert len(capsys.readouterr().out.splitlines()) > 10
    (example,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    exec(compile(example, "README.md", "exec"), names := {})
    assert names["means"].shape == (2, names["model"].latent_dim)
