"""Draw perplexity against mutual information from the ten-epoch tables of recipes/ptb/RESULTS.md.

    python docs/figures/ten_epochs.py

Every number is read from that page: an arrow leads from the plain decoder to skip connections with
the same remedy, and small points are the other seeds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "recipes" / "ptb" / "RESULTS.md"
PICTURE = ROOT / "recipes" / "ptb" / "pictures" / "ten-epochs.svg"
PLAIN, SKIP = "#D55E00", "#0072B2"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "textvae",  # the same page gives the same bytes
}
OFFSETS = {  # of names that would overlap, in points
    "cyclical annealing": (4, -11),
    "none": (4, 5),
    "SA-VAE": (9, 4),
    "DU-VAE (0.5)": (9, -9),
    "batch-normalized means (0.6)": (-120, -17),
}


class Model(NamedTuple):
    """Perplexity and mutual information of one run."""

    mi: float
    perplexity: float


def table_after(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table after a text."""
    lines = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip(" *") for cell in line.strip("|").split("|")])
    return rows


def numbers(cell: str) -> list[float]:
    """Return the numbers in a cell."""
    return [float(number) for number in re.findall(r"\d+\.\d+", cell)]


def model(perplexity: str, mi: str) -> Model | None:
    """Return the model of two cells; None if they are empty."""
    return Model(*numbers(mi), *numbers(perplexity)) if numbers(mi) else None


def draw(text: str) -> Figure:
    """Draw the models of the page."""
    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    level = next(row for row in table_after(text, "**Three seeds") if row[0] == "language model")
    axes.axhline(numbers(level[2])[0], color="0.4", lw=1, ls="--", label="language model")
    for row in table_after(text, "## Every remedy in ten epochs"):
        pair = [(model(row[1], row[3]), PLAIN), (model(row[6], row[8]), SKIP)]
        for each, color in pair:
            if each is not None:
                axes.plot(*each, "o", color=color, ms=6)
        (plain, _), (skip, _) = pair
        if plain is not None and skip is not None:
            arrow = {"arrowstyle": "->", "color": "0.6", "shrinkA": 5, "shrinkB": 5}
            axes.annotate("", skip, plain, arrowprops=arrow)
        named = skip or plain
        if named is not None:
            at = OFFSETS.get(row[0], (7, -3))
            axes.annotate(row[0], named, at, textcoords="offset points", fontsize="small")
    for color, heading in ((SKIP, "**Three seeds"), (PLAIN, "**The plain decoder with other")):
        for row in table_after(text, heading):
            for mi, perplexity in zip(numbers(row[4]), numbers(row[1]), strict=False):
                axes.plot(mi, perplexity, "o", color=color, ms=3)
    axes.plot([], [], "o", color=PLAIN, label="plain decoder")
    axes.plot([], [], "o", color=SKIP, label="skip connections")
    axes.set(xlabel="mutual information (nats)", ylabel="perplexity (IW, K = 50)", xlim=(-0.2, 8.6))
    axes.legend(frameon=False, loc="upper left")
    return figure


if __name__ == "__main__":
    with plt.rc_context(STYLE):
        drawn = draw(PAGE.read_text(encoding="utf-8"))
        drawn.savefig(PICTURE, metadata={"Date": None})
    print(f"wrote {PICTURE.relative_to(ROOT)}")
