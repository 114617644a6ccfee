"""Modules that make y, what a model is conditioned on, a vector (B, C)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
            "this model is conditioned on labels, and a batch has none: set Batch.condition"
        )
    return embedding(batch.condition)
