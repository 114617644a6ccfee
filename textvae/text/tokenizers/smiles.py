"""A tokenizer for SMILES, the line notation of molecules (Weininger 1988).

A token is an atom in brackets (``[nH]``, ``[C@@H]``), a chlorine or a bromine, a ring closure of
two or more digits (``%12``, ``%(100)``), or any other single character, so that no symbol of the
notation is split. The alphabet is that of the training corpus: a token that does not occur there is
``<unk>``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from textvae.text.tokenizers.vocabulary import (
    SPECIALS,
    TOKENIZER_FILE,
    ClosedVocabulary,
    Unit,
    broken,
    check_limits,
    fingerprint_of,
    most_frequent,
    read_description,
    read_strings,
    write_description,
)

# Outside brackets, only chlorine and bromine have two letters. Brackets do not nest.
_TOKEN = re.compile(r"\[[^\[\]]*\]|Br|Cl|%\d\d|%\(\d+\)|.", re.DOTALL)


def split_smiles(text: str) -> list[str]:
    """Split a SMILES string into tokens, which spell the string again when they are joined."""
    return _TOKEN.findall(text)


class SmilesTokenizer(ClosedVocabulary):
    """A vocabulary of the special tokens and the SMILES tokens of a corpus.

    Args:
        symbols: Distinct tokens, most frequent first.
    """

    kind = "smiles"
    option = "smiles"
    unit: Unit = "token"

    def __init__(self, symbols: Sequence[str]):
        if wrong := [symbol for symbol in symbols if not _is_token(symbol)]:
            raise ValueError(f"{wrong[0]!r} is not a token of SMILES")
        super().__init__(symbols)
        self._fingerprint = fingerprint_of(self.kind, self._pieces)

    @classmethod
    def train(
        cls, texts: Iterable[str], *, max_size: int | None = None, min_count: int = 1
    ) -> SmilesTokenizer:
        """Count the tokens of a corpus and keep the most frequent ones.

        Args:
            texts: The corpus.
            max_size: Maximum size of the vocabulary, including the four special tokens.
            min_count: Minimum number of occurrences; rarer tokens become ``<unk>``.

        Returns:
            The tokenizer.

        Raises:
            UserError: If ``max_size`` leaves no room for tokens, or there is no text.
        """
        check_limits(max_size, min_count, len(SPECIALS), "special tokens")
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_smiles(text))
        size = None if max_size is None else max_size - len(SPECIALS)
        return cls(most_frequent(counts, size, min_count, "token"))

    def split(self, text: str) -> list[str]:
        """Return the tokens of a SMILES string."""
        return split_smiles(text)

    def join(self, tokens: Sequence[str]) -> str:
        """Join tokens to a SMILES string, which ``<unk>`` makes invalid."""
        return "".join(tokens)

    def fingerprint(self) -> str:
        """Return the sha256 of everything that determines the ids."""
        return self._fingerprint

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``."""
        write_description(folder, {"kind": self.kind, "symbols": self._pieces[len(SPECIALS) :]})

    @classmethod
    def load(cls, folder: Path) -> SmilesTokenizer:
        """Read what ``save`` wrote.

        Raises:
            UserError: If the file is missing or damaged.
        """
        symbols = read_strings(folder, read_description(folder, cls.kind), "symbols")
        if wrong := [symbol for symbol in symbols if not _is_token(symbol)]:
            path = Path(folder) / TOKENIZER_FILE
            raise broken(path, f"{wrong[0]!r} in 'symbols' is not a token of SMILES")
        return cls(symbols)


def _is_token(symbol: str) -> bool:
    return _TOKEN.fullmatch(symbol) is not None
