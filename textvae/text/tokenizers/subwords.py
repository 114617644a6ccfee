"""SentencePiece subwords, configured so that decode(encode(text)) == text for any text.

Identity normalization, no dummy prefix and no whitespace stripping preserve the text, and byte
fallback spells what the pieces cannot. One character needs extra care: SentencePiece writes a space
as U+2581, so a U+2581 in the text would come back as a space. It is encoded as its three UTF-8
bytes instead, which decode to the character itself.
"""

import hashlib
import io
import logging
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from textvae.errors import OptionError, UserError
from textvae.runs.files import replace_file
from textvae.runs.slow_steps import SlowStep, interruptible
from textvae.text.tokenizers.spelling import spelled_words
from textvae.text.tokenizers.vocabulary import (
    BOS,
    EOS,
    PAD,
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

logger = logging.getLogger(__name__)

MODEL_FILE = "tokenizer.model"
SPACE_MARK = "\u2581"
MODEL_TYPES = ("unigram", "bpe")
# The trainer skips sentences that contain a tab, NUL or U+2585, and reads U+2581 as a space.
_NOT_FOR_TRAINING = re.compile("[\t\0\u2581\u2585\ud800-\udfff]")
# Sums over threads depend on the number of threads. It is fixed so that a corpus gives the same
# model everywhere.
_TRAIN_THREADS = 4
_LONGEST_SENTENCE = 16_384  # bytes; the trainer would skip longer ones, so they are cut
_SENTENCES_SAMPLED = 2_000_000


class SentencePieceTokenizer:
    """A SentencePiece model with byte fallback: text round-trips exactly, without ``<unk>``.

    Args:
        model: The serialized SentencePiece model (a protocol buffer).

    Raises:
        UserError: If this is not a SentencePiece model, or it lacks what textvae relies on.
    """

    kind = "sentencepiece"
    unit: Unit = "word"

    def __init__(self, model: bytes):
        from sentencepiece import SentencePieceProcessor

        try:
            self._processor = SentencePieceProcessor(model_proto=model)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"not a SentencePiece model: {error}") from None
        processor = self._processor
        specials = (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id())
        if specials != (PAD, UNK, BOS, EOS):
            raise UserError(
                f"SentencePiece model with pad, unk, <s>, </s> at {specials}: textvae needs "
                f"{(PAD, UNK, BOS, EOS)}; train it with pad_id=0, unk_id=1, bos_id=2, eos_id=3"
            )
        self._mark = [processor.piece_to_id(f"<0x{b:02X}>") for b in SPACE_MARK.encode()]
        if UNK in self._mark:
            raise UserError(
                "SentencePiece model without byte fallback: train it with byte_fallback"
            )
        self._model = model
        self._fingerprint = fingerprint_of(self.kind, hashlib.sha256(model).hexdigest())

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int = 8000, model_type: str = "unigram"
    ) -> "SentencePieceTokenizer":
        """Train on a corpus, or on a sample of 2 million sentences if it is larger.

        Args:
            texts: The corpus.
            vocab_size: Number of pieces; lowered with a warning if the corpus yields fewer.
            model_type: ``unigram`` or ``bpe``.

        Returns:
            The tokenizer.

        Raises:
            UserError: If ``model_type`` is unknown, ``vocab_size`` is too small, or there is no
                text.
        """
        if model_type not in MODEL_TYPES:
            raise OptionError(f"choose {' or '.join(MODEL_TYPES)}", model_type=model_type)
        from sentencepiece import SentencePieceTrainer

        model = io.BytesIO()
        learn = partial(
            SentencePieceTrainer.train,
            sentence_iterator=_sentences(texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            **_exact_settings(),
        )
        step = SlowStep(logger, f"SentencePiece: learning {model_type} pieces, %.0f s so far")
        try:
            interruptible(learn, step)
        except RuntimeError as error:
            raise _explained(error, vocab_size) from error
        tokenizer = cls(model.getvalue())
        if len(tokenizer) < vocab_size:
            logger.warning(
                "SentencePiece: the corpus yields only %d pieces; vocab_size lowered from %d",
                len(tokenizer),
                vocab_size,
            )
        return tokenizer

    @property
    def option(self) -> str:
        """How its pieces were learned: ``unigram``, ``bpe``, or in a way that textvae does not."""
        from sentencepiece import sentencepiece_model_pb2

        schema: Any = sentencepiece_model_pb2  # generated, without types
        number = schema.ModelProto.FromString(self._model).trainer_spec.model_type
        name = str(schema.TrainerSpec.ModelType.Name(number)).lower()
        return name if name in MODEL_TYPES else f"SentencePiece {name}"

    def __len__(self) -> int:
        return self._processor.vocab_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of the pieces of a text, without special tokens."""
        if SPACE_MARK not in text:
            return self._processor.encode(text)
        first, *rest = text.split(SPACE_MARK)
        ids = self._processor.encode(first)
        for part in rest:
            ids += self._mark + self._processor.encode(part)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are not valid UTF-8 become U+FFFD."""
        return self._processor.decode(without_specials(ids))

    def prefix(self, text: str, count: int) -> str:
        """Return the part of a text that its first ``count`` ids stand for."""
        return self.decode(self.encode(text)[:count])

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the piece of each id; U+2581 is a space, and bytes look like ``<0x0A>``."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def words(self, ids: Iterable[int]) -> list[tuple[str, int]]:
        """Return the words that the ids spell, each with the number of its ids."""
        return spelled_words(ids, self.decode, self._processor.is_byte)

    def fingerprint(self) -> str:
        """Return the sha256 of everything that determines the ids."""
        return self._fingerprint

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer.model``."""
        folder = Path(folder)
        replace_file(folder / MODEL_FILE, lambda file: file.write_bytes(self._model))
        write_description(
            folder,
            {
                "kind": self.kind,
                "model": MODEL_FILE,
                "sha256": hashlib.sha256(self._model).hexdigest(),
                "size": len(self),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> "SentencePieceTokenizer":
        """Read what ``save`` wrote.

        Raises:
            UserError: If a file is missing or damaged.
        """
        description = read_description(folder, cls.kind)
        path = Path(folder) / MODEL_FILE
        try:
            model = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        if hashlib.sha256(model).hexdigest() != description.get("sha256"):
            raise broken(path, f"its sha256 is not the one in {TOKENIZER_FILE}")
        return cls(model)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._model,)


def _exact_settings() -> dict[str, Any]:
    return {
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "hard_vocab_limit": False,
        "pad_id": PAD,
        "unk_id": UNK,
        "bos_id": BOS,
        "eos_id": EOS,
        "unk_surface": SPECIALS[UNK],
        "num_threads": _TRAIN_THREADS,
        "max_sentence_length": _LONGEST_SENTENCE,
        "input_sentence_size": _SENTENCES_SAMPLED,
        "shuffle_input_sentence": True,
        "minloglevel": 2,
    }


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    characters = _LONGEST_SENTENCE // 4
    for text in texts:
        for part in _NOT_FOR_TRAINING.split(text):
            for start in range(0, len(part), characters):
                yield part[start : start + characters]


def _explained(error: RuntimeError, vocab_size: int) -> UserError:
    message = str(error)
    if needed := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return OptionError(
            "too small; the special tokens, bytes and characters of this "
            f"corpus need at least {needed[1]}",
            vocab_size=vocab_size,
        )
    if "sentences_.empty()" in message:
        return UserError(
            "there is no text to train a SentencePiece tokenizer on: the corpus is empty"
        )
    return UserError(f"SentencePiece training failed: {message}")
