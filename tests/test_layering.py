"""Imports run one way: this reads them and holds it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "textvae"

# What each part of the house may import; the leaves (errors, config, files) are free to all.
CORE = {"core"}
TEXT = CORE | {"text"}
IMAGES = CORE | {"images"}
ALLOWED = {
    "core": CORE,
    "text": TEXT,
    "images": IMAGES,
    "checkpoint": set(),
    "optim": set(),
    "interrupt": set(),
    "memory": set(),
    "tally": CORE,
    "build": TEXT | IMAGES,
    "update": CORE | {"optim", "tally"},
    "rows": CORE,
    "evaluate": CORE | {"rows"},
    "compare": {"progress"},
    "cli": None,  # the top: may import everything
}


def part_of(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    """The textvae modules a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "textvae" else {node.module}
    return {name for name in found if name.startswith("textvae.")}


def files_of(part: str) -> list[Path]:
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]


@pytest.mark.parametrize("part", [name for name, allowed in ALLOWED.items() if allowed is not None])
def test_a_part_imports_only_what_lies_below_it(part):
    free = {"errors", "config", "files", part}
    for file in files_of(part):
        above = {m for m in imports(file) if part_of(m) not in ALLOWED[part] | free}
        assert not above, f"{file.relative_to(PACKAGE)} imports {above}"


def test_nothing_imports_the_command_line():
    for file in PACKAGE.rglob("*.py"):
        if file.stem not in ("cli", "__main__"):
            assert "textvae.cli.main" not in imports(file), file


def test_the_reader_of_imports_sees_them():
    assert "textvae.vae.posteriors" in imports(PACKAGE / "core" / "vae.py")
    assert "textvae.text.decode.generate" in imports(PACKAGE / "text" / "lstm.py")  # a lazy one


def test_nothing_imports_torchtext_or_unpickles():
    for file in PACKAGE.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert "import torchtext" not in source, file
        assert "weights_only=False" not in source, file
        assert "allow_pickle=True" not in source, file
        assert "import pickle" not in source, file
