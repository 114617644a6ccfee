"""What every tokenizer shares: the four special ids and the `tokenizer.json` file.

Models never see a tokenizer, only ids, so the specials stand at the same place in every
vocabulary: pad 0, unk 1, <s> 2, </s> 3.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.runs.files import write_json

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
TOKENIZER_FILE = "tokenizer.json"
FORMAT_VERSION = 1


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write `tokenizer.json`: readable, and whole or not at all."""
    write_json(Path(folder) / TOKENIZER_FILE, {"version": FORMAT_VERSION, **description})


def read_description(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """Read and check `tokenizer.json`; `kind` demands one kind of tokenizer.

    Raises:
        UserError: the file is missing, is not JSON, or is of another kind or version.
    """
    path = Path(folder) / TOKENIZER_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {TOKENIZER_FILE} in {folder}: is this a model folder?") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise broken(path, f"not JSON ({error})") from None
    if not isinstance(description, dict):
        raise broken(path, "a JSON object was expected")
    if description.get("version") != FORMAT_VERSION:
        found = description.get("version")
        raise broken(path, f"version {found!r}, this release reads version {FORMAT_VERSION}")
    if kind is not None and description.get("kind") != kind:
        raise broken(path, f"kind {description.get('kind')!r} where {kind!r} was expected")
    return description


def read_strings(folder: Path, description: dict[str, Any], key: str) -> list[str]:
    """A list of distinct strings out of a description.

    Raises:
        UserError: the entry is missing, not a list of strings, or repeats one.
    """
    strings = description.get(key)
    path = Path(folder) / TOKENIZER_FILE
    if not isinstance(strings, list) or not all(isinstance(s, str) for s in strings):
        raise broken(path, f"{key!r} must be a list of strings")
    if len(set(strings)) != len(strings):
        raise broken(path, f"{key!r} holds the same entry twice")
    return strings


def broken(path: Path, why: str) -> UserError:
    """The error for a damaged tokenizer file."""
    return UserError(f"{path}: {why}; save the tokenizer again or restore the file")


def fingerprint_of(*parts: Any) -> str:
    """sha256 over the JSON of `parts`: equal for equal tokenizers, on every machine."""
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def without_specials(ids: Any) -> list[int]:
    """Plain ints without pad, <s> and </s>; <unk> stays, for it stands for a word."""
    return [int(i) for i in ids if int(i) not in (PAD, BOS, EOS)]
