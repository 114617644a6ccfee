"""Imports run one way: these tests read all of them."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "textvae"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# From the bottom up: a folder may import those below it; text and images not each other.
ROOMS = ["errors", "runs", "config", "vae", "text", "images", "builders", "evaluation", "training"]
ROOMS += ["cli", "__init__", "__main__"]
BELOW = {room: set(ROOMS[: i + 1]) for i, room in enumerate(ROOMS)}
BELOW["images"] -= {"text"}

# Inside text/: tokenizers know nothing about networks, and decoding only uses steppers.
TEXT_BELOW = {
    "tokenizers": {"tokenizers"},
    "data": {"tokenizers", "data"},
    "decode": {"tokenizers", "decode", "nn.kernels"},
    "nn": {"tokenizers", "nn"},
}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def room_of(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def imports(path: Path, lazy: bool = True) -> set[str]:
    """The textvae modules that a file imports; without ``lazy``, only those imported on loading."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            base = PACKAGE.parent / node.module.replace(".", "/")
            for alias in node.names:
                inside = base / f"{alias.name}.py"
                is_module = inside.exists() or (base / alias.name).is_dir()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return {name for name in found if name.split(".")[0] == "textvae"}


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_a_room_imports_only_what_lies_below_it(path):
    room = room_of(module_of(path))
    above = {m for m in imports(path) if room_of(m) not in BELOW[room]} - {"textvae"}
    if room == "__init__":  # public names, resolved when they are asked for
        above = {m for m in above if room_of(m) == "cli"}
    assert not above, f"{module_of(path)} imports {above}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "text").glob("*/*.py")), ids=module_of)
def test_imports_inside_text_run_one_way(path):
    own = module_of(path).split(".")[2]
    for module in imports(path):
        if module.startswith("textvae.text."):
            inner = module.removeprefix("textvae.text.")
            allowed = any(inner == low or inner.startswith(low + ".") for low in TEXT_BELOW[own])
            assert allowed, f"{module_of(path)} imports {module}"


def test_there_are_no_import_cycles():
    graph = {module_of(path): imports(path) for path in MODULES}
    graph.pop("textvae.__init__")
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module in graph and module not in done:
            for below in graph[module] - {module}:
                visit(below, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_package_has_at_most_a_dozen_entries():
    doors = [p for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()]
    assert len([p for p in doors if p.name != "__pycache__"]) <= 12


def test_the_families_are_named_only_where_they_are_defined():
    """Gaussian posteriors and the standard normal prior are one choice among many."""
    for path in MODULES:
        if path.name in ("posteriors.py", "heads.py", "priors.py", "__init__.py"):
            continue
        assert not names_in(path) & {"DiagGaussian", "GaussianHead", "StandardNormal"}, path


def names_in(path: Path) -> set[str]:
    """All names that the code of a module uses, also as attributes and under other names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                found.add(name)
    return found


def test_above_build_no_code_checks_the_kind_of_data():
    for path in MODULES:
        if room_of(module_of(path)) in ("evaluation", "training", "cli"):
            assert not names_in(path) & {"ImageVAE", "TextVAE", "ImageSplit"}, path
            assert "config.data.kind" not in ast.unparse(ast.parse(path.read_text("utf-8"))), path


def test_the_import_reader_finds_imports():
    assert "textvae.vae.posteriors" in imports(PACKAGE / "vae" / "vae.py")
    lazy = imports(PACKAGE / "cli" / "train.py") - imports(PACKAGE / "cli" / "train.py", lazy=False)
    assert "textvae.training.train" in lazy


def test_nothing_imports_torchtext_or_unpickles():
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        assert "import torchtext" not in source, path
        assert "weights_only=False" not in source, path
        assert "allow_pickle=True" not in source, path
        assert "import pickle" not in source, path
