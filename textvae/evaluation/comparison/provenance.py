"""Where the metrics of a table come from: commands, seeds, commits, hardware, and cost."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textvae.config.experiment import Config
from textvae.errors import UserError, quantity
from textvae.evaluation.evaluate_run import GENERATIONS
from textvae.evaluation.metrics.card_files import options_of
from textvae.evaluation.metrics.metric import MISSING
from textvae.runs.files import read_record
from textvae.runs.markdown import markdown_table
from textvae.runs.model_folder import VERSIONS, metrics_path
from textvae.runs.run_folder import SUMMARY, config_path

COLUMNS = (
    "model",
    "seed",
    "epochs",
    "hours",
    "peak memory",
    "stopped because",
    "commit",
    "machine",
)


def provenance(runs: Sequence[Path | str], split: str = "test") -> str:
    """Return Markdown: one row of cost and origin per run, then the commands as they were given.

    Args:
        runs: Run folders.
        split: The split that was evaluated.

    Raises:
        UserError: The records of a run are missing or broken.
    """
    if not runs:
        raise UserError("--provenance needs run folders: cards in other files have no commands")
    rows, commands = [], []
    used: dict[str, dict[str, None]] = {name: {} for name in ("python", "torch", "textvae")}
    for run in map(Path, runs):
        paths = (run / VERSIONS, run / SUMMARY, metrics_path(run, split))
        versions, training, card = map(read_record, paths)
        try:
            rows.append(_row(run, versions, training))
            own = training.get("own_parts") or {}
            commands += [f"# {run}, trained with own {part} {own[part]}" for part in own]
            commands += [versions["command"], _evaluation(run, split, card, "model" in own)]
            for name in used.keys() & {name for name, value in versions.items() if value}:
                used[name][str(versions[name])] = None
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{run}: its records were written by another release of textvae ({error})"
            ) from error
    table = markdown_table([COLUMNS, *rows])
    software = ", ".join(f"{name} {' and '.join(found)}" for name, found in used.items() if found)
    listing = "\n".join(commands)
    return f"{table}\n\n{software}.\n\n```bash\n{listing}\n```"


def _row(run: Path, versions: Any, training: Any) -> list[str]:
    threads = quantity(int(versions["threads"]), "thread")
    return [
        run.name,
        str(Config.load(config_path(run)).train.seed),
        f"{training['epochs']:g}",
        f"{training['hours']:.2f}",
        f"{training['peak_memory_mb']} MiB" if training["peak_memory_mb"] else MISSING,
        training["finished"] or "not finished",
        versions["commit"] or MISSING,
        f"{versions['device']}, {threads}, {versions['precision']}",
    ]


def _evaluation(run: Path, split: str, card: Any, own_class: bool) -> str:
    """Return the command that computed a card, or the call in Python if no command can."""
    if own_class:
        rest = f"split={split!r}, samples={card['samples']}"
        return f"# textvae.evaluate_run({str(run)!r}, model=..., {rest})"
    named = options_of(split)
    command = ["textvae", "evaluate", str(run), *(["--data", "FILE"] if named is None else named)]
    command += ["--samples", str(card["samples"])]
    if (generations := card.get("generations", GENERATIONS)) != GENERATIONS:
        command += ["--generations", str(generations)]
    if card["precision"] != "fp32":
        command += ["--precision", card["precision"]]
    if seed := card.get("seed", 0):
        command += ["--seed", str(seed)]
    if "hole_share_aggregate" in card:
        command.append("--fit-sampler")
    return shlex.join(command) + (f"  # {split}" if named is None else "")
