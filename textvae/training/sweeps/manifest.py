"""DIR/manifest.json: what a sweep consists of, for its jobs and for those who read its results.

    commit, command            of the sweep that wrote it last
    evaluate, samples, generations, precision, probe, own_metrics
                               what is done with every run
    grid                       the names of the runs of that sweep, in order
    runs                       by name: method, values of the varied options, seed, command of
                               ``textvae train``, config, names of the user's own parts, state,
                               and why it failed

Runs of earlier sweeps in the same folder stay in ``runs``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from textvae.config.experiment import OPTIONS, PLACES, Config, config_from
from textvae.errors import UserError
from textvae.runs.files import read_if_there, read_record, write_json
from textvae.runs.origin import commit, own_command
from textvae.runs.run_folder import CONFIG, SUMMARY, is_run
from textvae.runs.run_folder import SWEEP as MANIFEST
from textvae.training.own_parts import check_same_parts
from textvae.training.sweeps.grid import Cell

State = Literal["waiting", "running", "done", "failed", "stopped"]
# A run may continue with other values of these: the data is known by its hash, not by its place.
MAY_DIFFER = {*(f"data.{name}" for name in PLACES), "train.threads"}


@dataclass
class Manifest:
    """What a sweep consists of; ``save`` writes it completely or not at all."""

    folder: Path
    evaluate: bool
    samples: int  # K of the importance-weighted bound
    generations: int  # sentences generated for BLEU and the like
    probe: bool  # whether to predict labels from z
    grid: list[str]
    runs: dict[str, dict[str, Any]]
    command: str
    commit: str | None
    precision: str = "fp32"  # of the evaluation; older manifests lack it
    own_metrics: dict[str, str | None] = field(default_factory=dict)  # hashes of their source

    def save(self) -> None:
        """Write the file."""
        record = asdict(self)
        del record["folder"]
        write_json(self.folder / MANIFEST, record)

    def set_state(self, name: str, state: State, message: str = "") -> None:
        """Record the state of a run."""
        self.runs[name] |= {"state": state, "message": message}
        self.save()

    def run(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.folder / name

    def config(self, name: str) -> Config:
        """Return the experiment of a run."""
        return config_from(self.runs[name]["config"])


def new_manifest(
    folder: Path,
    cells: Sequence[Cell],
    *,
    own_parts: Mapping[str, Mapping[str, str]] | None = None,
    own_code: Mapping[str, Mapping[str, str]] | None = None,
    **evaluation: Any,
) -> Manifest:
    """Return the manifest of a sweep, with the runs of earlier sweeps in its folder.

    Args:
        folder: The folder of the sweep.
        cells: Its runs.
        own_parts: The names of the user's own parts, by run and part.
        own_code: Hashes of their source.
        evaluation: ``evaluate``, ``samples``, ``generations``, ``precision``, ``probe``,
            ``own_metrics``.

    Raises:
        UserError: A run folder of the same name belongs to another experiment, or the manifest of
            the earlier sweep is broken.
    """
    earlier = read_manifest(folder).runs if (folder / MANIFEST).exists() else {}
    own = {cell.name: dict((own_parts or {}).get(cell.name, {})) for cell in cells}
    runs = {cell.name: _record(folder, cell, own[cell.name]) for cell in cells}
    for cell in cells:
        run = folder / cell.name
        check_run(run, cell.config)
        if is_run(run) and cell.name in earlier:
            check_same_parts(run, earlier[cell.name].get("own_parts", {}), own[cell.name])
            _check_same_code(run, (own_code or {}).get(cell.name, {}))
    return Manifest(
        folder,
        **evaluation,
        grid=[cell.name for cell in cells],
        runs=earlier | runs,
        command=own_command(),
        commit=commit(),
    )


def _check_same_code(run: Path, code: Mapping[str, str]) -> None:
    """Check that a run that is finished was trained with the code of its own parts as it is now.

    Raises:
        UserError: It was not, so its results would be taken for those of other code.
    """
    summary = read_if_there(run / SUMMARY)
    before = summary.get("own_code") or {}
    for part in before.keys() & code.keys() if summary.get("finished") else ():
        if before[part] != code[part]:
            raise UserError(
                f"{run} was trained with other code of the {part} {summary['own_parts'][part]}: "
                "choose another --out, delete that run, or give the part another name"
            )


def read_manifest(folder: Path | str) -> Manifest:
    """Read the manifest of a folder.

    Raises:
        UserError: There is none, or it is broken.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(f"{folder} holds no sweep: it has no {MANIFEST}")
    try:
        manifest = Manifest(folder, **read_record(path))
        for name in manifest.runs:
            manifest.config(name)
            manifest.runs[name]["state"]
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is broken, or was written by another release of textvae "
            f"({type(error).__name__}: {error})"
        ) from error
    return manifest


def _record(folder: Path, cell: Cell, own_parts: dict[str, str]) -> dict[str, Any]:
    command = ["textvae", "train", *cell.words, "--out", str(folder / cell.name)]
    return {
        "method": cell.method,
        "varied": cell.varied,
        "seed": cell.seed,
        "command": shlex.join(command),
        "config": asdict(cell.config),
        "own_parts": own_parts,
        "state": "waiting",
        "message": "",
    }


def check_run(run: Path, config: Config) -> None:
    """Check that a run folder, if there is one, was made by this experiment.

    Raises:
        UserError: It was not; the message names an option that differs.
    """
    if not is_run(run):
        return
    found = Config.load(run / CONFIG)
    for section, names in OPTIONS.items():
        for name in names:
            option = f"{section}.{name}"
            values = [getattr(getattr(each, section), name) for each in (found, config)]
            resolved = option == "train.precision" and values[1] == "auto"
            if values[0] != values[1] and option not in MAY_DIFFER and not resolved:
                raise UserError(
                    f"{run} holds a run with {option} {values[0]}, not {values[1]}: "
                    "choose another --out, or delete that run"
                )
