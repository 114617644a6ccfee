"""Draw the models of 45 epochs in recipes/ptb/RESULTS.md, with the published ones.

    python docs/figures/long_training.py

Every number is read from the first table of that page, and from recipes/ptb/published.yaml.
"""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.figure import Figure
from ten_epochs import PAGE, PICTURE, ROOT, numbers, table_after

from textvae.evaluation.comparison.compare import gather
from textvae.evaluation.comparison.rate_distortion import rate_distortion
from textvae.evaluation.comparison.scatter import scatter

PUBLISHED = ROOT / "recipes" / "ptb" / "published.yaml"
FOLDER = PICTURE.parent
COLUMNS = {"ppl_iw": 2, "rec": 4, "elbo": 5, "kl": 7, "mi": 8}
STYLE = {"font.size": 9, "svg.hashsalt": "textvae"}  # the same page gives the same bytes


def cards(text: str) -> list[dict[str, Any]]:
    """Return the models of the table as cards, and those that are published."""
    rows = table_after(text, "## 45 epochs")
    ours = [_card(row) for row in rows if not row[0].startswith("published")]
    return gather([*ours, str(PUBLISHED)])


def _card(row: list[str]) -> dict[str, Any]:
    sign = {"rec": -1, "elbo": -1}  # the table has a minus sign, which ``numbers`` leaves out
    values = {key: numbers(row[place]) for key, place in COLUMNS.items()}
    known = {key: sign.get(key, 1) * found[0] for key, found in values.items() if found}
    return {"model": row[0], "latent_dim": 32 if "mi" in known else 0, **known}


def draw(text: str) -> dict[str, Figure]:
    """Return the rate-distortion plane, and information against perplexity, by file name."""
    shown = cards(text)
    return {"long.svg": rate_distortion(shown), "information.svg": scatter(shown, "mi", "ppl_iw")}


if __name__ == "__main__":
    with matplotlib.rc_context(STYLE):
        for name, figure in draw(PAGE.read_text(encoding="utf-8")).items():
            figure.savefig(FOLDER / name, metadata={"Date": None}, bbox_inches="tight")
            print(f"wrote {(FOLDER / name).relative_to(ROOT)}")
