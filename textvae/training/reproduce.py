"""Reproductions that check themselves: the runs of a recipe, compared with its published results.

The corpus is prepared by the recipe's script. The runs are those of a sweep in the recipe's folder
of runs, so what ``run.sh`` has trained there is not trained again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from textvae.config.recipes import method_files, recipes_folder
from textvae.errors import UserError, did_you_mean
from textvae.evaluation.comparison.compare import gather
from textvae.evaluation.comparison.lagging import lagging_information, lagging_table
from textvae.evaluation.comparison.published import FAILURES, Verdict, judge, verdict_table
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.metrics.card_files import find_card, load_cards
from textvae.runs.run_folder import make_folder
from textvae.training.sweeps.manifest import MANIFEST, read_manifest
from textvae.training.sweeps.sweep import sweep

logger = logging.getLogger(__name__)
PUBLISHED = "published.yaml"
SAMPLES = 200  # of the importance-weighted bound, if the published rows do not say


class Reproduction(NamedTuple):
    """Published results and what became of them; ``print`` shows the table."""

    verdicts: list[Verdict]
    failed: dict[str, str]  # why a run failed, by its name
    text: str

    @property
    def succeeded(self) -> bool:
        """Whether metrics were reproduced, none is worse or different, and no run failed."""
        outcomes = {verdict.outcome for verdict in self.verdicts} - {"not comparable"}
        return bool(outcomes) and not self.failed and not outcomes.intersection(FAILURES)

    def __str__(self) -> str:
        """Return the table."""
        return self.text


def reproduce(
    name: str,
    *,
    methods: Sequence[str] = (),
    seeds: int = 1,
    jobs: int = 1,
    data: Path | str | None = None,
    out: Path | str | None = None,
    recipes: Path | str | None = None,
    lagging_compat: bool = False,
) -> Reproduction:
    """Train and evaluate what a recipe has published results for, and judge every metric.

    Args:
        name: The recipe, a folder with ``base.yaml``, ``run.sh`` and ``published.yaml``.
        methods: The stacks to reproduce; by default all that have a published row.
        seeds: Number of seeds; the mean over them is judged.
        jobs: Number of runs at the same time.
        data: The corpus, if the recipe needs one that it cannot make.
        out: The folder of the corpus and the runs; ``runs/NAME`` by default.
        recipes: The folder of the recipes; by default the one of the checkout.
        lagging_compat: Whether to add the mutual information as vae-lagging-encoder estimates it.

    Raises:
        UserError: There is no such recipe, it has no published results, its corpus cannot be
            prepared, or the runs in the folder belong to other experiments.
        Interrupted: Ctrl-C or SIGTERM; all runs were saved.
    """
    recipe = _find(recipes_folder(recipes), name)
    rows = load_cards(recipe / PUBLISHED)
    stacks = list(methods) or list(dict.fromkeys(row["stack"] for row in rows if "stack" in row))
    for stack in stacks:
        method_files(recipe / "base.yaml", stack)  # before the corpus is prepared
    rows = [row for row in rows if row.get("stack") in stacks]
    if not rows:
        wanted = ", ".join(stacks) or "a model of this recipe: its rows are only to compare with"
        raise UserError(f"{recipe / PUBLISHED} has no row for {wanted}")
    folder = Path("runs") / name if out is None else Path(out)
    corpus = _prepare(recipe, folder, data)
    done = sweep(
        recipe / "base.yaml",
        out=folder,
        methods=stacks,
        seeds=seeds,
        jobs=jobs,
        samples=max((row["samples"] for row in rows if row.get("samples")), default=SAMPLES),
        with_report=False,
        data={"dir": str(corpus)},
    )
    cards = _cards(folder, done.runs)
    verdicts = [verdict for row in rows for verdict in judge(row, cards.get(row["stack"], {}))]
    parts = [verdict_table(verdicts)]
    if unpublished := [stack for stack in stacks if stack not in {row["stack"] for row in rows}]:
        parts.append(f"Without published results: {', '.join(unpublished)}.\n")
    if lagging_compat and (latent := [run for run in done.runs if find_card(run)["latent_dim"]]):
        estimates = [lagging_information(run, data=corpus) for run in latent]
        entries = [(r.name, find_card(r), e) for r, e in zip(latent, estimates, strict=True)]
        parts.append(lagging_table(entries) + "\n")
    return Reproduction(verdicts, done.failed, "\n".join(parts))


def _find(recipes: Path, name: str) -> Path:
    known = sorted(path.parent.name for path in recipes.glob(f"*/{PUBLISHED}"))
    if name not in known:
        what = f"{recipes / name} has no {PUBLISHED}" if (recipes / name).is_dir() else "no recipe"
        raise UserError(
            f"{name}: {what}; choose one of {', '.join(known)}{did_you_mean(name, known)}"
        )
    return recipes / name


def _prepare(recipe: Path, folder: Path, data: Path | str | None) -> Path:
    """Prepare the corpus with the first stage of the recipe's script, unless runs have used it."""
    corpus = folder / "corpus"
    if (folder / MANIFEST).exists() and corpus.is_dir() and data is None:
        return corpus
    script = recipe / "run.sh"
    needs_data = "${place" in script.read_text(encoding="utf-8")
    if needs_data and data is None:
        raise UserError(f"{recipe.name}: pass the source of its corpus with --data")
    if data is not None and not needs_data:
        raise UserError(f"--data {data}: {recipe.name} makes its own corpus: leave it out")
    make_folder(folder)
    command = ["bash", str(script), "--stop-stage", "1", "--out", str(folder)]
    if data is not None:
        command += ["--data", str(data)]
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": here, "TEXTVAE_INSTALLED": "1"}
    try:
        status = subprocess.call(command, stdout=2, env=environment)  # stdout is for the table
    except FileNotFoundError as error:
        raise UserError("recipes are bash scripts: install bash") from error
    if status != 0 or not corpus.is_dir():
        raise UserError(f"{script} could not prepare the corpus (see above)")
    return corpus


def _cards(folder: Path, runs: Sequence[Path]) -> dict[str, Card]:
    """Return one card for each method, with the mean and the spread over its seeds."""
    records = read_manifest(folder).runs
    by_method: dict[str, list[Path]] = {}
    for run in runs:
        by_method.setdefault(records[run.name]["method"], []).append(run)
    found = {method: gather(same, average_seeds=True) for method, same in by_method.items()}
    for method, cards in found.items():
        if len(cards) > 1:
            raise UserError(
                f"the runs of {method} in {folder} differ in more than their seed: choose another "
                "--out"
            )
    return {method: cards[0] for method, cards in found.items()}
