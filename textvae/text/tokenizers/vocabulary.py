"""What tokenizers share: the four special tokens, the file ``tokenizer.json``, a closed vocabulary.

Models see token ids but no tokenizer, so the special tokens have the same ids in every vocabulary:
``<pad>`` 0, ``<unk>`` 1, ``<s>`` 2, ``</s>`` 3.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from textvae.config.arguments import check_integers
from textvae.errors import OptionError, UserError, quantity
from textvae.runs.files import read_record, write_json

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
TOKENIZER_FILE = "tokenizer.json"
FORMAT_VERSION = 1
Unit = Literal["word", "token"]  # that the figures of a text are shown by
ADVICE = "save the tokenizer again or restore the file"


class ClosedVocabulary:
    """A tokenizer with an id for every token of a list; all other tokens become ``<unk>``.

    Args:
        tokens: Distinct tokens without the special ones, most frequent first.

    Raises:
        ValueError: A token is in the list twice.
    """

    space = ""  # between two tokens, where they are shown

    def __init__(self, tokens: Sequence[str]):
        self._pieces = [*SPECIALS, *tokens]
        self._ids = {token: i for i, token in enumerate(self._pieces) if i >= len(SPECIALS)}
        if len(self._ids) != len(tokens):
            raise ValueError("the vocabulary contains the same token twice")

    def split(self, text: str) -> list[str]:
        """Return the tokens of a text, known or not."""
        raise NotImplementedError

    def join(self, tokens: Sequence[str]) -> str:
        """Return the text that consists of these tokens."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the tokens of a text, without special tokens."""
        return [self._ids.get(token, UNK) for token in self.split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; ``<unk>`` is kept."""
        return self.join(self.tokens(without_specials(ids)))

    def prefix(self, text: str, count: int) -> str:
        """Return the part of a text that its first ``count`` ids stand for."""
        return self.join(self.split(text)[:count])

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id, including special tokens."""
        return [self._pieces[int(i)] for i in ids]

    def words(self, ids: Iterable[int]) -> list[tuple[str, int]]:
        """Return the tokens, each of which has one id, with the space before them if any."""
        return [
            (f"{self.space if i else ''}{token}", 1) for i, token in enumerate(self.tokens(ids))
        ]


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write ``tokenizer.json`` atomically."""
    write_json(Path(folder) / TOKENIZER_FILE, {"version": FORMAT_VERSION, **description})


def read_description(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """Read and check ``tokenizer.json``.

    Args:
        folder: The folder of the file.
        kind: The expected kind of tokenizer; None for any.

    Returns:
        The JSON object.

    Raises:
        UserError: If the file is missing, not JSON, or of another kind or version.
    """
    path = Path(folder) / TOKENIZER_FILE
    missing = f"no {TOKENIZER_FILE} in {folder}: is this a model folder?"
    description = read_record(path, missing=missing, advice=ADVICE)
    if description.get("version") != FORMAT_VERSION:
        found = description.get("version")
        raise broken(path, f"version {found!r}, but this release reads version {FORMAT_VERSION}")
    if kind is not None and description.get("kind") != kind:
        raise broken(path, f"expected kind {kind!r}, found {description.get('kind')!r}")
    return description


def read_strings(folder: Path, description: dict[str, Any], key: str) -> list[str]:
    """Get a list of distinct strings from a description.

    Args:
        folder: The folder of the file, for messages.
        description: The JSON object.
        key: The key of the list.

    Returns:
        The strings.

    Raises:
        UserError: If the entry is missing, is not a list of strings, or has duplicates.
    """
    strings = description.get(key)
    path = Path(folder) / TOKENIZER_FILE
    if not isinstance(strings, list) or not all(isinstance(s, str) for s in strings):
        raise broken(path, f"{key!r} must be a list of strings")
    if len(set(strings)) != len(strings):
        raise broken(path, f"{key!r} has the same entry twice")
    return strings


def check_limits(max_size: int | None, min_count: int, reserved: int, what: str) -> None:
    """Check the limits of a vocabulary before a corpus is read.

    Args:
        max_size: Maximum size of the vocabulary, including the reserved ids; None for any.
        min_count: Minimum number of occurrences of a token.
        reserved: Number of ids that are not for tokens of the corpus.
        what: What they are for.

    Raises:
        UserError: One of them leaves no room, or makes no sense.
    """
    if max_size is not None and max_size <= reserved:
        raise OptionError(f"must be above {reserved}, the number of {what}", max_size=max_size)
    check_integers(1, min_count=min_count)


def most_frequent(
    counts: Mapping[str, int], size: int | None, min_count: int, noun: str
) -> list[str]:
    """Return the tokens of a corpus, most frequent first.

    Args:
        counts: How often each token occurs.
        size: How many to return at most.
        min_count: Leave out tokens that are rarer.
        noun: What a token is called.

    Raises:
        UserError: There is none.
    """
    kept = [token for token, count in counts.items() if count >= min_count]
    if not kept:
        raise UserError(
            f"no {noun} occurs at least {quantity(min_count, 'time')}: the corpus is empty or "
            "min_count is too high"
        )
    # Ties are broken by spelling: the vocabulary must not depend on the order of the corpus.
    return sorted(kept, key=lambda token: (-counts[token], token))[:size]


def broken(path: Path, why: str) -> UserError:
    """Make the error for a damaged tokenizer file."""
    return UserError(f"{path}: {why}; {ADVICE}")


def fingerprint_of(*parts: Any) -> str:
    """Return the sha256 of the JSON of ``parts``, which is the same on every machine."""
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def without_specials(ids: Any) -> list[int]:
    """Remove padding, ``<s>`` and ``</s>``; ``<unk>`` is kept because it stands for a word."""
    return [int(i) for i in ids if int(i) not in (PAD, BOS, EOS)]
