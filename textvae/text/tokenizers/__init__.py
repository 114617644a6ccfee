"""From text to ids and back: one protocol, three tokenizers.

| tokenizer | pieces | unseen text |
|---|---|---|
| `WordTokenizer` | whole words | `<unk>` |
| `SentencePieceTokenizer` | subwords | UTF-8 bytes: round-trips exactly |
| `CharTokenizer` | characters | UTF-8 bytes: round-trips exactly |

One more tokenizer is one more class of this shape and a line in `load_tokenizer`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from textvae.errors import UserError
from textvae.runs.model_folder import WEIGHTS, read_metadata
from textvae.text.tokenizers.characters import CharTokenizer
from textvae.text.tokenizers.subwords import SentencePieceTokenizer
from textvae.text.tokenizers.vocabulary import (
    BOS,
    EOS,
    PAD,
    SPECIALS,
    TOKENIZER_FILE,
    UNK,
    broken,
    read_description,
)
from textvae.text.tokenizers.words import WordTokenizer, count_words

__all__ = [
    "BOS",
    "EOS",
    "MADE_FOR",
    "PAD",
    "SPECIALS",
    "UNK",
    "CharTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "count_words",
    "load_tokenizer",
    "read_tokenizer",
]

MADE_FOR = "tokenizer"  # in the weights' metadata: the fingerprint of their tokenizer


class Tokenizer(Protocol):
    """What corpus, generation and the run folder ask of a tokenizer."""

    kind: str

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without specials."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; pad, <s> and </s> are left out, <unk> is shown as such."""

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One piece for each id, specials included, for display."""

    def __len__(self) -> int:
        """Number of ids, specials included."""

    def fingerprint(self) -> str:
        """sha256 over everything that decides the ids: the key of cached ids."""

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, and what else the kind needs, into `folder`."""

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read what `save` wrote; runs no code from the folder."""


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer saved in `folder`, whatever its kind.

    Raises:
        UserError: the folder holds no tokenizer, or a damaged one.
    """
    kinds = {cls.kind: cls for cls in (WordTokenizer, SentencePieceTokenizer, CharTokenizer)}
    kind = read_description(Path(folder)).get("kind")
    if kind not in kinds:
        known = ", ".join(kinds)
        raise broken(Path(folder) / TOKENIZER_FILE, f"unknown kind {kind!r} (known: {known})")
    return kinds[kind].load(Path(folder))


def read_tokenizer(folder: Path, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a model folder.

    Args:
        folder: The model folder.
        vocab_size: That of the model, if it is known.

    Raises:
        UserError: The tokenizer is missing, damaged, or not the one of the weights beside it.
    """
    tokenizer = load_tokenizer(folder)
    if vocab_size not in (None, len(tokenizer)):
        raise UserError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, the model {vocab_size}: "
            "they do not belong together"
        )
    fingerprint = tokenizer.fingerprint()
    if read_metadata(folder / WEIGHTS).get(MADE_FOR, fingerprint) != fingerprint:
        raise UserError(
            f"the tokenizer in {folder} is not the one that its weights were trained with: "
            "they do not belong together"
        )
    return tokenizer
