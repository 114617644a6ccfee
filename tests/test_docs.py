"""What the documentation says is true of the code: commands, options, files, names, contracts."""

import ast
import importlib
import importlib.util
import inspect
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
import torch

import textvae
from textvae.cli.arguments import parse

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
PROSE = [*PAGES, ROOT / "CONTRIBUTING.md"]
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in PROSE}
ROOMS = "cli|training|evaluation|images|text|vae|config|runs"
FOLDERS = "recipes|docs|examples|tests|benchmarks|textvae"
SITE_NEEDS = ("mkdocs", "material", "mkdocstrings", "latex2mathml")


def shell_lines(markdown: str) -> list[str]:
    """The lines of the bash blocks, without comments, continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", markdown, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


def inline_code(markdown: str) -> list[str]:
    """The code in running text, as it reads."""
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`]+)`", prose)]


def textvae_commands(markdown: str) -> list[str]:
    """Every `textvae ...` command, including those after a launcher, but not just a name."""
    found = [
        re.search(r"(?:^|\s)textvae ([a-z]+(?: .+)?)$", code)
        for code in [*shell_lines(markdown), *inline_code(markdown)]
    ]
    return [match[1] for match in found if match]


def python_blocks(markdown: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", markdown, flags=re.DOTALL | re.MULTILINE)


COMMANDS = sorted({command for text in TEXTS.values() for command in textvae_commands(text)})
OPTIONS = sorted(
    {code for text in TEXTS.values() for code in inline_code(text) if re.match(r"--\w+\.\w", code)}
)
BLOCKS = [(name, block) for name, text in TEXTS.items() for block in python_blocks(text)]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the recipes, in which every run exists."""
    monkeypatch.chdir(tmp_path)
    for name in ("recipes", "data", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_there_is_something_to_test():
    assert len(COMMANDS) >= 30
    assert len(OPTIONS) >= 30
    assert len(BLOCKS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_parses(command, checkout):
    words = shlex.split(command)
    if len(words) == 1:
        return  # only the name of a command
    if "--resume" in words:
        run = checkout / words[words.index("--resume") + 1]
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("train: {seed: 1}\n", encoding="utf-8")
    name, _ = parse(words)
    assert name == words[0]


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_one_of_train_with_that_value(option, checkout):
    words = shlex.split(option)
    if "…" in option:  # a whole section
        assert hasattr(textvae.Config(), words[0].strip("-…."))
    elif len(words) == 1:
        section, _, name = words[0].removeprefix("--").partition(".")
        assert hasattr(getattr(textvae.Config(), section), name)
    else:
        parse(["train", "--out", "runs/x", *words])


@pytest.mark.parametrize("name", TEXTS)
def test_every_file_named_on_a_page_exists(name):
    text = TEXTS[name]
    inside = rf"(?<![\w/])((?:{ROOMS})/[\w/]+\.(?:py|c))"
    files = re.findall(
        r"(?<![\w/])((?:recipes|docs|examples|tests|benchmarks|textvae)/[\w/.-]+\w)", text
    )
    files += [f"textvae/{path}" for path in re.findall(inside, text)]
    missing = [path for path in files if "<" not in path and not (ROOT / path).exists()]
    assert not missing


def test_the_walk_finds_every_name_in_its_file():
    steps = re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", TEXTS["how-it-is-built.md"])
    assert len(steps) >= 25
    for name, path in steps:
        code = (ROOT / "textvae" / path).read_text(encoding="utf-8")
        assert re.search(rf"^ *(?:def|class) {name}\b", code, re.MULTILINE), f"{name} in {path}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_link_to_a_page_works(name):
    pages = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", TEXTS[name])
    assert pages
    for page in pages:
        assert (ROOT / page).exists(), page


def test_every_method_has_a_recipe_and_every_recipe_a_method():
    recipes = {path.name for path in (ROOT / "recipes" / "methods").glob("*.yaml")}
    table = re.findall(
        r"^\| \[.*?\]\(#.*?\) \| `(\w+\.yaml)` \|", TEXTS["methods.md"], re.MULTILINE
    )
    assert set(table) == recipes


@pytest.mark.parametrize(("name", "block"), BLOCKS)
def test_python_compiles_and_its_names_exist(name, block):
    for node in ast.walk(compile(block, name, "exec", ast.PyCF_ONLY_AST)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("textvae"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "textvae":
            assert hasattr(textvae, node.attr), node.attr


def test_the_contracts_on_the_page_are_those_of_the_code():
    places = ("textvae.vae.contracts", "textvae.training.procedures")
    contracts = {k: v for place in places for k, v in vars(importlib.import_module(place)).items()}
    blocks = python_blocks(TEXTS["your-own-model.md"])
    nodes = [node for block in blocks for node in ast.parse(block).body]
    classes = [
        node
        for node in nodes
        if isinstance(node, ast.ClassDef) and ast.unparse(node.bases[0]) == "Protocol"
    ]
    assert len(classes) >= 5
    for node in classes:
        contract = contracts[node.name]
        for part in node.body:
            if isinstance(part, ast.AnnAssign):
                assert part.target.id in inspect.get_annotations(contract)
                continue
            promised = inspect.signature(getattr(contract, part.name)).parameters
            assert [argument.arg for argument in part.args.args] == list(promised)


def test_the_posterior_of_your_own_on_the_page_works():
    blocks = python_blocks(TEXTS["your-own-model.md"])
    code = next(block for block in blocks if "class Laplace" in block)
    names = {"NamedTuple": NamedTuple, "Tensor": torch.Tensor, "torch": torch}
    exec(code, names)
    make = names["Laplace"]
    location, scale = (
        torch.tensor([[0.5, -1.0], [2.0, 0.0]]),
        torch.tensor([[0.3, 1.0], [2.0, 1.0]]),
    )
    q = make(location, scale.log())
    z = q.rsample(20_000, textvae.RowNoise(0, textvae.Purpose.LATENT, [0, 1]))
    assert isinstance(q, textvae.Posterior)
    assert torch.allclose(z.mean(0), location, atol=0.06)
    assert torch.allclose(z.var(0), 2 * scale**2, rtol=0.06)
    prior = textvae.StandardNormal(2)
    estimate = (q.log_prob(z) - prior.log_prob(z)).mean(0)
    # E log q = -log 2b - 1, E log p = -(m² + 2b²)/2 - log sqrt(2π), of every dimension
    exact = (location**2 / 2 + scale**2 + math.log(2 * math.pi) / 2 - (2 * scale).log() - 1).sum(-1)
    assert torch.allclose(estimate, exact, atol=0.15)


def test_the_picture_of_the_ten_epoch_runs_has_all_rows_of_the_page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "figures")
    module = importlib.import_module("ten_epochs")
    text = module.PAGE.read_text(encoding="utf-8")
    drawn = [line for line in module.draw(text).axes[0].lines if line.get_marker() == "o"]
    points = [line for line in drawn if len(line.get_xdata())]
    rows = module.table_after(text, "## Every remedy in ten epochs")
    plain = [row for row in rows if row[1] != "–"]  # remedies tried with the plain decoder, too
    seeds = 3 * 4 + 2 * 2  # four remedies with skip connections, two without
    assert len(points) == len(rows) + len(plain) + seeds and len(plain) > 5
    assert all(0 <= point.get_xdata()[0] < 8.23 for point in points)


def test_the_pictures_of_long_training_have_all_rows_of_the_page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "figures")
    module = importlib.import_module("long_training")
    text = module.PAGE.read_text(encoding="utf-8")
    rows = [row[0] for row in module.table_after(text, "## 45 epochs")]
    ours = [name for name in rows if not name.startswith("published")]
    assert len(ours) >= 9 and "language model" in ours
    for figure in module.draw(text).values():
        names = {each.get_text() for each in figure.axes[0].get_legend().get_texts()}
        assert names >= {*ours, "VAE, AE + FB (Li et al.)", "LM (Li et al.)"}


def test_the_api_page_has_every_public_name():
    documented = re.findall(r"^::: textvae\.(\w+)$", TEXTS["python-api.md"], re.MULTILINE)
    assert sorted(documented) == sorted({*textvae.__all__, "map"} - {"__version__"})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: a broken link or docstring is an error."""
    if missing := [name for name in SITE_NEEDS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install -e '.[docs]')")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_loads_nothing_from_the_network(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"?(https?:[^\" >]+)", text
        )
        assert not loaded, page


def test_the_metrics_page_has_the_table(site):
    from textvae.evaluation.metrics.table import METRICS

    page = (site / "metrics.html").read_text(encoding="utf-8")
    assert all(f"<code>{metric.key}</code>" in page for metric in METRICS)


def test_equations_are_well_formed(site):
    page = (site / "methods.html").read_text(encoding="utf-8")
    equations = re.findall(r'<div class="equation">(.*?)</div>', page, flags=re.DOTALL)
    assert len(equations) >= 10
    for equation in equations:
        assert ElementTree.fromstring(equation).tag.endswith("math")
