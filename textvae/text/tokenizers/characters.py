"""A character tokenizer, with UTF-8 bytes for characters that are not in the training corpus.

Without the bytes, the alphabet is closed: a character that is not in the training corpus becomes
``<unk>``, and the vocabulary of a corpus with 30 characters has 34 entries instead of 290.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from textvae.text.tokenizers.spelling import spelled_words
from textvae.text.tokenizers.vocabulary import (
    SPECIALS,
    TOKENIZER_FILE,
    UNK,
    Unit,
    broken,
    check_limits,
    fingerprint_of,
    most_frequent,
    read_description,
    read_strings,
    without_specials,
    write_description,
)

_FIRST_BYTE = len(SPECIALS)
_BYTES = 256


class CharTokenizer:
    """A vocabulary of the special tokens, the 256 bytes, and the characters of a corpus.

    Args:
        characters: Distinct strings of one character each, most frequent first.
        byte_fallback: Whether unseen characters are spelled in bytes; if not, they are ``<unk>``,
            and there are no bytes in the vocabulary.
    """

    kind = "character"
    option = "char"
    unit: Unit = "token"  # most texts that are read so are names, formulas, or sequences

    def __init__(self, characters: Sequence[str], *, byte_fallback: bool = True):
        if any(len(c) != 1 for c in characters) or len(set(characters)) != len(characters):
            raise ValueError("characters must be distinct strings of one character each")
        self._characters = list(characters)
        self.byte_fallback = byte_fallback
        self._first = _first_character(byte_fallback)
        self._ids = {c: self._first + i for i, c in enumerate(self._characters)}
        # The fingerprint of a vocabulary with bytes is that of earlier releases.
        closed = () if byte_fallback else ("closed",)
        self._fingerprint = fingerprint_of(self.kind, self._characters, *closed)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        max_size: int | None = None,
        min_count: int = 1,
        byte_fallback: bool = True,
    ) -> "CharTokenizer":
        """Count the characters of a corpus and keep the most frequent ones.

        Args:
            texts: The corpus.
            max_size: Maximum size of the vocabulary, including special tokens and bytes.
            min_count: Minimum number of occurrences; rarer characters count as unseen.
            byte_fallback: See the class.

        Returns:
            The tokenizer.

        Raises:
            UserError: If ``max_size`` leaves no room for characters, or there is no text.
        """
        first = _first_character(byte_fallback)
        and_bytes = " and bytes" if byte_fallback else ""
        check_limits(max_size, min_count, first, f"special tokens{and_bytes}")
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        size = None if max_size is None else max_size - first
        known = {c: n for c, n in counts.items() if not _is_surrogate(c)}
        kept = most_frequent(known, size, min_count, "character")
        return cls(kept, byte_fallback=byte_fallback)

    def __len__(self) -> int:
        return self._first + len(self._characters)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the characters; unseen ones become bytes, or ``<unk>`` without them."""
        ids: list[int] = []
        for character in text:
            known = self._ids.get(character)
            if known is not None:
                ids.append(known)
            elif not self.byte_fallback:
                ids.append(UNK)
            else:
                ids += [_FIRST_BYTE + byte for byte in character.encode("utf-8")]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are not valid UTF-8 become U+FFFD."""
        spelled = bytearray()
        for i in without_specials(ids):
            if i == UNK:
                spelled += SPECIALS[UNK].encode()
            elif i < self._first:
                spelled.append(i - _FIRST_BYTE)
            else:
                spelled += self._characters[i - self._first].encode("utf-8")
        return spelled.decode("utf-8", errors="replace")

    def prefix(self, text: str, count: int) -> str:
        """Return the part of a text that its first ``count`` ids stand for."""
        if not self.byte_fallback:
            return text[:count]
        return self.decode(self.encode(text)[:count])

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the string of each id; bytes look like ``<0x0A>``."""
        return [self._piece(int(i)) for i in ids]

    def words(self, ids: Iterable[int]) -> list[tuple[str, int]]:
        """Return the words that the ids spell, each with the number of its ids."""
        return spelled_words(ids, self.decode, lambda i: _FIRST_BYTE <= i < self._first)

    def fingerprint(self) -> str:
        """Return the sha256 of everything that determines the ids."""
        return self._fingerprint

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``."""
        closed = {} if self.byte_fallback else {"byte_fallback": False}
        write_description(folder, {"kind": self.kind, **closed, "characters": self._characters})

    @classmethod
    def load(cls, folder: Path) -> "CharTokenizer":
        """Read what ``save`` wrote.

        Raises:
            UserError: If the file is missing or damaged.
        """
        description = read_description(folder, cls.kind)
        characters = read_strings(folder, description, "characters")
        byte_fallback = description.get("byte_fallback", True)
        path = Path(folder) / TOKENIZER_FILE
        if wrong := [c for c in characters if len(c) != 1 or _is_surrogate(c)]:
            raise broken(path, f"{wrong[0]!r} in 'characters' is not one character")
        if not isinstance(byte_fallback, bool):
            raise broken(path, "'byte_fallback' must be true or false")
        return cls(characters, byte_fallback=byte_fallback)

    def _piece(self, i: int) -> str:
        if i < _FIRST_BYTE:
            return SPECIALS[i]
        if i < self._first:
            return f"<0x{i - _FIRST_BYTE:02X}>"
        return self._characters[i - self._first]


def _first_character(byte_fallback: bool) -> int:
    return _FIRST_BYTE + _BYTES if byte_fallback else _FIRST_BYTE


def _is_surrogate(character: str) -> bool:
    return len(character) == 1 and "\ud800" <= character <= "\udfff"
