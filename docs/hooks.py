"""MkDocs hooks that run when the site is built.

* The results pages of the recipes, with their pictures, become pages of the site.
* `<!-- metrics table -->` becomes the table in `textvae/evaluation/metrics/table.py`.
* A `math` code block becomes MathML, which browsers display without scripts or extra fonts.
  GitHub displays the same blocks as equations, too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = ("recipes/*/[A-Z]*.md",)
PICTURES = ("recipes/*/pictures/*.png", "recipes/*/pictures/*.svg")
METRICS_TABLE = "<!-- metrics table -->"
MATH = re.compile(r"^```math\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
# Links as they work on GitHub: docs/ and recipes/ are neighbors, and a link may lead to a folder.
TO_RECIPES = re.compile(r"\]\(\.\./recipes/")
TO_RESULTS = re.compile(r"\]\(\.\./(\w+)/\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the results pages and their pictures."""
    for path in sorted(path for pattern in PAGES + PICTURES for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the metrics table and the equations, and make links between folders work."""
    if METRICS_TABLE in markdown:
        from textvae.evaluation.metrics.table import metrics_table

        markdown = markdown.replace(METRICS_TABLE, metrics_table())
    if page.file.src_uri.startswith("recipes/"):
        return TO_RESULTS.sub(r"](../\1/RESULTS.md)", markdown)
    return TO_RECIPES.sub("](recipes/", MATH.sub(_equation, markdown))


def _equation(block: re.Match[str]) -> str:
    spaced = block[1].replace(r"\log p", r"\log\,p")
    lines = (line.strip() for line in spaced.split("\n\n"))
    return "\n\n".join(
        f'<div class="equation">{convert(line, display="block")}</div>' for line in lines if line
    )
