"""Against repetition in generated sentences, with the options of transformers."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from textvae.config.arguments import check_integers, check_numbers
from textvae.errors import OptionError
from textvae.text.tokenizers import PAD

PENALTIES = (1e-3, 1e3)  # beyond these, logits are no longer finite, or all words alike


class Repetition(NamedTuple):
    """What happens to words that a sentence has already used.

    Attributes:
        penalty: Divides the positive logits of words that were used, and multiplies their negative
            ones (Keskar et al. 2019, arXiv:1909.05858, with the sign rule of transformers); 1 for
            no penalty.
        ngram: No sequence of this many words may occur twice in a sentence; 0 for no limit.
    """

    penalty: float = 1.0
    ngram: int = 0

    def check(self) -> Repetition:
        """Return this object.

        Raises:
            UserError: An option is out of range.
        """
        low, high = PENALTIES
        check_numbers(repetition_penalty=self.penalty)
        if not low <= self.penalty <= high:
            raise OptionError(
                f"must be from {low:g} to {high:g}; 1 for none", repetition_penalty=self.penalty
            )
        check_integers(0, no_repeat_ngram_size=self.ngram)  # 0: no limit
        return self

    def apply(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Change the logits of the next word, in place.

        Args:
            logits: (N, V).
            ids: The words so far (N, T), without ``<s>``; padding, whose logit must be -inf, does
                not count.
        """
        if self.penalty != 1:
            self._penalize(logits, ids)
        if self.ngram:
            self._ban(logits, ids)
        return logits

    def _penalize(self, logits: Tensor, ids: Tensor) -> None:
        scores = logits.gather(1, ids)  # -inf for padding, and stays so
        scores = scores.where(scores > 0, scores * self.penalty)
        scores = scores.where(scores <= 0, scores / self.penalty)
        logits.scatter_(1, ids, scores)

    def _ban(self, logits: Tensor, ids: Tensor) -> None:
        """Exclude words that would complete an n-gram that the sentence already has."""
        context = self.ngram - 1
        if ids.size(1) < self.ngram:
            return
        ngrams = ids.unfold(1, self.ngram, 1)  # (N, T - n + 1, n)
        last = ids[:, ids.size(1) - context :]  # (N, n - 1)
        again = (ngrams[:, :, :context] == last[:, None]).all(2)  # (N, T - n + 1)
        again &= (ngrams != PAD).all(2)
        rows, places = again.nonzero(as_tuple=True)
        logits[rows, ngrams[rows, places, context]] = -math.inf


NO_LIMIT = Repetition()
