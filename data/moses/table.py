"""Tables of models of molecules: the metrics of MOSES, and what z carries.

    python data/moses/table.py runs/moses/lm runs/moses/large-skip_vae-exact

Reads what stages 3 and 4 of ``recipes/moses/run.sh`` leave in ``RUN/metrics``: the card
(``test.json``), the metrics of samples (``moses-prior.json``, ``moses-aggregate.json``, and the
same with ``-greedy``), and what ``textvae molecules latent`` found (``latent.json``). A
figure that is not there is a dash.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from textvae.cli.exit_codes import exit_status
from textvae.errors import UserError
from textvae.runs.files import read_record

PUBLISHED = Path(__file__).with_name("published.yaml")
SOURCES = {
    "prior": "N(0, I)",
    "aggregate": "aggregate",
    "prior-greedy": "N(0, I), greedy",
    "aggregate-greedy": "aggregate, greedy",
}
# Names in the files, and as MOSES writes them.
MOSES = {
    "count": "samples",
    "valid": "Valid",
    "unique@1000": "Unique@1k",
    "unique@10000": "Unique@10k",
    "FCD/Test": "FCD Test",
    "FCD/TestSF": "FCD TestSF",
    "SNN/Test": "SNN Test",
    "SNN/TestSF": "SNN TestSF",
    "Frag/Test": "Frag Test",
    "Frag/TestSF": "Frag TestSF",
    "Scaf/Test": "Scaf Test",
    "Scaf/TestSF": "Scaf TestSF",
    "IntDiv": "IntDiv",
    "IntDiv2": "IntDiv2",
    "Filters": "Filters",
    "Novelty": "Novelty",
}
CARD = {"kl": "KL", "rec": "rec", "elbo": "ELBO", "iw": "IW", "mi": "MI", "au": "AU"}
LATENT = {"exact": "exact", "valid_between": "valid between", "distinct": "distinct on a line"}
MISSING = "–"


def tables(runs: Sequence[Path]) -> str:
    """Return both tables as Markdown."""
    for run in runs:
        if not (run / "metrics").is_dir():
            raise UserError(f"{run}: no folder metrics; stages 3 and 4 of the recipe make it")
    moses = [[row["model"], MISSING, *_cells(row, MOSES, 3)] for row in _published()]
    for run in runs:
        for source, name in SOURCES.items():
            if found := _read(run, f"moses-{source}"):
                moses.append([run.name, name, *_cells(found, MOSES, 3)])
    header = ["model", "z from", *MOSES.values()]
    valid = [f"valid, {name}" for name in SOURCES.values()]
    latent = [_latent(run) for run in runs]
    return "\n\n".join(
        [
            _markdown(header, moses),
            _markdown(["model", *CARD.values(), *LATENT.values(), *valid], latent),
        ]
    )


def _published() -> list[dict[str, Any]]:
    return yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))


def _latent(run: Path) -> list[str]:
    card, latent = _read(run, "test"), _read(run, "latent")
    if not card.get("latent_dim"):
        card = {name: card.get(name) for name in ("rec", "elbo", "iw")}
    valid = {source: _read(run, f"moses-{source}").get("valid") for source in SOURCES}
    return [
        run.name,
        *_cells(card, CARD, 2),
        *_cells(latent, LATENT, 3),
        *_cells(valid, SOURCES, 3),
    ]


def _read(run: Path, name: str) -> dict[str, Any]:
    path = run / "metrics" / f"{name}.json"
    return read_record(path) if path.exists() else {}


def _cells(found: Mapping[str, Any], names: Mapping[str, str], digits: int) -> list[str]:
    values = [found.get(name) for name in names]
    return [
        MISSING
        if value is None
        else f"{value:.{digits}f}"
        if isinstance(value, float)
        else f"{value}"
        for value in values
    ]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def main(arguments: Sequence[str]) -> int:
    """Print the tables of the runs; return the exit status."""
    return exit_status("table", lambda: print(tables([Path(name) for name in arguments])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
