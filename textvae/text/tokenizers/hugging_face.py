"""The tokenizer of a pretrained model of Hugging Face, for models that start from its weights.

Its file ``tokenizer.json`` is read by the package ``tokenizers``, and no code from its folder runs.
A token has the id that the pretrained model knows it by, plus 4 for the special tokens of textvae,
which every model here has. The pretrained model's own special tokens are ids like any other, but
are not added to texts; its unknown token is ``<unk>``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from textvae.errors import UserError
from textvae.runs.files import replace_file
from textvae.text.tokenizers.spelling import joined_words
from textvae.text.tokenizers.vocabulary import (
    SPECIALS,
    TOKENIZER_FILE,
    UNK,
    Unit,
    broken,
    fingerprint_of,
    read_description,
    without_specials,
    write_description,
)

FIRST = len(SPECIALS)  # the id of the pretrained model's token 0
THEIR_FILE = "tokenizer.hf.json"  # of the pretrained model, next to ours
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what a part of a character is decoded to


class HuggingFaceTokenizer:
    """The tokens of a pretrained model, after the special tokens of textvae.

    Args:
        description: The content of its ``tokenizer.json``.

    Raises:
        UserError: It is no such file, or the package ``tokenizers`` is not installed.
    """

    kind = option = "hugging_face"
    unit: Unit = "word"

    def __init__(self, description: str):
        self._description = description
        self._tokenizer: Any = _parsed(description)
        self._tokenizer.encode_special_tokens = True  # what looks like one is text, if it is in one
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        self._size = FIRST + max(ids, default=-1) + 1
        self._unknown_token = _unknown_token(description)
        self._unknown = self._tokenizer.token_to_id(self._unknown_token)
        if self._unknown_token and self._unknown is None:
            raise UserError(
                f"its token for everything unknown, {self._unknown_token!r}, is not in its "
                "vocabulary: the file is damaged"
            )
        self._fingerprint = fingerprint_of(
            self.kind, hashlib.sha256(description.encode("utf-8")).hexdigest()
        )

    def __len__(self) -> int:
        return self._size

    def encode(self, text: str) -> list[int]:
        """Return the ids of the tokens of a text, without special tokens.

        What ``decode`` writes for an unknown token is read as one.

        Raises:
            UserError: It has an unknown token, for which the pretrained model has none.
        """
        if self._unknown is None:
            return self._encoded(text)
        first, *others = text.split(self._unknown_token)
        return [*self._encoded(first), *(i for part in others for i in [UNK, *self._encoded(part)])]

    def _encoded(self, text: str) -> list[int]:
        try:
            found = self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the package raises nothing more specific
            raise UserError(
                f"the tokenizer of the pretrained model cannot read {text!r}: {error}"
            ) from None
        return [UNK if i == self._unknown else i + FIRST for i in found]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids, as the pretrained model's tokenizer writes it."""
        theirs: list[int] = []
        text = ""
        for i in without_specials(ids):
            if i != UNK:
                theirs.append(i - FIRST)
            elif self._unknown is not None:
                theirs.append(self._unknown)
            else:
                text, theirs = text + self._spell(theirs) + SPECIALS[UNK], []
        return text + self._spell(theirs)

    def prefix(self, text: str, count: int) -> str:
        """Return the part of a text that its first ``count`` ids stand for."""
        return self.decode(self.encode(text)[:count])

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id, as it is written in the vocabulary."""
        return [self._token(int(i)) for i in ids]

    def words(self, ids: Iterable[int]) -> list[tuple[str, int]]:
        """Return the words that the ids spell, each with the number of its ids."""
        return joined_words(self._pieces(map(int, ids)))

    def fingerprint(self) -> str:
        """Return the sha256 of everything that determines the ids."""
        return self._fingerprint

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and, next to it, the file of the pretrained model."""
        folder = Path(folder)
        content = self._description.encode("utf-8")
        replace_file(folder / THEIR_FILE, lambda file: file.write_bytes(content))
        digest = hashlib.sha256(content).hexdigest()
        write_description(
            folder, {"kind": self.kind, "file": THEIR_FILE, "sha256": digest, "size": len(self)}
        )

    @classmethod
    def load(cls, folder: Path) -> HuggingFaceTokenizer:
        """Read what ``save`` wrote.

        Raises:
            UserError: A file is missing or damaged.
        """
        description = read_description(folder, cls.kind)
        path = Path(folder) / THEIR_FILE
        content = _read(path)
        if hashlib.sha256(content.encode("utf-8")).hexdigest() != description.get("sha256"):
            raise broken(path, f"its sha256 is not the one in {TOKENIZER_FILE}")
        return cls(content)

    def _pieces(self, ids: Iterable[int]) -> Iterator[tuple[str, int, bool]]:
        """Yield what each id adds to the text; together, those that spell a single character."""
        run: list[int] = []
        shown, waiting = "", 0  # the text so far, and ids of a character that is not complete
        for i in ids:
            if i < FIRST:
                if waiting:
                    yield INCOMPLETE, waiting, False
                yield SPECIALS[i], 1, True
                run = [i] if i == UNK else []  # the space after it belongs to the next word
                shown, waiting = self.decode(run), 0
                continue
            run.append(i)
            text = self.decode(run)
            if text.endswith(INCOMPLETE):
                waiting += 1
                continue
            piece = text[len(shown) :] if text.startswith(shown) else self.decode([i])
            yield piece, waiting + 1, False
            shown, waiting = text, 0
        if waiting:
            yield INCOMPLETE, waiting, False

    def _token(self, i: int) -> str:
        if i < FIRST:
            return SPECIALS[i]
        token = self._tokenizer.id_to_token(i - FIRST)
        return f"<{i}>" if token is None else str(token)  # an id that the vocabulary leaves out

    def _spell(self, theirs: list[int]) -> str:
        return str(self._tokenizer.decode(theirs, skip_special_tokens=False)) if theirs else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._description,)


def is_hugging_face(folder: Path) -> bool:
    """Return whether the ``tokenizer.json`` of a folder is that of a pretrained model."""
    try:
        found = json.loads((Path(folder) / TOKENIZER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "model" in found and "added_tokens" in found


def read_hugging_face(folder: Path) -> HuggingFaceTokenizer:
    """Read the tokenizer of a pretrained model from its folder.

    Raises:
        UserError: The file is damaged, or the package ``tokenizers`` is not installed.
    """
    path = Path(folder) / TOKENIZER_FILE
    content = _read(path)
    try:
        return HuggingFaceTokenizer(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise broken(path, "it is not UTF-8") from None


def _parsed(description: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UserError(
            "the tokenizers of Hugging Face need the package tokenizers, which is not installed: "
            "pip install tokenizers"
        ) from None
    try:
        return Tokenizer.from_str(description)
    except Exception as error:  # the package raises nothing more specific
        raise UserError(f"not a tokenizer of Hugging Face: {error}") from None


def _unknown_token(description: str) -> str:
    """Return the token that stands for everything unknown; empty if there is none."""
    model = json.loads(description).get("model", {})
    if isinstance(place := model.get("unk_id"), int):  # unigram models name it by its id
        return str(model["vocab"][place][0])
    return str(model.get("unk_token") or "")
