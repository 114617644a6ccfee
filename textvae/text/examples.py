"""Sentences in files, on pages, and in a terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from textvae.errors import UserError
from textvae.text.data.encoded import TOO_MANY_UNKNOWN
from textvae.text.data.layout import Layout
from textvae.text.data.source import utf8
from textvae.text.data.sources import document_parts, read_documents
from textvae.text.presentation import SentencePrinter
from textvae.text.quality import text_quality
from textvae.text.tokenizers import UNK, Tokenizer
from textvae.text.tokenizers.words import split_words
from textvae.vae.batch import Split
from textvae.vae.examples import Examples, Shown
from textvae.vae.model import Model

logger = logging.getLogger(__name__)

PROBED = 1000  # texts whose words are looked up before they are used


class TextExamples(Model):
    """A model whose examples are sentences or documents."""

    KIND = "text"
    DEFAULT_FILE = "-"
    ON_A_PAGE = 6
    tokenizer: Tokenizer | None

    def _needs_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError("the model has no tokenizer: set model.tokenizer first")
        return self.tokenizer

    @property
    def can_generate(self) -> bool:
        """Whether the decoder generates text: one of your own may only score it."""
        return hasattr(self.decoder, "stepper")

    def generation_metrics(
        self, split: Split, rows: Sequence[int], *, tokenized: bool, seed: int, **options: Any
    ) -> Callable[[], dict[str, Any]] | None:
        """Return a function that measures reconstructions of these rows, and samples.

        A reconstruction is compared with what the encoder reads, which may be cut off.
        """
        if not (len(rows) and self.can_generate):
            return None
        reconstructed = rows if self.latent_dim else []
        longest, tokenizer = self.config["max_length"], self._needs_tokenizer()
        sources = [tokenizer.prefix(split.caption(row), longest) for row in reconstructed]
        given = self.conditions_in(split, reconstructed)
        return lambda: text_quality(
            sources,
            reconstruct=lambda texts: self.reconstruct(texts, seed=seed, **given, **options),
            sample=lambda n: self.sample(n, seed=seed, batch_size=options["batch_size"]),
            split=lambda text: split_words(text, tokenized),
            samples=min(len(rows), 200),
        )

    def show_rows(self, split: Split, rows: Sequence[int]) -> list[Shown]:
        """Return the texts of these rows."""
        return [split.caption(row) for row in rows]

    def show_decoded(
        self,
        z: Tensor,
        *,
        sampled: bool = False,
        same_draws: bool = False,
        seed: int = 0,
        **given: Any,
    ) -> list[Shown]:
        """Return a sentence for every z: sampled word by word, or greedy without any draws."""
        return list(self.decode(z, do_sample=sampled, seed=seed, **given))

    def read_examples(self, source: str, **options: Any) -> Examples:
        """Read the documents in a file of any format; each is its own caption.

        Args:
            source: A file, or ``-`` for standard input.
            options: Options of ``read_corpus``: format, text_column, label_column, labels,
                delimiter, header; and ``usual``, as for ``read_file``.

        Raises:
            UserError: It cannot be read, is ambiguous, or has no sentences.
        """
        texts, labels = read_documents(source, self._layout(options))
        self._warn_of_unknown(texts, source)
        return Examples(texts, texts, labels)

    def example_parts(
        self, source: str, size: int, **options: Any
    ) -> Callable[[], Iterator[Examples]]:
        """Read the documents in a file as ``read_examples`` does, but never all at once."""
        parts = document_parts(source, self._layout(options), size)
        for texts, _ in parts():
            self._warn_of_unknown(texts, source)
            break
        return lambda: (Examples(texts, texts, labels) for texts, labels in parts())

    def _warn_of_unknown(self, texts: Sequence[str], where: str) -> None:
        """Warn if the model does not know many of the words in the first texts."""
        tokenizer = self._needs_tokenizer()
        ids = [token for text in texts[:PROBED] for token in tokenizer.encode(text)]
        share = ids.count(UNK) / max(1, len(ids))
        if share > TOO_MANY_UNKNOWN:
            logger.warning(
                "%s: %.0f%% of the tokens are <unk>, words that the model does not know; the "
                "results for these texts mean little",
                *(where, 100 * share),
            )

    def _layout(self, options: dict[str, Any]) -> Layout:
        return Layout.parse(**options, numeric=self.config["condition"] == "number")

    def pick_examples(self, names: Sequence[str], read_split: Callable[[], Split]) -> Examples:
        """Return the sentences given, which have no labels."""
        for number, name in enumerate(names, start=1):
            utf8(name, f"sentence {number}")
        self._warn_of_unknown(names, "the given text")
        return Examples(list(names), list(names), [None] * len(names))

    def presenter(self, *, out: Path | None, format: str, show_sources: bool) -> SentencePrinter:
        """Return a printer of sentences."""
        return SentencePrinter(format, show_sources, out)

    def previews(self, split: Split, count: int) -> dict[str, list[dict[str, str]]]:
        """Generate samples, and reconstructions of sentences from the split."""
        if not self.can_generate:
            return {}
        shown = {"samples": [{"sample": text} for text in self.sample(count)]}
        if self.latent_dim:
            rows = range(min(count, len(split)))
            texts = [split.caption(i) for i in rows]
            pairs = zip(
                texts, self.reconstruct(texts, **self.conditions_in(split, rows)), strict=True
            )
            shown["reconstructions"] = [{"sentence": a, "reconstruction": b} for a, b in pairs]
        return shown
