"""Texts on disk: a stream of rows becomes a memory-mapped Arrow file, opened as a ``Dataset``.

    cache/sources/<identity>.json   what was read: content hash, counts, which rows were blank
    cache/texts/<content>.arrow     the rows: text, and label if there is one

A source with the same path, size, and modification time is not read again. One that was moved or
touched is read once more and recognized by its content.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from textvae.errors import UserError, quantity
from textvae.runs.cache import cache_lock, checksum, mark_used, unwritable
from textvae.runs.files import write_json
from textvae.runs.hugging_face import import_datasets
from textvae.runs.slow_steps import SlowStep
from textvae.text.data.columns import Row
from textvae.text.data.source import Source, guesses, utf8
from textvae.text.tokenizers.vocabulary import fingerprint_of

logger = logging.getLogger(__name__)

_VERSION = 4
_ROWS_AT_ONCE = 1000
_NOTHING = b"\xff" * 8  # instead of the length of a label
_SHOWN = 60  # characters of the first example in the log


def stored(source: Source, cache: Path, *, numbered: bool = False) -> Any:
    """Read a source into the cache, or find it there.

    Args:
        source: The split to read.
        cache: The cache folder.
        numbered: Whether to add a column ``row`` if there are blank rows, which are left out: the
            number of each row among all.

    Returns:
        A memory-mapped ``datasets.Dataset`` whose fingerprint is the hash of its content.

    Raises:
        UserError: If there is a problem with the source, or it has no text.
    """
    index = cache / "sources" / f"{fingerprint_of(_VERSION, source.identity)}.json"
    facts = _known(index, cache)
    if facts is None:
        # If several processes start at once, one reads and the others wait.
        with cache_lock(index):
            facts = _known(index, cache)
            if facts is None:
                facts = _write(source, cache)
                write_json(index, facts)
    datasets = import_datasets()
    arrow = _arrow(cache, facts["content"])
    mark_used(arrow)
    table = datasets.table.MemoryMappedTable.from_file(str(arrow))
    if facts["unlabeled"] == facts["rows"]:
        table = table.select(["text"])
    if numbered and facts["blank"]:
        import pyarrow as pa

        rows = np.delete(np.arange(facts["rows"] + len(facts["blank"])), facts["blank"])
        table = table.append_column("row", pa.array(rows))
    dataset = datasets.Dataset(table, fingerprint=facts["content"])
    guesses.info("%s: %s; first: %s", source.where, _counts(source, facts), _first(dataset))
    return dataset


def _counts(source: Source, facts: dict[str, Any]) -> str:
    parts = [quantity(facts["rows"], "document")]
    if facts["blank"]:
        parts.append(f"{len(facts['blank']):,} blank skipped")
    if source.labeled and facts["unlabeled"] == facts["rows"]:
        parts.append("none has a label")
    elif facts["unlabeled"] and source.labeled:
        parts.append(f"{facts['unlabeled']:,} without a label (-1, null, NaN, or empty)")
    return ", ".join(parts)


def _first(dataset: Any) -> str:
    first = dataset[0]
    text, label = first["text"], first.get("label")
    shown = repr(_shortened(text))
    if label is None:
        return shown
    names = getattr(dataset.features["label"], "names", None)
    return f"{shown}, label {_shortened(str(names[label] if names else label))}"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _arrow(cache: Path, content: str) -> Path:
    return cache / "texts" / f"{content}.arrow"


def _known(index: Path, cache: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(index.read_text(encoding="utf-8"))
        return facts if checksum(_arrow(cache, facts["content"])) == facts["checksum"] else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(source: Source, cache: Path) -> dict[str, Any]:
    temporary = cache / "texts" / f".{uuid.uuid4().hex}.tmp"
    try:
        facts = _write_rows(source, temporary)
        facts["checksum"] = checksum(temporary, flush=True)
        os.replace(temporary, _arrow(cache, facts["content"]))
    except OSError as error:
        raise unwritable(temporary, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return facts


def _write_rows(source: Source, path: Path) -> dict[str, Any]:
    import pyarrow as pa

    schema = _schema(source)
    labeled = "label" in schema.names
    convert = int if source.label_names else str
    blank: list[int] = []
    rows, unlabeled = 0, 0
    digest = hashlib.sha256(str(schema.names).encode() + repr(source.label_names).encode())
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        step = SlowStep(logger, "%s: %d documents read")
        for chunk in _chunks(source.rows()):
            first = rows + len(blank)
            step.show(source.where, first)
            kept = [row for row in chunk if not _is_blank(row)]
            if len(kept) < len(chunk):
                blank += [i for i, row in enumerate(chunk, first) if _is_blank(row)]
            if not kept:
                continue
            _digest(digest, kept, source)
            rows += len(kept)
            labels = [None if label is None else convert(label) for _, _, label in kept]
            unlabeled += labels.count(None)
            columns = [[text for _, text, _ in kept], *([labels] if labeled else [])]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    if rows == 0:
        why = f"only {quantity(len(blank), 'blank line')}" if blank else "empty"
        raise UserError(f"{source.where}: {why}; a corpus needs at least one document")
    return {
        "where": source.where,
        "content": digest.hexdigest(),
        "rows": rows,
        "blank": blank,
        "unlabeled": unlabeled,
    }


def _is_blank(row: Row) -> bool:
    return not row[1] or row[1].isspace()


def _schema(source: Source) -> Any:
    datasets = import_datasets()
    features = {"text": datasets.Value("string")}
    if source.labeled and source.label_names:
        features["label"] = datasets.ClassLabel(names=list(source.label_names))
    elif source.labeled:
        features["label"] = datasets.Value("string")
    return datasets.Features(features).arrow_schema


def _digest(digest: Any, rows: list, source: Source) -> None:
    for line, text, label in rows:
        for part in (text, label):
            if part is None:
                digest.update(_NOTHING)
                continue
            encoded = utf8(part, f"{source.where}, line {line}")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)


def _chunks(rows: Iterator) -> Iterator[list]:
    chunk = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _ROWS_AT_ONCE:
            yield chunk
            chunk = []
    yield chunk
