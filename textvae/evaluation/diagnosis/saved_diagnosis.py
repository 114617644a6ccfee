"""Diagnoses on disk: what ``textvae diagnose`` saved in ``RUN/metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import inf
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.evaluation.diagnosis.history import Death, History, Moment
from textvae.evaluation.diagnosis.judge import Finding
from textvae.evaluation.diagnosis.remedy import Remedy
from textvae.evaluation.diagnosis.result import Diagnosis, Dimension, Evidence
from textvae.runs.files import read_if_there, read_record
from textvae.runs.model_folder import metrics_path, weights_hash
from textvae.runs.run_folder import SUMMARY


def diagnosis_name(split: str, limit: int | None) -> str:
    """Return the name of the record, without ``.json``; limit: number of examples, None for all."""
    return f"{split}-diagnosis" + ("" if limit is None else f"-limit{limit}")


def load_diagnosis(
    run: Path, split: str, card: Mapping[str, Any], limit: int | None = None
) -> Diagnosis | None:
    """Read the diagnosis of a run, if it is one of its model and of these examples.

    Args:
        run: The run folder.
        split: The split.
        card: The metrics card of the split.
        limit: The number of examples, evenly spaced; None: all of them.

    Returns:
        None if there is no such diagnosis, if it is of other weights or of another release, or if
        the run was trained since.
    """
    path = metrics_path(run, diagnosis_name(split, limit))
    try:
        record = read_record(path)
        found = _from_dict(record)
        str(found)  # fails as well if something in the record has the wrong type
    except (UserError, LookupError, TypeError, ValueError, AttributeError):
        return None
    count = card.get("count") if limit is None else limit
    current = record.get("weights") == weights_hash(run)
    current = current and record.get("steps") == steps_done(run)
    texts = {texts for of in (record, card) if (texts := of.get("corpus_hash"))}
    return found if current and found.count == count and len(texts) < 2 else None


def steps_done(run: Path) -> int | None:
    """Return the number of training steps of a run, None if it is not known."""
    return read_if_there(run / SUMMARY).get("steps")


def _from_dict(record: Mapping[str, Any]) -> Diagnosis:
    """Return what ``Diagnosis.to_dict`` was given."""
    history = record["history"]
    parts = {field.name: record[field.name] for field in fields(Diagnosis)} | {
        "findings": tuple(Finding(**row) for row in record["findings"]),
        "evidence": tuple(Evidence(**_unbounded(row)) for row in record["evidence"]),
        "dimensions": tuple(Dimension(**row) for row in record["dimensions"]),
        "history": History(
            tuple(Moment(**row) for row in history["moments"]),
            tuple(Death(**row) for row in history["deaths"]),
        ),
        "remedies": tuple(
            Remedy(**{**row, "files": tuple(row["files"]), "options": tuple(row["options"])})
            for row in record["remedies"]
        ),
    }
    return Diagnosis(**parts)


def _unbounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return evidence from JSON, which has no infinite ends of an interval."""
    ends = {key: end for key, end in (("low", -inf), ("high", inf)) if row[key] is None}
    return {**row, **ends}
