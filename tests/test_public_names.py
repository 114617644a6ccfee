"""The public interface: every name resolves, type checkers see it, and importing it is cheap."""

import ast
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
    assert set(textvae._SOURCES) | {"__version__"} == set(textvae.__all__)
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


def test_importing_textvae_imports_no_torch():
    probe = "import sys, textvae; textvae.Config; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0
