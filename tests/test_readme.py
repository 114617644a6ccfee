"""The README's commands are real ones: each parses, and the chain of a first user runs."""

import re
from pathlib import Path

import pytest

from textvae.cli.arguments import parse
from textvae.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
LINES = [line.partition(" #")[0].strip() for block in BLOCKS for line in block.splitlines()]
IN_TEXT = re.findall(r"`(textvae [a-z][^`]*)`", README)
TINY = "--model.embedding_dim 8 --model.encoder_hidden 8 --model.decoder_hidden 8"


def words_of(command: str) -> list[str]:
    """A command's words; quotes as in a shell, ellipses and placeholders as names."""
    import shlex

    return shlex.split(command.replace("…", " other"))[1:]


@pytest.fixture
def first_user(tmp_path, monkeypatch):
    """A checkout with my_texts.txt in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    lines = [f"The {a} {b} the {c}." for a in "abcdef" for b in ("sees", "likes") for c in "uvwxyz"]
    (tmp_path / "my_texts.txt").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def test_there_are_commands_to_test():
    assert sum(line.startswith("textvae") for line in LINES) >= 3
    assert len(IN_TEXT) >= 8


@pytest.mark.parametrize(
    "command", [c for c in IN_TEXT if "COMMAND" not in c and "accelerate" not in c]
)
def test_a_command_in_the_text_parses(command, first_user):
    (first_user / "RUN").mkdir()
    (first_user / "RUN" / "config.yaml").write_text("train: {seed: 1}\n", encoding="utf-8")
    (first_user / "FILE.yaml").write_text("train: {seed: 1}\n", encoding="utf-8")
    name, _ = parse(words_of(command))
    assert name == command.split()[1]


def test_every_script_the_readme_names_is_there():
    for script in re.findall(r"bash ([\w./]+\.sh)", README):
        assert (ROOT / script).exists(), script


def test_every_page_the_readme_links_is_there():
    for page in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / page).exists(), page


def test_the_first_users_chain_runs(first_user, capsys):
    chain = [line for line in LINES if line.startswith("textvae")]
    for command in chain:
        words = words_of(command)
        if words[0] == "train":
            words += [*TINY.split(), "--train.epochs", "1", "--tokenizer.vocab_size", "300"]
        if words[0] == "evaluate":
            words += ["--samples", "2", "--generations", "2"]
        assert main(words) == 0, (command, capsys.readouterr().err)
    assert len(capsys.readouterr().out.splitlines()) > 10
