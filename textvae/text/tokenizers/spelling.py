"""Which tokens spell which words, for tokens that are parts of words, characters, or bytes.

A word consists of letters, digits, and their marks, with the space or the apostrophe before them;
punctuation is not part of it. In scripts that put no spaces between words, every token is a word of
its own, because nothing says where a word ends.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from textvae.text.tokenizers.vocabulary import SPECIALS

APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
# Thai, Lao, Tibetan, Burmese, Khmer; Chinese and Japanese characters.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]"
)


def spelled_words(
    ids: Iterable[int], decode: Callable[[list[int]], str], is_byte: Callable[[int], bool]
) -> list[tuple[str, int]]:
    """Return the words that token ids spell, each with the number of its ids.

    Args:
        ids: The ids, special tokens included, each of which is a word of its own.
        decode: The text of some ids; the texts of all ids, one after the other, are that of the
            whole.
        is_byte: Whether an id stands for a byte, several of which spell a character.
    """
    return joined_words(_pieces(ids, decode, is_byte))


def joined_words(pieces: Iterable[tuple[str, int, bool]]) -> list[tuple[str, int]]:
    """Return the words that pieces of a text spell, each with the number of its ids.

    Args:
        pieces: What one id or several ids spell, their number, and whether they are a special
            token.
    """
    words: list[tuple[str, int]] = []
    open_ended = False  # whether the last word may go on
    before_all = 0  # ids that spell nothing, such as a space at the start: of the first word
    for piece, count, special in pieces:
        if not (piece or words):
            before_all += count
            continue
        count, before_all = count + before_all, 0
        if open_ended and not special and _continues(words[-1][0], piece):
            word, before = words.pop()
            words.append((word + piece, before + count))
        else:
            words.append((f" {piece}" if special and words else piece, count))
        open_ended = not special
    return words or ([("", before_all)] if before_all else [])


def _pieces(
    ids: Iterable[int], decode: Callable[[list[int]], str], is_byte: Callable[[int], bool]
) -> Iterator[tuple[str, int, bool]]:
    """Yield the characters that bytes spell, and what other ids spell; and if it is special."""
    for in_bytes, run in groupby(map(int, ids), key=is_byte):
        if in_bytes:
            for character, count in _characters(list(run), decode):
                yield character, count, False
        else:
            for i in run:
                special = i < len(SPECIALS)
                yield SPECIALS[i] if special else decode([i]), 1, special


def _characters(run: list[int], decode: Callable[[list[int]], str]) -> list[tuple[str, int]]:
    text = decode(run)
    counts = [len(character.encode("utf-8", "surrogatepass")) for character in text]
    if sum(counts) != len(run):  # not valid UTF-8
        return [(text, len(run))]
    return list(zip(text, counts, strict=True))


def _continues(word: str, piece: str) -> bool:
    """Return whether what a token spells belongs to the word before it."""
    if not piece or not word:
        return True
    if word.isspace():
        return set(word) == {" "} and not piece[0].isspace()
    first, last = piece[0], word[-1]
    if unicodedata.category(first)[0] == "M":  # an accent, or a vowel sign
        return True
    return _in_a_word(first) and (_in_a_word(last) or last in APOSTROPHES)


def _in_a_word(character: str) -> bool:
    is_letter = unicodedata.category(character)[0] in "LNM"
    return is_letter and not _WITHOUT_SPACES.match(character)
