"""Texts on disk: a stream of rows becomes a memory-mapped Arrow file, opened as a ``Dataset``.

    cache/sources/<identity>.json   what was read: content hash, counts
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
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.runs.files import write_json
from textvae.text.data.sources import Source, import_datasets
from textvae.text.tokenizers.vocabulary import fingerprint_of

log = logging.getLogger(__name__)

_VERSION = 1
_ROWS_AT_ONCE = 1000


def stored(source: Source, cache: Path) -> Any:
    """Read a source into the cache, or find it there.

    Args:
        source: The split to read.
        cache: The cache folder.

    Returns:
        A memory-mapped ``datasets.Dataset`` whose fingerprint is the hash of its content.

    Raises:
        UserError: If there is a problem with the source, or it has no text.
    """
    facts = _write(source, cache) if source.identity is None else _facts(source, cache)
    blank = f", {facts['blank']} blank skipped" if facts["blank"] else ""
    log.info("%s: %d documents%s", source.where, facts["rows"], blank)
    datasets = import_datasets()
    table = datasets.table.MemoryMappedTable.from_file(str(_arrow(cache, facts["content"])))
    return datasets.Dataset(table, fingerprint=facts["content"])


def _facts(source: Source, cache: Path) -> dict[str, Any]:
    """Read a source unless the cache has it."""
    from filelock import FileLock

    index = cache / "sources" / f"{fingerprint_of(_VERSION, source.identity)}.json"
    facts = _known(index, cache)
    if facts is None:
        # If several processes start at once, one reads and the others wait.
        with FileLock(f"{index}.lock"):
            facts = _known(index, cache)
            if facts is None:
                facts = _write(source, cache)
                write_json(index, facts)
    return facts


def _arrow(cache: Path, content: str) -> Path:
    return cache / "texts" / f"{content}.arrow"


def _known(index: Path, cache: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(index.read_text())
        size = _arrow(cache, facts["content"]).stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if size == facts["size"] else None


def _write(source: Source, cache: Path) -> dict[str, Any]:
    temporary = cache / "texts" / f".{uuid.uuid4().hex}.tmp"
    try:
        facts = _write_rows(source, temporary)
        os.replace(temporary, _arrow(cache, facts["content"]))
    finally:
        temporary.unlink(missing_ok=True)
    return facts


def _write_rows(source: Source, path: Path) -> dict[str, Any]:
    import pyarrow as pa

    blank, rows, digest = 0, 0, hashlib.sha256()
    writer: Any = None
    schema: Any = None
    try:
        for chunk in _chunks(source.rows()):
            blank += sum(1 for _, text, _ in chunk if not text or text.isspace())
            kept = [row for row in chunk if row[1] and not row[1].isspace()]
            if not kept:
                continue
            if writer is None:
                schema = _schema(source, labeled=kept[0][2] is not None)
                digest.update(str(schema.names).encode() + repr(source.label_names).encode())
                writer = pa.ipc.new_stream(str(path), schema)
            _digest(digest, kept, source, labeled="label" in schema.names)
            rows += len(kept)
            columns = [[text for _, text, _ in kept]]
            if "label" in schema.names:
                convert = int if source.label_names else str
                columns.append([convert(label) for _, _, label in kept])
            writer.write_batch(pa.record_batch(columns, schema=schema))
    finally:
        if writer is not None:
            writer.close()
    if rows == 0:
        why = f"only {blank} blank lines" if blank else "empty"
        raise UserError(f"{source.where}: {why}; a corpus needs at least one document")
    content = digest.hexdigest()
    return {"content": content, "rows": rows, "blank": blank, "size": path.stat().st_size}


def _schema(source: Source, labeled: bool) -> Any:
    datasets = import_datasets()
    features = {"text": datasets.Value("string")}
    if labeled and source.label_names:
        features["label"] = datasets.ClassLabel(names=list(source.label_names))
    elif labeled:
        features["label"] = datasets.Value("string")
    return datasets.Features(features).arrow_schema


def _digest(digest: Any, rows: list, source: Source, labeled: bool) -> None:
    for line, text, label in rows:
        if (label is not None) != labeled:
            have, first = ("no label", "have one") if labeled else ("a label", "have none")
            raise UserError(f"{source.where}, line {line}: {have}, but the lines before {first}")
        for part in (text, label):
            if part is not None:
                try:
                    encoded = part.encode("utf-8")
                except UnicodeEncodeError:
                    raise UserError(
                        f"{source.where}, line {line}: a lone surrogate, which is not a character"
                    ) from None
                digest.update(len(encoded).to_bytes(8, "little") + encoded)


def _chunks(rows: Iterator) -> Iterator[list]:
    chunk = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _ROWS_AT_ONCE:
            yield chunk
            chunk = []
    yield chunk
