"""Diagnoses on disk: what ``textvae diagnose`` saved as ``RUN/metrics/SPLIT-diagnosis.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import inf, isclose
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.evaluation.diagnosis import Diagnosis, Dimension, Evidence
from textvae.evaluation.history import Death, History, Moment
from textvae.evaluation.judge import Finding
from textvae.evaluation.remedy import Remedy
from textvae.runs.files import read_record


def load_diagnosis(run: Path, split: str, card: Mapping[str, Any]) -> Diagnosis | None:
    """Read the diagnosis of a run, if it is one of the model and the examples on a metrics card.

    Args:
        run: The run folder.
        split: The split.
        card: The card, which has the same MI if it is of the same model and examples.

    Returns:
        None if there is no such diagnosis, or if it is of another model or release.
    """
    try:
        found = _from_dict(read_record(run / "metrics" / f"{split}-diagnosis.json"))
        str(found)  # fails as well if something in the record has the wrong type
        mi = next(row.value for row in found.evidence if row.key == "mi")
        same = isclose(mi, card["mi"], abs_tol=1e-6, rel_tol=1e-4)
    except (UserError, LookupError, TypeError, ValueError, AttributeError, StopIteration):
        return None
    return found if same and found.count == card.get("count") else None


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
