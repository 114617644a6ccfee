"""Words: how a text is split into them, counted by them, and a vocabulary of them.

A text is either tokenised already (PTB, Yahoo: words between spaces, left alone) or raw;
raw text is split by nltk's rule-based tokenizer, which needs no download.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

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

UNK_ALIASES = ("<unk>", "_UNK", "[UNK]")

# nltk's word tokenizer takes one sentence and parts only its last full stop. A document has
# many: part every full stop at the end of a word, but not after one letter (initials, u.s.)
# nor after these abbreviations.
_ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "vs", "etc", "inc", "ltd")
_FULL_STOP = re.compile(
    r"\.(?=[\"')\]}]*\s)(?<![.\s]\.)(?<!\b\w\.)(?<!\.\w\.)"
    + "".join(rf"(?<!\b{word}\.)" for word in _ABBREVIATIONS),
    re.IGNORECASE,
)


@functools.cache
def _treebank() -> tuple[Any, Any]:
    """nltk's splitter and joiner; imported on first use, as nltk takes a second to import."""
    from nltk.tokenize import NLTKWordTokenizer, TreebankWordDetokenizer

    return NLTKWordTokenizer(), TreebankWordDetokenizer()


@functools.cache
def _standing_alone(spellings: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\S)({'|'.join(map(re.escape, spellings))})(?!\S)")


def split_words(
    text: str, tokenized: bool, unk_aliases: tuple[str, ...] = UNK_ALIASES
) -> list[str]:
    """The words of a text: between spaces if it is `tokenized`, else by Treebank rules."""
    if tokenized:
        return text.split()
    # Treebank rules would tear <unk> apart: aliases that stand as words are kept whole.
    if any(alias in text for alias in unk_aliases):
        parts = _standing_alone(unk_aliases).split(text)
    else:
        parts = [text]
    words: list[str] = []
    for i, part in enumerate(parts):
        words += [part] if i % 2 else _treebank()[0].tokenize(_FULL_STOP.sub(" .", part))
    return words


def count_words(text: str, tokenized: bool) -> int:
    """Number of words; with the end of the sentence added this is what PPL divides by."""
    return len(split_words(text, tokenized))


class WordTokenizer:
    """A vocabulary of whole words; every other word becomes `<unk>`.

    Args:
        words: the vocabulary without the specials, most frequent first.
        tokenized: texts are words between spaces; else they are split by Treebank rules.
        unk_aliases: spellings of the unknown word found in corpora; all become id 1.
    """

    kind = "word"

    def __init__(
        self,
        words: Sequence[str],
        *,
        tokenized: bool = True,
        unk_aliases: Sequence[str] = UNK_ALIASES,
    ):
        # A word that spells a special must never become that special's id: it is unknown.
        self.unk_aliases = tuple(unk_aliases)
        self._reserved = {*SPECIALS, *unk_aliases}
        self._pieces = [*SPECIALS, *(w for w in words if w not in self._reserved)]
        self._ids = {word: i for i, word in enumerate(self._pieces) if i >= len(SPECIALS)}
        if len(self._ids) != len(self._pieces) - len(SPECIALS):
            raise ValueError("the same word stands twice in the vocabulary")
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
        """Count the words of `texts` and keep the most frequent.

        Args:
            max_size: largest `len()` of the result, the four specials counted.
            min_count: rarer words are left out.

        Raises:
            UserError: `max_size` or `min_count` out of range, or no word is left.
        """
        if max_size is not None and max_size <= len(SPECIALS):
            raise UserError(f"max_size {max_size}: must exceed the {len(SPECIALS)} specials")
        if min_count < 1:
            raise UserError(f"min_count {min_count}: must be at least 1")
        splitter = cls([], tokenized=tokenized, unk_aliases=unk_aliases)
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(splitter._split(text))
        kept = [w for w, n in counts.items() if n >= min_count and w not in splitter._reserved]
        if not kept:
            raise UserError(
                f"no word occurs {min_count} times or more: the corpus is empty or min_count "
                "is too high"
            )
        # Ties by spelling: the order of the corpus must not decide the vocabulary.
        kept.sort(key=lambda word: (-counts[word], word))
        size = None if max_size is None else max_size - len(SPECIALS)
        return cls(kept[:size], tokenized=tokenized, unk_aliases=unk_aliases)

    @classmethod
    def from_torchtext(
        cls, vocab: Any, *, tokenized: bool = True, unk_aliases: Sequence[str] = UNK_ALIASES
    ) -> "WordTokenizer":
        """Take over a torchtext `Vocab`, or any object with `get_itos` and `get_default_index`.

        The words keep their order; ids move, as the specials stand first here. The entry at
        the default index, whatever its spelling, becomes `<unk>`.
        """
        words = list(vocab.get_itos())
        default = vocab.get_default_index()
        aliases = list(unk_aliases)
        if default is not None and words[default] not in aliases:
            aliases.append(words[default])
        return cls(words, tokenized=tokenized, unk_aliases=aliases)

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Ids of the words of `text`, without specials."""
        return [self._ids.get(word, UNK) for word in self._split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Words joined by spaces, or by Treebank rules if the corpus is raw text."""
        words = self.tokens(without_specials(ids))
        return " ".join(words) if self.tokenized else _treebank()[1].detokenize(words)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One piece for each id, specials included."""
        return [self._pieces[int(i)] for i in ids]

    def fingerprint(self) -> str:
        """sha256 over everything that decides the ids."""
        return self._fingerprint

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`."""
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
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing or damaged.
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
            raise broken(path, f"{min(reserved)!r} cannot be a word: it means a special")
        return cls(words, tokenized=tokenized, unk_aliases=aliases)

    def _split(self, text: str) -> list[str]:
        return split_words(text, self.tokenized, self.unk_aliases)
