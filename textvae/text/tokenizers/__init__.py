"""Tokenizers, which convert text to token ids and back.

| tokenizer | tokens | unseen text |
|---|---|---|
| ``WordTokenizer`` | whole words | ``<unk>`` |
| ``SentencePieceTokenizer`` | subwords | UTF-8 bytes: every text round-trips exactly |
| ``CharTokenizer`` | characters | UTF-8 bytes: every text round-trips exactly; or ``<unk>`` |
| ``SmilesTokenizer`` | atoms, bonds, and rings of molecules | ``<unk>`` |
| ``HuggingFaceTokenizer`` | those of a pretrained model | as the pretrained model does it |

To add a tokenizer, write a class with the methods of ``Tokenizer`` and add it to
``train_tokenizer`` and ``load_tokenizer``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from textvae.errors import OptionError, UserError
from textvae.runs.model_folder import WEIGHTS
from textvae.runs.weights import read_metadata
from textvae.text.tokenizers.characters import CharTokenizer
from textvae.text.tokenizers.hugging_face import (
    HuggingFaceTokenizer,
    is_hugging_face,
    read_hugging_face,
)
from textvae.text.tokenizers.smiles import SmilesTokenizer
from textvae.text.tokenizers.subwords import SentencePieceTokenizer
from textvae.text.tokenizers.vocabulary import (
    BOS,
    EOS,
    PAD,
    SPECIALS,
    TOKENIZER_FILE,
    UNK,
    Unit,
    broken,
    read_description,
)
from textvae.text.tokenizers.words import WordTokenizer, count_words

__all__ = [
    "BOS",
    "EOS",
    "MADE_FOR",
    "NONE",
    "PAD",
    "SPECIALS",
    "UNK",
    "CharTokenizer",
    "HuggingFaceTokenizer",
    "SentencePieceTokenizer",
    "SmilesTokenizer",
    "Tokenizer",
    "Unit",
    "WordTokenizer",
    "count_words",
    "load_tokenizer",
    "read_tokenizer",
    "train_tokenizer",
]

CLASSES = (
    *(WordTokenizer, SentencePieceTokenizer, CharTokenizer, SmilesTokenizer),
    HuggingFaceTokenizer,
)
MADE_FOR = "tokenizer"  # in the weights' metadata: the fingerprint of their tokenizer,
NONE = "none"  # or that they were saved without one


class Tokenizer(Protocol):
    """What the rest of textvae needs from a tokenizer."""

    kind: str  # in ``tokenizer.json``
    unit: Unit  # that the figures of a text are shown by, if the user does not choose another

    @property
    def option(self) -> str:
        """The value of ``--tokenizer.kind`` that trains such a tokenizer."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; skips padding, ``<s>`` and ``</s>`` but not ``<unk>``."""
        ...

    def prefix(self, text: str, count: int) -> str:
        """Return the part of a text that its first ``count`` ids stand for."""
        ...

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the string of each id, including special tokens, for display."""
        ...

    def words(self, ids: Iterable[int]) -> list[tuple[str, int]]:
        """Return the words that the ids spell, for display, each with the number of its ids.

        A word begins with the space before it, so that all of them in a row show the text. Special
        tokens are words of their own.
        """
        ...

    def __len__(self) -> int:
        """Return the number of ids, including special tokens."""
        ...

    def fingerprint(self) -> str:
        """Return the sha256 of everything that determines the ids: the key of cached ids."""
        ...

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, and any other files of this kind, to ``folder``."""

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read what ``save`` wrote, without running any code from the folder."""
        ...


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: str,
    vocab_size: int,
    min_count: int = 1,
    byte_fallback: bool = True,
    tokenized: bool = False,
) -> Tokenizer:
    """Train a tokenizer on the texts of a corpus.

    Args:
        texts: The corpus.
        kind: ``word``, ``unigram``, ``bpe``, ``char``, ``smiles``, or ``auto``: ``word`` for texts
            that are tokenized already, else ``unigram``.
        vocab_size: Maximum size of the vocabulary.
        min_count: Minimum number of occurrences of a token, for all kinds but subwords.
        byte_fallback: Whether ``char`` spells characters that it does not have in UTF-8 bytes.
        tokenized: Whether the texts are words separated by spaces.

    Raises:
        UserError: The corpus is empty, or an option does not fit it.
    """
    kind = chosen_kind(kind, tokenized)
    check_options(kind, min_count, byte_fallback)
    match kind:
        case "word":
            return WordTokenizer.train(
                texts, max_size=vocab_size, min_count=min_count, tokenized=tokenized
            )
        case "char":
            return CharTokenizer.train(
                texts, max_size=vocab_size, min_count=min_count, byte_fallback=byte_fallback
            )
        case "smiles":
            return SmilesTokenizer.train(texts, max_size=vocab_size, min_count=min_count)
        case "unigram" | "bpe":
            return SentencePieceTokenizer.train(texts, vocab_size=vocab_size, model_type=kind)
    raise ValueError(f"unknown tokenizer {kind!r}")


def chosen_kind(kind: str, tokenized: bool) -> str:
    """Return the kind of tokenizer that ``auto`` stands for."""
    if kind != "auto":
        return kind
    return "word" if tokenized else "unigram"


def check_options(kind: str, min_count: int, byte_fallback: bool) -> None:
    """Check that the options have an effect on this kind of tokenizer.

    Raises:
        UserError: One has none.
    """
    if kind in ("unigram", "bpe") and min_count != 1:
        raise OptionError(f"no effect on subwords (kind {kind}): leave it out", min_count=min_count)
    if kind != "char" and not byte_fallback:
        raise OptionError(
            f"no effect on kind {kind}: leave it out, or choose kind char",
            byte_fallback=byte_fallback,
        )


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Load a tokenizer of any kind.

    Args:
        folder: Where ``Tokenizer.save`` wrote it, or that of a pretrained model of Hugging Face.

    Returns:
        The tokenizer.

    Raises:
        UserError: If there is no tokenizer in the folder, or it is damaged.
    """
    if is_hugging_face(Path(folder)):
        return read_hugging_face(Path(folder))
    kinds = {cls.kind: cls for cls in CLASSES}
    kind = read_description(Path(folder)).get("kind")
    if kind not in kinds:
        known = ", ".join(kinds)
        raise broken(Path(folder) / TOKENIZER_FILE, f"unknown kind {kind!r} (known: {known})")
    return kinds[kind].load(Path(folder))


def check_size(tokenizer: Tokenizer, vocab_size: int, name: str = "the tokenizer") -> None:
    """Raise a ``UserError`` if a tokenizer is not of the size that a model has."""
    if len(tokenizer) != vocab_size:
        raise UserError(
            f"{name} has {len(tokenizer)} tokens, but the model has {vocab_size}: "
            "they do not belong together"
        )


def read_tokenizer(folder: Path, vocab_size: int | None = None) -> Tokenizer:
    """Read the tokenizer in a model folder.

    Args:
        folder: The model folder.
        vocab_size: The vocabulary size of the model, if it is known.

    Raises:
        UserError: The tokenizer is missing, damaged, or not the one the weights were trained with.
    """
    tokenizer = load_tokenizer(folder)
    if vocab_size is not None:
        check_size(tokenizer, vocab_size, f"the tokenizer in {folder}")
    fingerprint = tokenizer.fingerprint()
    if read_metadata(folder / WEIGHTS).get(MADE_FOR, fingerprint) != fingerprint:
        raise UserError(
            f"the tokenizer in {folder} is not the one that the weights there were trained with: "
            "they do not belong together"
        )
    return tokenizer
