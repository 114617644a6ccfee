"""Sentences in and out of a model: batches of texts for the encoder, texts from the decoder."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textvae.config.arguments import check_integers
from textvae.errors import UserError, did_you_mean
from textvae.runs.files import is_file
from textvae.text.data.batches import text_batch, token_ids
from textvae.text.data.chunks import Encoding, encode_document
from textvae.text.decode.generate import generate
from textvae.text.examples import TextExamples
from textvae.text.tokenizers import BOS, EOS, PAD
from textvae.vae.batch import Batch
from textvae.vae.conditioning import codes_of
from textvae.vae.conditions import Given
from textvae.vae.model import Source
from textvae.vae.noise import Purpose, RowNoise

logger = logging.getLogger(__name__)


class Sentences(TextExamples):
    """A model that reads and writes sentences with its tokenizer."""

    DECODE_OPTIONS = (
        *("temperature", "top_k", "top_p", "num_beams"),
        *("length_penalty", "max_new_tokens", "allow_unk"),
        *("repetition_penalty", "no_repeat_ngram_size", "condition"),
    )

    @property
    def tokenized(self) -> bool:
        """Whether the words of its texts are separated by spaces."""
        return getattr(self.tokenizer, "tokenized", self.config["tokenized"])

    def listed(self, examples: Any) -> list[Any]:
        """Return texts as a list: a single one in a list of its own."""
        if isinstance(examples, str):
            if is_file(examples):
                logger.warning("%r is read as text, although a file of this name exists", examples)
            return [examples]
        kind = type(examples).__name__
        if isinstance(examples, Path):
            raise TypeError(
                f"texts must be a list of strings, not a {kind}: pass the lines of the file, or "
                "read it with textvae.score_file or evaluate_run(data=...)"
            )
        is_table = hasattr(examples, "columns") or hasattr(examples, "column_names")
        if is_table or isinstance(examples, Mapping | set | frozenset):
            column = ": pass one column, such as table['text']" if is_table else ""
            raise TypeError(f"texts must be a list of strings, not a {kind}{column}")
        if not isinstance(examples, Iterable):
            raise TypeError(f"texts must be a list of strings, not {examples!r:.50}")
        return list(examples)

    def _texts(self, examples: Any) -> list[str]:
        texts = self.listed(examples)
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"texts must be strings, not {type(text).__name__}: {text!r:.50}")
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                raise UserError(
                    f"{text!r:.50} is not valid Unicode: it contains an unpaired surrogate"
                ) from None
        return texts

    def batches(self, examples: str | Sequence[str], batch_size: int) -> Iterator[Batch]:
        """Split texts into batches of similar length."""
        texts = self._texts(examples)
        if not texts:
            yield text_batch([np.zeros(0, np.int64)], [-1])
        ids = token_ids(texts, self._needs_tokenizer(), self.config["max_length"])
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))  # little padding
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            yield text_batch([ids[row] for row in rows], rows)

    def counted_batches(self, texts: Sequence[str], batch_size: int) -> Iterator[Batch]:
        """Like ``batches``, with the words and bytes that perplexities are measured in."""
        tokenizer = self._needs_tokenizer()
        longest = self.config["max_length"] + 1
        encoding = Encoding(tokenizer, self.tokenized, longest, "truncate", None)
        documents = [encode_document(text, encoding) for text in self._texts(texts)]
        for batch in self.batches(texts, batch_size):
            kept = [documents[row] for row in batch.index.tolist()]
            units = torch.tensor([document.units for document in kept], device="cpu")
            num_bytes = torch.tensor([document.num_bytes for document in kept], device="cpu")
            yield replace(batch, units=units, num_bytes=num_bytes)

    def decode(
        self,
        z: Tensor,
        *,
        condition: Given | None = None,
        batch_size: int = 64,
        seed: int = 0,
        first_row: int = 0,
        **options: Any,
    ) -> list[str]:
        """Generate a sentence for every z (N, Z); greedy by default.

        Args:
            z: Latent vectors (N, Z).
            condition: As in ``encode``; None: drawn as often as it occurs in training.
            batch_size: Sentences per batch; does not change the results.
            seed: Seed of sampled words; sentence i depends only on the seed, z, and i.
            first_row: Number of the first sentence.
            options: Options of ``textvae.text.decode.generate.generate``: max_new_tokens,
                do_sample, temperature, top_k, top_p, num_beams, length_penalty, allow_unk,
                repetition_penalty, no_repeat_ngram_size.

        Raises:
            UserError: z has the wrong shape, an option is out of range, or there is no tokenizer.
        """
        if not self.can_generate:
            raise UserError(
                f"{type(self.decoder).__name__} has no method stepper, which generating text needs "
                "(textvae.vae.contracts.Stepper)"
            )
        known = {"do_sample", *self.DECODE_OPTIONS}
        if unknown := sorted(options.keys() - known):
            near, choices = did_you_mean(unknown[0], known), ", ".join(sorted(known))
            raise TypeError(
                f"there is no option {unknown[0]!r}{near or f': choose from {choices}'}"
            )
        tokenizer = self._needs_tokenizer()
        check_integers(1, batch_size=batch_size)
        z = self.check_z(z)
        noise = RowNoise(seed, Purpose.CONDITION, range(first_row, first_row + len(z)))
        codes = codes_of(self.condition, condition, len(z), noise)
        if codes is not None:
            z = self.decoder.with_condition(z, codes)
        if options.get("max_new_tokens") is None:
            options["max_new_tokens"] = self.config["max_length"] + 1  # and the end of sentence
        texts: list[str] = []
        for start, rows in zip(range(0, len(z), batch_size), z.split(batch_size), strict=False):
            ids = generate(self.decoder, rows, seed=seed, first_row=first_row + start, **options)
            texts += [tokenizer.decode(sentence) for sentence in ids.tolist()]
        return texts

    def simulate(
        self, count: int, *, seed: int = 0, batch_size: int = 32
    ) -> Iterator[tuple[Batch, Tensor]]:
        """See ``Model.simulate``."""
        check_integers(0, count=count)
        check_integers(1, batch_size=batch_size)
        longest = self.config["max_length"] + 1
        z = self.check_z(self.draw_z(count, seed))
        noise = RowNoise(seed, Purpose.CONDITION, range(count))
        codes = codes_of(self.condition, None, count, noise)
        given = z if codes is None else self.decoder.with_condition(z, codes)
        options: dict[str, Any] = {"do_sample": True, "allow_all": True, "max_new_tokens": longest}
        for index in torch.arange(count).split(batch_size) if count else ():
            ids = generate(
                self.decoder, given[index], seed=seed, first_row=int(index[0]), **options
            )
            ids, lengths = ids.cpu(), (ids == EOS).int().argmax(1).cpu()
            inside = torch.arange(ids.size(1)) < lengths[:, None]
            wrong = (((ids == PAD) | (ids == BOS)) & inside).any(1)  # no text has these
            kept = (ids == EOS).any(1) & ~wrong
            rows = index[kept]
            if len(rows):
                sentences = [ids[i, : lengths[i]] for i in kept.nonzero()[:, 0].tolist()]
                batch = text_batch(sentences, rows)
                yield replace(batch, condition=None if codes is None else codes[rows]), z[rows]

    def sample(  # type: ignore[override]  # its options by name
        self,
        n: int = 10,
        *,
        source: Source = "prior",
        z: Tensor | None = None,
        condition: Given | None = None,
        num_beams: int = 1,
        do_sample: bool | None = None,
        seed: int = 0,
        batch_size: int = 64,
        first_row: int = 0,
        **options: Any,
    ) -> list[str]:
        """Sample sentences: z ~ ``source``, then x ~ p(x|z), word by word.

        Args:
            n: Number of sentences; ignored if ``z`` is given.
            source: What z is drawn from: the ``prior``, or the sampler fitted to the ``aggregate``
                posterior (``textvae.fit_sampler``).
            z: Latent vectors (N, Z) to decode instead of draws from the source.
            condition: As in ``decode``.
            num_beams: Above 1, search for the most likely sentence for each z instead of sampling.
            do_sample: Sample words; False takes the most likely word at every step. By default,
                words are sampled unless there are beams.
            seed: Seed of z and of the words; sentence i depends only on the seed and on i.
            batch_size: Sentences per batch; does not change the results.
            first_row: Number of the first sentence, to draw a large sample in parts.
            options: As in ``decode``, such as temperature, top_k, and top_p.

        Raises:
            UserError: An option is out of range, or there is no tokenizer.
        """
        check_integers(0, n=n)
        z = self.draw_z(n, seed, source, first_row) if z is None else z
        return self.decode(
            z,
            condition=condition,
            batch_size=batch_size,
            seed=seed,
            num_beams=num_beams,
            do_sample=num_beams == 1 if do_sample is None else do_sample,
            first_row=first_row,
            **options,
        )
