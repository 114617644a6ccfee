"""The LSTM encoder q(z|x).

If the model is conditioned on y (``textvae.vae.conditions``), the vector of y joins the word
embedding at every time step. Time is the first dimension inside the module, so that a time step is
one contiguous block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor, nn

from textvae.config.arguments import check_choice, check_integers, check_shares
from textvae.config.choices import InputNoise, Pooling
from textvae.text.nn.input_noise import add_noise
from textvae.text.nn.recurrence import LSTMLayer
from textvae.text.tokenizers import PAD, SPECIALS
from textvae.vae.batch import Batch
from textvae.vae.condition_embeddings import vectors_of, width_of
from textvae.vae.contracts import Posterior


def reverse_each(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the first ``lengths[b]`` steps of column b of x (T, B, ...); padding stays put."""
    steps = torch.arange(x.size(0), device=x.device)[:, None]  # (T, 1)
    source = torch.where(steps < lengths, lengths - 1 - steps, steps)  # (T, B)
    return x.gather(0, source.view(*source.shape, *[1] * (x.dim() - 2)).expand_as(x))


class LSTMEncoder(nn.Module):
    """Read ``w1 … wn </s>`` and turn the hidden states into a posterior q(z|x).

    Padding does not affect the result: the states are those of each sentence only, and the backward
    direction reads sentences that were reversed within their length.

    Args:
        vocab_size: Number of token ids, including the four special tokens.
        make_head: Called with the size F of the pooled state; returns the module that maps a state
            (B, F) to a posterior, such as ``partial(vae.heads.make_head, latent_dim=32)``.
        embedding_dim: Size of the word embeddings.
        hidden_dim: Size of the hidden state of each layer and direction.
        num_layers: Number of LSTM layers.
        bidirectional: Whether to read the sentences in both directions.
        noise: Noise on the sentences in training; see ``textvae.text.nn.input_noise``.
        noise_rate: Probability that it affects a word.
        pooling: What the head gets: the state after the whole sentence (``last``), or the ``mean``
            or the ``max`` of every unit over the sentence (Long et al. 2019).
        condition: Makes ``Batch.condition`` (B,) a vector (B, C), which joins every word embedding.
    """

    def __init__(
        self,
        vocab_size: int,
        make_head: Callable[[int], nn.Module],
        embedding_dim: int = 512,
        hidden_dim: int = 1024,
        num_layers: int = 1,
        bidirectional: bool = False,
        noise: InputNoise = "none",
        noise_rate: float = 0.0,
        pooling: Pooling = "last",
        condition: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_integers(len(SPECIALS) + 1, vocab_size=vocab_size)
        check_integers(1, embedding_dim=embedding_dim, hidden_dim=hidden_dim, num_layers=num_layers)
        check_shares(noise_rate=noise_rate)
        check_choice(get_args(InputNoise), noise=noise)
        check_choice(get_args(Pooling), pooling=pooling)
        self.noise, self.noise_rate, self.pooling = noise, noise_rate, pooling
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.condition = condition
        directions = 2 if bidirectional else 1
        sizes = [embedding_dim] + [directions * hidden_dim] * (num_layers - 1)
        extra = [width_of(condition)] + [0] * (num_layers - 1)
        shapes = list(zip(sizes, extra, strict=True))
        self.forward_layers = nn.ModuleList(LSTMLayer(size, hidden_dim, y) for size, y in shapes)
        self.backward_layers = nn.ModuleList(
            LSTMLayer(size, hidden_dim, y) for size, y in (shapes if bidirectional else [])
        )
        self.head = make_head(directions * hidden_dim)
        self.standard = tuple(name for name, _ in self.named_parameters())  # not of a subclass

    def forward(self, batch: Batch) -> Posterior:
        """Compute q(z|x) for the B sentences of a batch, in fp32 regardless of the precision."""
        if batch.x.is_floating_point():  # word embeddings, such as the inputs of a VampPrior
            x, lengths = batch.x.transpose(0, 1).contiguous(), batch.lengths
        else:
            tokens = batch.x[:, 1:]
            lengths = (tokens != PAD).sum(1)  # a Batch made by hand may not have them
            if self.training:
                tokens, lengths = add_noise(tokens, lengths, self.noise, self.noise_rate)
            x = self.embedding(tokens.t())  # (T, B, E)
        y = vectors_of(self.condition, batch)  # (B, C)
        for i, layer in enumerate(self.forward_layers):
            x = self._both(i, x, lengths, y) if self.backward_layers else layer(x, z=y)[0]
        return self.head(self._pool(x, lengths))

    def _both(self, layer: int, x: Tensor, lengths: Tensor, y: Tensor | None) -> Tensor:
        ahead, _ = self.forward_layers[layer](x, z=y)
        behind, _ = self.backward_layers[layer](reverse_each(x, lengths), z=y)
        return torch.cat([ahead, reverse_each(behind, lengths)], dim=-1)  # (T, B, 2H)

    def _pool(self, x: Tensor, lengths: Tensor) -> Tensor:
        """One state (B, F) for each sentence, given the states x (T, B, F) of the top layer."""
        if self.pooling == "last":
            return self._last(x, lengths)
        padding = torch.arange(len(x), device=x.device)[:, None] >= lengths  # (T, B)
        if self.pooling == "max":
            return x.masked_fill(padding[..., None], -torch.inf).amax(0)
        total = x.masked_fill(padding[..., None], 0.0).sum(0)
        return total / lengths[:, None]

    def _last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The state after the whole sentence: forward at its end, backward at its start."""
        rows = torch.arange(x.size(1), device=x.device)
        end = x[lengths - 1, rows]  # (B, H) or (B, 2H)
        if not self.backward_layers:
            return end
        half = x.size(-1) // 2
        return torch.cat([end[:, :half], x[0, :, half:]], dim=-1)
