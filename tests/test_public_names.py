"""The public interface: every name resolves, type checkers see it, and importing it is cheap."""

import ast
import builtins
import subprocess
import sys
from pathlib import Path

import pytest

import textvae

SOURCE = Path(textvae.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", textvae.__all__)
def test_a_public_name_resolves(name):
    assert getattr(textvae, name) is getattr(textvae, name)
    assert name in dir(textvae)


def test_the_lists_of_names_agree():
    assert set(textvae._SOURCES) | {"__version__"} == {*textvae.__all__, "map"}
    assert not {*textvae.__all__} & {*dir(builtins)}
    assert len(textvae.__all__) == len(set(textvae.__all__))
    for_checkers = {}
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.If):  # the block for type checkers
            for statement in node.body:
                if isinstance(statement, ast.ImportFrom):
                    for alias in statement.names:
                        name = alias.asname or alias.name
                        for_checkers[name] = f"{statement.module}:{alias.name}"
    sources = {
        name: place if ":" in place else f"{place}:{name}"
        for name, place in textvae._SOURCES.items()
    }
    assert for_checkers == sources


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        textvae.nothing  # noqa: B018


def test_everything_the_commands_do_can_be_done_in_python(corpus, tmp_path):
    (tmp_path / "base.yaml").write_text(
        f"data: {{dir: {corpus}, tokenized: true, batch_size: 16}}\n"
        "model: {latent_dim: 4, embedding_dim: 8, encoder_hidden: 12, decoder_hidden: 12}\n"
        "train: {epochs: 1, samples: 2, precision: fp32, threads: 1}\n"
    )
    run = tmp_path / "run"
    model = textvae.train(textvae.Config.load(tmp_path / "base.yaml"), run)
    assert isinstance(model, textvae.TextVAE) and not model.training
    assert model.sample(2) == textvae.load(str(run)).sample(2)
    card = textvae.evaluate_run(run, samples=3, generations=2)
    assert card["count"] == 20 and (run / "metrics" / "test.json").exists()
    assert textvae.probe(run)["classes"] == 3
    table = textvae.compare([run])
    assert table.startswith("| model") and "| run" in table
    textvae.map(run, tmp_path / "map.png")
    assert (tmp_path / "map.png").exists()


def test_importing_textvae_imports_no_torch():
    probe = "import sys, textvae; textvae.Config; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0
