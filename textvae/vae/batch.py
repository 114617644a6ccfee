"""What encoders and decoders receive: a few examples x, and what the metrics count in them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A few examples, batch first.

    For text ``x`` is ``<s> w1 … wn </s>`` padded with 0, and the model predicts everything after
    ``<s>``: ``lengths`` counts those predictions.
    """

    x: Tensor  # (B, T+1) token ids, or pixels
    lengths: Tensor  # (B,) predicted symbols of each example
    units: Tensor  # (B,) what perplexity counts: words + end of sentence, whatever the tokenizer
    num_bytes: Tensor  # (B,) UTF-8 bytes of the text
    index: Tensor  # (B,) row of the example in its split
    labels: Tensor | None = None  # (B,)

    def __len__(self) -> int:
        return self.x.size(0)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self,
            **{k: v.to(device, non_blocking=True) for k, v in tensors.items() if v is not None},
        )
