"""Word vectors trained elsewhere, as initial values of the embeddings.

Reads the text format of word2vec, GloVe, and fastText: a line per word with its numbers, after an
optional first line with the number of words and their dimension.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from textvae.errors import UserError


def read_word_vectors(
    path: Path, words: Mapping[str, int], dimension: int
) -> dict[int, np.ndarray]:
    """Read the vectors of the words in a vocabulary.

    Args:
        path: A text file, or one compressed by gzip.
        words: The id of each word.
        dimension: The size of the embeddings, E.

    Returns:
        Vectors (E,) in float32 by id; without the words that the file does not have.

    Raises:
        UserError: The file cannot be read, its vectors have another dimension or are not finite, or
            it has none of the words.
    """
    found: dict[int, np.ndarray] = {}
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                word, numbers = _parts(line, dimension)
                if number == 1 and len(numbers) == 1:  # the number of words and their dimension
                    continue
                row = words.get(word)
                if row is not None and row not in found:
                    found[row] = _vector(numbers, dimension, f"{path}, line {number}")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read ({reason})") from error
    if not found:
        raise UserError(
            f"{path} has none of the {len(words):,} tokens of this run: word vectors need "
            "--tokenizer.kind word, and the same spelling (lower case, for instance)"
        )
    return found


def _parts(line: str, dimension: int) -> tuple[str, list[str]]:
    """Split a line into the word and its numbers; some words of GloVe's files contain spaces."""
    word, *numbers = line.rstrip().split(" ")
    if len(numbers) > dimension and not _is_number(numbers[0]):
        more = len(numbers) - dimension
        return " ".join([word, *numbers[:more]]), numbers[more:]
    return word, numbers


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _vector(numbers: list[str], dimension: int, where: str) -> np.ndarray:
    if len(numbers) != dimension:
        raise UserError(
            f"{where}: a vector of {len(numbers)} numbers, but --model.embedding_dim is {dimension}"
        )
    try:
        vector = np.array(numbers, dtype=np.float32)
    except ValueError:
        raise UserError(f"{where}: not a word and {dimension} numbers") from None
    if not np.isfinite(vector).all():
        raise UserError(f"{where}: a number that is not finite")
    return vector
