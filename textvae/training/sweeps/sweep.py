"""A sweep: the runs of a grid, several at a time, then their evaluation side by side.

It writes to its folder:

    manifest.json          what the sweep consists of, and the state of every run
    NAME/                  the run folders; logs/NAME.log: what each job said
    table.md               the metrics, the cost and the origin of the runs
    rate-distortion.svg    KL against reconstruction, if there is a latent variable
    report.html            the report about all runs

After a crash, or after Ctrl-C, the same sweep goes on where it was.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from textvae.builders.data import check_data
from textvae.config.arguments import check_integers
from textvae.errors import UserError, quantity
from textvae.evaluation.comparison.compare import as_markdown, gather
from textvae.evaluation.comparison.gains import add_gains_over_language_model
from textvae.evaluation.comparison.provenance import provenance
from textvae.evaluation.comparison.rate_distortion import draw_rate_distortion
from textvae.evaluation.evaluate_run import GENERATIONS
from textvae.evaluation.metrics.card_files import find_card
from textvae.evaluation.own_metrics import OPTION, code_of_metrics, load_own_metrics
from textvae.evaluation.report import report
from textvae.runs.files import write_text
from textvae.runs.lock import locked
from textvae.runs.run_folder import is_run, make_folder
from textvae.training.interrupt import Interrupted, StopRequest, stop_signals
from textvae.training.own_parts import code_of, load_own_parts, names_of, options_of
from textvae.training.progress import console
from textvae.training.sweeps.checks import check_same_data, check_splits
from textvae.training.sweeps.grid import make_grid
from textvae.training.sweeps.job import effort, is_done, own_model
from textvae.training.sweeps.launchers import Job, LauncherName, find_launcher
from textvae.training.sweeps.manifest import Manifest, new_manifest
from textvae.training.sweeps.states import States, last_line

logger = logging.getLogger(__name__)
LOOK_EVERY = 0.2  # seconds between two looks at the jobs
STOPPING = "stopping all runs; press Ctrl-C again to stop immediately"
LOGS = "logs"
TABLE, PICTURE, REPORT = "table.md", "rate-distortion.svg", "report.html"
REPORTED = 300  # examples for the report: enough for a verdict, and quick


class Sweep(NamedTuple):
    """What became of a sweep."""

    runs: list[Path]  # the folders of the runs that are done, in the order of the grid
    failed: dict[str, str]  # why a run failed, by its name
    table: str  # the metrics of the runs that are done, as Markdown; empty without evaluation


def sweep(
    *files: Path | str,
    out: Path | str,
    methods: Sequence[str] = (),
    vary: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 1,
    jobs: int = 1,
    evaluate: bool = True,
    samples: int = 200,
    generations: int = GENERATIONS,
    precision: Literal["fp32", "bf16"] = "fp32",
    probe: bool = False,
    with_report: bool = True,
    launcher: LauncherName = "local",
    launcher_options: Mapping[str, Any] | None = None,
    own_parts: Mapping[str, str] | None = None,
    own_metrics: Sequence[str] = (),
    **sections: Mapping[str, Any],
) -> Sweep:
    """Train and evaluate every method with every combination of values and every seed.

    A run that fails does not end the sweep. Runs that are done already are not repeated, and others
    continue where they were. Another grid in the same folder adds its runs to those that are there.

    Example:
        >>> textvae.sweep(
        ...     "base.yaml", "skip_vae.yaml", out="runs/sizes", data={"dir": "my_texts"},
        ...     vary={"model.latent_dim": [2, 10, 50]}, seeds=3, jobs=2,
        ... )

    Args:
        files: The YAML files that all runs have in common, the base first.
        out: The folder of the sweep.
        methods: Stacks of files of the recipes on top of them, such as ``skip_vae-free_bits``.
        vary: Values by option; by ``own-objective`` and the like, names of parts of your own as in
            ``own_parts``, and None for that of the config.
        seeds: Number of seeds, counted from ``train.seed``; the table has one row for all of them.
        jobs: Number of runs at the same time.
        evaluate: Whether to evaluate the runs and to compare them.
        samples: Samples K of the importance-weighted bound.
        generations: Sentences to reconstruct and to sample for BLEU and the like.
        precision: Precision of the evaluation; that of the training is ``train.precision``.
        probe: Whether to predict labels from z, too.
        with_report: Whether to end with a report, which takes some seconds for every run.
        launcher: ``local``: processes with one thread each (``train.threads`` changes that);
            ``submitit``: jobs on SLURM and other clusters.
        launcher_options: Parameters of submitit's executor.
        own_parts: Parts of your own that all runs have, ``file.py:name`` by ``model``,
            ``objective``, ``kl_schedule``, and ``procedure``: every run is a process, which
            executes the files.
        own_metrics: Metrics of your own, ``file.py:name``, that the runs are evaluated with as
            well; see ``textvae.evaluate``.
        sections: Options of all runs, by section, as for ``Config.load``.

    Raises:
        UserError: Before anything starts: an option is unknown, a value is out of range, there is
            no data, a run of another experiment is in the way, or another sweep is running in this
            folder.
        Interrupted: Ctrl-C or SIGTERM; all runs were saved.
    """
    check_integers(1, jobs=jobs)
    load_own_parts(own_parts or {})
    metrics = load_own_metrics(own_metrics)
    folder = Path(out)
    shared: dict[str, Any] = {"options": sections, "own_parts": own_parts}
    cells = make_grid(files, methods=methods, vary=vary, seeds=seeds, **shared)
    launch = find_launcher(launcher, folder / LOGS, launcher_options or {})
    parts = {cell.name: load_own_parts(cell.own_parts) for cell in cells}
    words = {cell.name: options_of(cell.own_parts) for cell in cells}
    more = [OPTION, *own_metrics] if own_metrics else []
    for cell in cells:
        check_data(cell.config.data)
    check_splits([cell.config for cell in cells], evaluate=evaluate, probe=probe)
    make_folder(folder)
    if is_run(folder):
        raise UserError(f"{folder} is the folder of a run: choose another --out for the sweep")

    def start(name: str) -> Job:
        command = [sys.executable, "-m", "textvae", "sweep", "--out", str(folder), "--run", name]
        return launch([*command, *words[name], *more], _log(folder, name))

    with locked(folder):
        manifest = new_manifest(
            folder,
            cells,
            evaluate=evaluate,
            samples=samples,
            generations=generations,
            precision=precision,
            probe=probe,
            own_metrics=code_of_metrics(metrics),
            own_parts={name: names_of(**each) for name, each in parts.items()},
            own_code={name: code_of(**each) for name, each in parts.items()},
        )
        check_same_data(folder, cells)
        make_folder(folder / LOGS)
        states = States(manifest, lambda name: _log(folder, name))
        message = "" if console().is_terminal else STOPPING  # it would garble the live table
        with stop_signals(message, "run the same command to continue") as stop, states:
            _run_all(manifest, states, start, jobs, stop)
        done = _conclude(manifest, states, average_seeds=seeds > 1)
        if with_report and done.table:
            _write_report(manifest, done.runs, parts)
        return done


def _log(folder: Path, name: str) -> Path:
    return folder / LOGS / f"{name}.log"


def _run_all(
    manifest: Manifest, states: States, start: Callable[[str], Job], jobs: int, stop: StopRequest
) -> None:
    """Run the jobs of a sweep until all have ended.

    Raises:
        Interrupted: The user asked to stop; all jobs have saved.
    """
    done = [name for name in manifest.grid if is_done(manifest, name)]
    for name in done:
        manifest.runs[name]["state"] = "done"
    manifest.save()
    runs = quantity(len(manifest.grid), "run")
    logger.info("%s in %s: %s", runs, manifest.folder, states.counts())
    left = [name for name in manifest.grid if name not in done]
    waiting = deque(_in_turn(manifest, left, jobs))
    running: dict[str, Job] = {}
    try:
        while running or (waiting and not stop.requested):
            if stop.requested:
                _stop(running, states)
                break
            while waiting and len(running) < jobs:
                name = waiting.popleft()
                running[name] = start(name)
                states.set(name, "running")
            _collect(running, states)
            time.sleep(LOOK_EVERY)
    except BaseException:  # a second Ctrl-C, or a job that could not be started
        for name, job in running.items():
            job.stop()
            states.set(name, "stopped")
        raise
    if stop.requested:
        raise Interrupted(f"stopped, {states.counts()}: run the same command to continue")


def _in_turn(manifest: Manifest, names: Sequence[str], jobs: int) -> Sequence[str]:
    """Return the names in the order in which they should start."""
    if jobs == 1:
        return names
    # The longest first, so that the last of them does not run alone.
    return sorted(names, key=lambda name: effort(manifest.config(name)), reverse=True)


def _stop(running: dict[str, Job], states: States) -> None:
    """Ask all jobs to save and to stop, and wait for them."""
    states.stopping = True
    for job in running.values():
        job.stop()
    while running:
        _collect(running, states, stopping=True)
        time.sleep(LOOK_EVERY)
    states.stopping = False


def _collect(running: dict[str, Job], states: States, stopping: bool = False) -> None:
    """Record the jobs that have ended."""
    for name, job in list(running.items()):
        status = job.poll()
        if status is None:
            continue
        del running[name]
        if status == 0:
            states.set(name, "done")
        elif stopping:
            states.set(name, "stopped")
        else:
            states.set(name, "failed", _reason(status, states.log(name)))


def _reason(status: int, log: Path) -> str:
    """Return why a job failed, from its exit status and the last line that it said."""
    said = last_line(log).removeprefix("textvae: ")
    if status < 0:
        return f"killed by signal {-status}" + (" (out of memory?)" if status == -9 else "")
    return f"{said or f'exit status {status}'} ({log})"


def _conclude(manifest: Manifest, states: States, *, average_seeds: bool) -> Sweep:
    """Write the table and the picture of the runs that are done."""
    runs = [manifest.run(name) for name in states.of("done")]
    failed = {name: manifest.runs[name]["message"] for name in states.of("failed")}
    if not runs or not manifest.evaluate:
        return Sweep(runs, failed, "")
    cards = gather(runs, average_seeds=average_seeds)
    add_gains_over_language_model(cards)
    table = as_markdown(cards)
    origin = f"```bash\n{manifest.command}\n```\n\n{provenance(runs)}"
    missing = [f"{name} failed: {message}\n" for name, message in failed.items()]
    write_text(manifest.folder / TABLE, "\n".join([table, *missing, f"{origin}\n"]))
    if any(find_card(run).get("latent_dim") for run in runs):
        picture = manifest.folder / PICTURE
        draw_rate_distortion(runs, picture, average_seeds=average_seeds)
    return Sweep(runs, failed, table)


def _write_report(
    manifest: Manifest, runs: list[Path], parts: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write the report of the runs that are done; ``parts`` are the user's own of every run."""
    places = {manifest.config(run.name).data.dir for run in runs}
    data = places.pop() if len(places) == 1 else None  # which may have moved since training
    own = {run: own_model(run, parts[run.name]) for run in runs}
    models = {run: model for run, model in own.items() if model is not None}
    report(runs, manifest.folder / REPORT, data=data, limit=REPORTED, models=models)
