"""Embeddings of the condition y as vectors (B, C), and decoders that read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from textvae.errors import UserError
from textvae.vae.batch import Batch


class LabelEmbedding(nn.Embedding):
    """A learned vector for every label, at first of the same scale as z: (B,) -> (B, C)."""


class NumberEmbedding(nn.Module):
    """A number in standard units as a vector with one entry: (B,) -> (B, 1)."""

    embedding_dim = 1

    def forward(self, condition: Tensor) -> Tensor:
        """Return the numbers (B, 1)."""
        return condition[:, None]


def make_embedding(arguments: Mapping[str, Any]) -> LabelEmbedding | NumberEmbedding | None:
    """Return the module that makes y a vector, or None, as a model's arguments ask for."""
    match arguments.get("condition", "none"):
        case "label":
            return LabelEmbedding(arguments["num_labels"], arguments["condition_dim"])
        case "number":
            return NumberEmbedding()
    return None


def width_of(embedding: nn.Module | None) -> int:
    """Return C, the size of the vectors; 0 without a condition."""
    return 0 if embedding is None else int(embedding.embedding_dim)  # type: ignore[arg-type]


def vectors_of(embedding: nn.Module | None, batch: Batch) -> Tensor | None:
    """Return the vectors of y (B, C); None without a condition.

    Raises:
        UserError: The batch has no y.
    """
    if embedding is None:
        return None
    if batch.condition is None:
        raise UserError(
            "this model is conditioned on a label or number, and a batch has none: set "
            "Batch.condition"
        )
    return embedding(batch.condition)


class ConditionalDecoder(nn.Module):
    """A decoder that takes z with the vector of y beside it.

    Args:
        condition: Makes ``Batch.condition`` (B,) a vector (B, C); None: there is no y.
    """

    def __init__(self, condition: nn.Module | None = None) -> None:
        super().__init__()
        self.condition = condition

    def with_batch(self, z: Tensor, batch: Batch) -> Tensor:
        """Join the y of a batch to z (K, B, Z): (K, B, Z + C); z itself without y."""
        y = vectors_of(self.condition, batch)
        return z if y is None else torch.cat([z, y.to(z.dtype).expand(len(z), -1, -1)], dim=-1)

    def with_condition(self, z: Tensor, codes: Tensor | None) -> Tensor:
        """Join y (N,) to z (N, Z), to generate: (N, Z + C); z itself without y."""
        if self.condition is None or codes is None:
            return z
        return torch.cat([z, self.condition(codes.to(z.device)).to(z.dtype)], dim=-1)
