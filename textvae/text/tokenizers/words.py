"""Splitting text into words, counting words, and a word tokenizer.

A text is either already tokenized (PTB, Yahoo: words separated by spaces) or raw. Raw text is split
by the rule-based tokenizer of nltk, which needs no download.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

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

UNK_ALIASES = ("<unk>", "_UNK", "[UNK]")

# nltk's word tokenizer expects a single sentence and splits off only its last period. A document
# has many: split off every period at the end of a word, except after a single letter (initials,
# u.s.) and after these abbreviations.
_ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "vs", "etc", "inc", "ltd")
_PERIOD = re.compile(
    r"\.(?=[\"')\]}]*\s)(?<![.\s]\.)(?<!\b\w\.)(?<!\.\w\.)"
    + "".join(rf"(?<!\b{word}\.)" for word in _ABBREVIATIONS),
    re.IGNORECASE,
)


@functools.cache
def _treebank() -> tuple[Any, Any]:
    """The splitter and the joiner of nltk, imported on first use because this takes a second."""
    from nltk.tokenize import NLTKWordTokenizer, TreebankWordDetokenizer

    return NLTKWordTokenizer(), TreebankWordDetokenizer()


@functools.cache
def _as_whole_words(spellings: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\S)({'|'.join(map(re.escape, spellings))})(?!\S)")


def split_words(
    text: str, tokenized: bool, unk_aliases: tuple[str, ...] = UNK_ALIASES
) -> list[str]:
    """Split a text into words.

    Args:
        text: Any text.
        tokenized: Whether the words are already separated by spaces; otherwise the text is split
            by Treebank rules.
        unk_aliases: Spellings of the unknown word, which are kept whole.

    Returns:
        The words.
    """
    if tokenized:
        return text.split()
    # Treebank rules would split <unk>: keep aliases that are whole words.
    if any(alias in text for alias in unk_aliases):
        parts = _as_whole_words(unk_aliases).split(text)
    else:
        parts = [text]
    words: list[str] = []
    for i, part in enumerate(parts):
        words += [part] if i % 2 else _treebank()[0].tokenize(_PERIOD.sub(" .", part))
    return words


def count_words(text: str, tokenized: bool) -> int:
    """Count the words of a text. Perplexity divides by this plus 1 for the end of the text."""
    return len(split_words(text, tokenized))


class WordTokenizer(ClosedVocabulary):
    """A vocabulary of whole words; all other words become ``<unk>``.

    Args:
        words: The vocabulary without special tokens, most frequent first.
        tokenized: Whether texts are words separated by spaces; otherwise they are split by Treebank
            rules.
        unk_aliases: Spellings of the unknown word in corpora; all of them get id 1.
    """

    kind = "word"
    option = "word"
    unit: Unit = "word"
    space = " "

    def __init__(
        self,
        words: Sequence[str],
        *,
        tokenized: bool = True,
        unk_aliases: Sequence[str] = UNK_ALIASES,
    ):
        # A word that looks like a special token must not get that token's id: it is unknown.
        self.unk_aliases = tuple(unk_aliases)
        self._reserved = {*SPECIALS, *unk_aliases}
        super().__init__([word for word in words if word not in self._reserved])
        self.tokenized = tokenized
        self._fingerprint = fingerprint_of(
            self.kind, self._pieces, self.tokenized, self.unk_aliases
        )

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        max_size: int | None = None,
        min_count: int = 1,
        tokenized: bool = True,
        unk_aliases: Sequence[str] = UNK_ALIASES,
    ) -> "WordTokenizer":
        """Count the words of a corpus and keep the most frequent ones.

        Args:
            texts: The corpus.
            max_size: Maximum size of the vocabulary, including the four special tokens.
            min_count: Minimum number of occurrences of a word.
            tokenized: See the class.
            unk_aliases: See the class.

        Returns:
            The tokenizer.

        Raises:
            UserError: If ``max_size`` or ``min_count`` is out of range, or no word is left.
        """
        check_limits(max_size, min_count, len(SPECIALS), "special tokens")
        splitter = cls([], tokenized=tokenized, unk_aliases=unk_aliases)
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(splitter.split(text))
        size = None if max_size is None else max_size - len(SPECIALS)
        known = {word: n for word, n in counts.items() if word not in splitter._reserved}
        kept = most_frequent(known, size, min_count, "word")
        return cls(kept, tokenized=tokenized, unk_aliases=unk_aliases)

    @classmethod
    def from_torchtext(
        cls, vocab: Any, *, tokenized: bool = True, unk_aliases: Sequence[str] = UNK_ALIASES
    ) -> "WordTokenizer":
        """Convert a torchtext ``Vocab``.

        The words keep their order, but ids change because the special tokens come first here. The
        entry at the default index becomes ``<unk>``, regardless of its spelling.

        Args:
            vocab: Any object with ``get_itos`` and ``get_default_index``.
            tokenized: See the class.
            unk_aliases: See the class.

        Returns:
            The tokenizer.
        """
        words = list(vocab.get_itos())
        default = vocab.get_default_index()
        aliases = list(unk_aliases)
        if default is not None and words[default] not in aliases:
            aliases.append(words[default])
        return cls(words, tokenized=tokenized, unk_aliases=aliases)

    def split(self, text: str) -> list[str]:
        """Return the words of a text, as ``encode`` sees them."""
        return split_words(text, self.tokenized, self.unk_aliases)

    def join(self, tokens: Sequence[str]) -> str:
        """Join words with spaces, or by Treebank rules if the corpus is raw text."""
        return " ".join(tokens) if self.tokenized else _treebank()[1].detokenize(tokens)

    def fingerprint(self) -> str:
        """Return the sha256 of everything that determines the ids."""
        return self._fingerprint

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``."""
        write_description(
            folder,
            {
                "kind": self.kind,
                "tokenized": self.tokenized,
                "unk_aliases": list(self.unk_aliases),
                "tokens": self._pieces,
            },
        )

    @classmethod
    def load(cls, folder: Path) -> "WordTokenizer":
        """Read what ``save`` wrote.

        Raises:
            UserError: If the file is missing or damaged.
        """
        description = read_description(folder, cls.kind)
        pieces = read_strings(folder, description, "tokens")
        aliases = read_strings(folder, description, "unk_aliases")
        tokenized = description.get("tokenized")
        path = Path(folder) / TOKENIZER_FILE
        if tuple(pieces[: len(SPECIALS)]) != SPECIALS:
            raise broken(path, f"'tokens' must begin with {', '.join(SPECIALS)}")
        if not isinstance(tokenized, bool):
            raise broken(path, "'tokenized' must be true or false")
        words = pieces[len(SPECIALS) :]
        if reserved := {*SPECIALS, *aliases}.intersection(words):
            raise broken(
                path, f"{min(reserved)!r} cannot be a word: it is reserved for a special token"
            )
        return cls(words, tokenized=tokenized, unk_aliases=aliases)
