"""A character tokenizer, with UTF-8 bytes for characters that are not in the training corpus."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from textvae.errors import UserError
from textvae.text.tokenizers.vocabulary import (
    SPECIALS,
    TOKENIZER_FILE,
    UNK,
    broken,
    fingerprint_of,
    read_description,
    read_strings,
    without_specials,
    write_description,
)

_FIRST_BYTE = len(SPECIALS)
_FIRST_CHARACTER = _FIRST_BYTE + 256


class CharTokenizer:
    """A vocabulary of the special tokens, the 256 bytes, and the characters of a corpus.

    Args:
        characters: Distinct strings of one character each, most frequent first.
    """

    kind = "character"

    def __init__(self, characters: Sequence[str]):
        if any(len(c) != 1 for c in characters) or len(set(characters)) != len(characters):
            raise ValueError("characters must be distinct strings of one character each")
        self._characters = list(characters)
        self._ids = {c: _FIRST_CHARACTER + i for i, c in enumerate(self._characters)}
        self._fingerprint = fingerprint_of(self.kind, self._characters)

    @classmethod
    def train(
        cls, texts: Iterable[str], *, max_size: int | None = None, min_count: int = 1
    ) -> "CharTokenizer":
        """Count the characters of a corpus and keep the most frequent ones.

        Args:
            texts: The corpus.
            max_size: Maximum size of the vocabulary, including special tokens and bytes.
            min_count: Minimum number of occurrences; rarer characters are spelled in bytes.

        Returns:
            The tokenizer.

        Raises:
            UserError: If ``max_size`` leaves no room for characters, or there is no text.
        """
        if max_size is not None and max_size <= _FIRST_CHARACTER:
            raise UserError(
                f"max_size {max_size}: must exceed {_FIRST_CHARACTER}, the number of special "
                "tokens and bytes"
            )
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        kept = [c for c, n in counts.items() if n >= min_count and not _is_surrogate(c)]
        if not kept:
            raise UserError(f"no character occurs at least {min_count} times: is the corpus empty?")
        kept.sort(key=lambda c: (-counts[c], c))
        return cls(kept[: None if max_size is None else max_size - _FIRST_CHARACTER])

    def __len__(self) -> int:
        return _FIRST_CHARACTER + len(self._characters)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the characters of a text; unseen characters become bytes."""
        ids: list[int] = []
        for character in text:
            known = self._ids.get(character)
            if known is not None:
                ids.append(known)
            else:
                ids += [_FIRST_BYTE + byte for byte in character.encode("utf-8")]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are not valid UTF-8 become U+FFFD."""
        spelled = bytearray()
        for i in without_specials(ids):
            if i == UNK:
                spelled += SPECIALS[UNK].encode()
            elif i < _FIRST_CHARACTER:
                spelled.append(i - _FIRST_BYTE)
            else:
                spelled += self._characters[i - _FIRST_CHARACTER].encode("utf-8")
        return spelled.decode("utf-8", errors="replace")

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the string of each id; bytes look like ``<0x0A>``."""
        return [self._piece(int(i)) for i in ids]

    def fingerprint(self) -> str:
        """Return the sha256 of everything that determines the ids."""
        return self._fingerprint

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``."""
        write_description(folder, {"kind": self.kind, "characters": self._characters})

    @classmethod
    def load(cls, folder: Path) -> "CharTokenizer":
        """Read what ``save`` wrote.

        Raises:
            UserError: If the file is missing or damaged.
        """
        characters = read_strings(folder, read_description(folder, cls.kind), "characters")
        if wrong := [c for c in characters if len(c) != 1 or _is_surrogate(c)]:
            path = Path(folder) / TOKENIZER_FILE
            raise broken(path, f"{wrong[0]!r} in 'characters' is not one character")
        return cls(characters)

    def _piece(self, i: int) -> str:
        if i < _FIRST_BYTE:
            return SPECIALS[i]
        if i < _FIRST_CHARACTER:
            return f"<0x{i - _FIRST_BYTE:02X}>"
        return self._characters[i - _FIRST_CHARACTER]


def _is_surrogate(character: str) -> bool:
    return len(character) == 1 and "\ud800" <= character <= "\udfff"
