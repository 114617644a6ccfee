"""The page about sequences: its commands run one after another on small files."""

import json
import random
import re
import shlex
from pathlib import Path

import pytest
from test_docs import TEXTS, shell_lines

from textvae.cli.main import main

ROOT = Path(__file__).parent.parent
LINES = [line for line in shell_lines(TEXTS["your-own-sequences.md"]) if line.startswith("textvae")]
TINY = (
    "--model.embedding_dim 8 --model.encoder_hidden 8 --model.decoder_hidden 8 --train.epochs 1 "
    "--train.autoencode_epochs 0 --train.samples 0 --tokenizer.vocab_size 300"
)
SMALLER = {
    "evaluate": "--samples 2 --generations 2",
    "optimize": "--budget 4",
    "score": "--samples 2 --regret-steps 2",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A checkout with the files that the page names."""
    monkeypatch.chdir(tmp_path)
    for name in ("recipes", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    rng = random.Random(0)
    chains = ["C" * n + end for n in range(1, 21) for end in ("O", "N", "Cl", "c1ccccc1")]
    rows = [f"{chain},{len(chain) / 2 - 2}" for chain in chains]
    Path("molecules.csv").write_text("smiles,logp\n" + "\n".join(rows) + "\n")
    peptides = [
        "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=rng.randint(5, 20))) for _ in range(240)
    ]
    Path("peptides.txt").write_text("\n".join(peptides) + "\n")
    messages = [
        f"{rng.choice(['GET', 'PUT'])} /item/{i % 7} {rng.choice([200, 404])}" for i in range(80)
    ]
    Path("log.jsonl").write_text("".join(json.dumps({"message": m}) + "\n" for m in messages))
    return tmp_path


def test_the_page_has_commands():
    assert len(LINES) >= 14
    assert {line.split()[1] for line in LINES} >= {"train", "probe", "optimize", "map", "score"}


def test_the_commands_run(files, capsys):
    for command in LINES:
        if ("qed" in command or "molecules latent" in command) and not _has_rdkit():
            continue
        words = shlex.split(command)[1:]
        words += shlex.split(TINY if words[0] == "train" else SMALLER.get(words[0], ""))
        assert main(words) == 0, (command, capsys.readouterr().err)
    shown = capsys.readouterr().out
    assert "R²" in shown and "best texts of the search" in shown
    assert Path("found.jsonl").exists() and Path("map.png").exists()


def _has_rdkit() -> bool:
    try:
        import rdkit  # noqa: F401
    except ImportError:
        return False
    return True


def test_the_page_is_in_the_navigation():
    pages = re.findall(r"^  - .*: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert "your-own-sequences.md" in pages
