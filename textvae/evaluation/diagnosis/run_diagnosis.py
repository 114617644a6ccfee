"""``textvae diagnose``: the diagnosis of a run, with its training and a baseline in view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from textvae.builders.run_data import run_config
from textvae.config.arguments import check_integers
from textvae.config.experiment import Config
from textvae.errors import UserError
from textvae.evaluation.diagnosis.diagnose import diagnose_case, with_measurements
from textvae.evaluation.diagnosis.history import read_history, read_training
from textvae.evaluation.diagnosis.judge import MIN_EXAMPLES
from textvae.evaluation.diagnosis.remedies import remedies_for
from textvae.evaluation.diagnosis.remedy import Case, as_read
from textvae.evaluation.diagnosis.result import Diagnosis
from textvae.evaluation.diagnosis.saved_diagnosis import diagnosis_name, steps_done
from textvae.evaluation.metrics.saving import may_save, save_record
from textvae.evaluation.open_run import STDIN_NAME, Opening, OpenRun, open_run, rows_of
from textvae.evaluation.per_example import collect, log_progress
from textvae.evaluation.pool import pool_of
from textvae.runs import origin, run_folder
from textvae.runs.files import read_if_there
from textvae.runs.model_folder import is_built_in
from textvae.text.data.streams import STANDARD_INPUT
from textvae.vae.batch import Split
from textvae.vae.modes import undisturbed

if TYPE_CHECKING:
    from typing_extensions import Unpack


def diagnose_run(
    run: Path | str,
    *,
    condition: str | float | None = None,
    split: str = "test",
    baseline: Path | str | None = None,
    samples: int = 20,
    limit: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **opening: Unpack[Opening],
) -> Diagnosis:
    """Diagnose the best model of a run, and save the result in its folder.

    It is saved as ``RUN/metrics/SPLIT-diagnosis.json``; for a file of new examples, SPLIT is the
    name of the file.

    Args:
        run: A run folder.
        condition: For a model that is conditioned on labels or numbers: that of all examples in a
            file of new ones; None: those in the file.
        split: Which split to examine.
        baseline: The run of a language model trained on the same data, to compare with.
        samples: Draws of z per example for the reconstruction term.
        limit: Examine at most ``limit`` examples, evenly spaced; the result is then saved as
            ``SPLIT-diagnosis-limitN.json``.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of all noise.
        opening: data, reading, device, model, as in ``Opening``.

    Returns:
        The diagnosis; ``print`` shows it.

    Raises:
        UserError: It is not a run folder, its model has no latent variable, its data is missing or
            has changed, there is no such split, or the baseline is no language model of the same
            data.
    """
    check_integers(1, samples=samples, batch_size=batch_size)
    if limit is not None:
        check_integers(1, limit=limit)
    if baseline is not None and str(opening.get("data")) == STANDARD_INPUT:
        raise UserError("--data -, --baseline: both models read the examples; save them to a file")
    opened = open_run(run, condition=condition, **opening)
    save = may_save(opened.folder, opened.is_foreign)
    chosen, history = opened.split(split), read_history(opened.folder)
    rows = rows_of(chosen, batch_size, limit)
    reference = None
    if baseline is not None:
        other = _open_baseline(baseline, opened, opening.get("reading"), condition)
        reference = _log_p(other, opened, chosen, rows, seed)
    found = diagnose_case(
        opened.model,
        lambda: (chosen.batch(batch) for batch in rows),
        _case(opened, Path(run), opening.get("data"), _larger(opened, split, limit))._replace(
            baseline=None if baseline is None else str(baseline)
        ),
        samples=samples,
        seed=seed,
        inference=opened.model.inference_with(None),
        baseline=reference,
        progress=log_progress(np.concatenate([chosen.lengths[batch] for batch in rows])),
        pool=pool_of(opened, chosen, limit, seed=seed, batch_size=batch_size),
        name=opened.name,
        split=opened.title(split),
        history=history,
    )
    if save:
        record = {
            "seed": seed,
            "corpus_hash": chosen.content_hash,
            "weights": opened.weights,
            "steps": steps_done(opened.folder),
            "commit": origin.commit(),
        }
        name = diagnosis_name(opened.title(split), limit)
        save_record(opened.folder, name, found.to_dict() | record)
    return found


def with_current_remedies(
    found: Diagnosis,
    opened: OpenRun,
    card: Mapping[str, Any],
    limit: int | None,
    data: Path | str | None = None,
) -> Diagnosis:
    """Return a saved diagnosis with remedies for today: some may have been tried since.

    Args:
        found: The diagnosis.
        opened: The run.
        card: The metrics card of the same split.
        limit: The number of examples that were diagnosed; None: all of them.
        data: Where the data is, if it has moved since training.
    """
    larger = _larger(opened, str(card["split"]), limit)
    case = with_measurements(
        _case(opened, opened.folder, data, larger), [row.state for row in found.dimensions], card
    )
    return replace(found, remedies=remedies_for(found.verdict, case))


def _case(opened: OpenRun, run: Path, data: Path | str | None, larger_split: str | None) -> Case:
    """Return how a run was made and where its data is, which decides what commands can be given."""
    own_class = not is_built_in(type(opened.model))  # which no command can load
    own_parts = read_if_there(opened.folder / run_folder.SUMMARY).get("own_parts")
    return Case(
        as_read(opened.config, opened.model),
        run=run if run_folder.is_run(opened.folder) and not own_class else None,
        data=_moved(opened, data),
        examined=str(data) if opened.new and opened.new != STDIN_NAME else None,
        own=own_class or bool(own_parts),
        training=read_training(opened.folder, opened.config, read_history(opened.folder)),
        larger_split=larger_split,
    )


def _moved(opened: OpenRun, data: Path | str | None) -> str | None:
    """Return where the data of a run is, if its config does not say so from here."""
    if data is not None and not opened.new:
        return str(data)
    if not run_folder.is_run(opened.folder):
        return None  # only a saved model
    recorded = Config.load(run_folder.config_path(opened.folder)).data.dir
    found = run_config(opened.folder).data.dir
    return None if found == recorded else found


def _open_baseline(
    run: Path | str,
    opened: OpenRun,
    reading: Mapping[str, Any] | None,
    condition: str | float | None,
) -> OpenRun:
    """Open a language model with the data of another run, on which it was trained, too."""
    hashes = {run_folder.split_hash(folder) for folder in (Path(run), opened.folder)} - {None}
    if len(hashes) > 1:
        raise UserError(
            f"{run} was not trained on the data of {opened.folder}: choose another baseline"
        )
    conditional = run_config(Path(run)).model.condition != "none"
    baseline = open_run(
        run,
        data=opened.config.data.dir,
        reading=reading,
        condition=condition if conditional else None,
        device=opened.model.device,
    )
    if baseline.model.latent_dim:
        raise UserError(
            f"{run} has a latent variable: a baseline is a language model (latent_dim 0)"
        )
    return baseline


def _log_p(
    baseline: OpenRun, opened: OpenRun, split: Split, rows: Sequence[np.ndarray], seed: int
) -> Tensor:
    """Compute log p(x) of the same examples under a language model, (N,) nats."""
    same = [s for s in baseline.splits.values() if s.content_hash == split.content_hash]
    if not same:
        raise UserError(
            f"{baseline.folder} was not trained on the data of {opened.folder}: choose another"
        )
    with undisturbed(baseline.model, seed), torch.no_grad():
        return collect(baseline.model, (same[0].batch(batch) for batch in rows), 1, seed).rec


def _larger(opened: OpenRun, split: str, limit: int | None) -> str | None:
    """Return a split with more examples than were examined: the same one if they were limited.

    None if it has too few examples as well.
    """
    sizes = {name: len(examples) for name, examples in opened.splits.items()}
    limited = limit is not None and limit < sizes[split]
    largest = split if limited else max(sizes, key=lambda name: sizes[name])
    examined = limit if limited and limit is not None else sizes[split]
    return largest if sizes[largest] > max(examined, MIN_EXAMPLES) else None
