"""The LSTM encoder q(z|x) and the autoregressive LSTM decoder p(x|z).

How the latent enters the decoder is one word (Dieng et al. 2019, section 3 and its text models):

* ``none``   z is ignored;
* ``init``   the initial state of the top layer is a linear map of z;
* ``input``  that, and z beside the word embedding at every time step: the paper's plain VAE;
* ``skip``   that, and z into every further layer and into the softmax layer, at every time step.

Time runs along the first axis here, so that a time step is one contiguous block.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.text.nn.dropout import dropout
from textvae.text.nn.recurrence import lstm
from textvae.text.nn.softmax import token_nll
from textvae.text.tokenizers import BOS, EOS, PAD, UNK
from textvae.vae.batch import Batch
from textvae.vae.posteriors import DiagGaussian

Injection = Literal["none", "init", "input", "skip"]
InitialState = Literal["hidden", "cell"]


class LSTMLayer(nn.Module):
    """One LSTM layer; ``latent_dim`` > 0 adds z to its input at every time step."""

    def __init__(self, input_dim: int, hidden_dim: int, latent_dim: int = 0) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_dim, input_dim))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_dim, hidden_dim))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_dim))
        self.weight_latent = (
            nn.Parameter(torch.empty(4 * hidden_dim, latent_dim)) if latent_dim else None
        )
        for weight in self.parameters():
            nn.init.uniform_(weight, -(hidden_dim**-0.5), hidden_dim**-0.5)

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None, z: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(T, B, I) -> outputs (T, N, H) and the last (h, c), each (N, H); N is the state's rows:
        B, or a multiple of it, each B of them reading the same inputs."""
        if state is None:
            zeros = inputs.new_zeros(inputs.size(1), self.hidden_dim)
            state = (zeros, zeros)
        latent = z if self.weight_latent is not None else None
        outputs, h, c = lstm(
            inputs,
            self.weight_ih,
            self.weight_hh,
            self.bias,
            *state,
            latent=latent,
            weight_latent=self.weight_latent,
        )
        return outputs, (h, c)


def reverse_each(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverses the first ``lengths[b]`` steps of column b of x (T, B, ...); padding stays."""
    steps = torch.arange(x.size(0), device=x.device)[:, None]  # (T, 1)
    source = torch.where(steps < lengths, lengths - 1 - steps, steps)  # (T, B)
    return x.gather(0, source.view(*source.shape, *[1] * (x.dim() - 2)).expand_as(x))


class LSTMEncoder(nn.Module):
    """Reads ``w1 … wn </s>``; the last hidden state gives mean and log variance by a linear map.

    Padding never reaches a result: the state is taken at each sentence's own end, and the backward
    direction runs over sentences that were reversed within their own length.
    """

    def __init__(
        self,
        vocab_size: int,
        latent_dim: int,
        embedding_dim: int = 512,
        hidden_dim: int = 1024,
        num_layers: int = 1,
        bidirectional: bool = False,
        head_bias: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        directions = 2 if bidirectional else 1
        sizes = [embedding_dim] + [directions * hidden_dim] * (num_layers - 1)
        self.forward_layers = nn.ModuleList(LSTMLayer(size, hidden_dim) for size in sizes)
        self.backward_layers = nn.ModuleList(
            LSTMLayer(size, hidden_dim) for size in (sizes if bidirectional else [])
        )
        self.head = nn.Linear(directions * hidden_dim, 2 * latent_dim, bias=head_bias)

    def forward(self, batch: Batch) -> DiagGaussian:
        """q(z|x) for every sentence: mean and logvar (B, Z), in fp32 whatever the precision."""
        lengths = batch.lengths
        x = self.embedding(batch.x[:, 1:].t())  # (T, B, E)
        for layer, forwards in enumerate(self.forward_layers):
            x = forwards(x)[0] if not self.backward_layers else self._both(layer, x, lengths)
        last = self._last(x, lengths)
        with torch.autocast(last.device.type, enabled=False):
            mean, logvar = self.head(last.to(self.head.weight.dtype)).chunk(2, dim=-1)
        return DiagGaussian(mean, logvar)

    def _both(self, layer: int, x: Tensor, lengths: Tensor) -> Tensor:
        ahead, _ = self.forward_layers[layer](x)
        behind, _ = self.backward_layers[layer](reverse_each(x, lengths))
        return torch.cat([ahead, reverse_each(behind, lengths)], dim=-1)  # (T, B, 2H)

    def _last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The state after the whole sentence: forwards at its end, backwards at its start."""
        rows = torch.arange(x.size(1), device=x.device)
        end = x[lengths - 1, rows]  # (B, H) or (B, 2H)
        if not self.backward_layers:
            return end
        half = x.size(-1) // 2
        return torch.cat([end[:, :half], x[0, :, half:]], dim=-1)


def spread(steps: int, columns: int, share: float, device: torch.device) -> Tensor:
    """A random choice (T, N) of time steps: each with probability ``share``, and those of a column
    evenly apart (systematic sampling), so that their sum varies little."""
    edges = torch.arange(steps + 1, device=device)[:, None] * share  # (T+1, 1)
    marks = (edges + torch.rand(columns, device=device)).floor()
    return marks[1:] > marks[:-1]


class DecoderState(NamedTuple):
    """What the decoder carries from one time step to the next, for N rows."""

    layers: tuple[tuple[Tensor, Tensor], ...]  # (h, c), each (N, H), per layer
    z: Tensor  # (N, Z)

    def select(self, rows: Tensor) -> DecoderState:
        """The states of some rows, in that order (beams move this way)."""
        layers = tuple((h[rows], c[rows]) for h, c in self.layers)
        return DecoderState(layers, self.z[rows])


class LSTMDecoder(nn.Module):
    """p(x|z) = prod_t p(x_t | x_<t, z), with an LSTM of any depth.

    Args:
        dropout_in: on the word embeddings; ``dropout_out``: on the top layer's output and between
            layers. z itself is never dropped. (The references use 0.5 for both.)
        word_dropout: the share of input words replaced by ``<unk>`` in training, which forces the
            decoder to ask z (Bowman et al. 2016).
        initial_state: ``hidden``: h0 = Linear(z), c0 = 0 (SA-VAE, Skip-VAE); ``cell``:
            c0 = Linear(z), h0 = tanh(c0) (lagging encoder).
        tie_embeddings: the softmax shares the embedding matrix; needs embedding_dim == hidden_dim.
    """

    def __init__(
        self,
        vocab_size: int,
        latent_dim: int,
        injection: Injection = "skip",
        embedding_dim: int = 512,
        hidden_dim: int = 1024,
        num_layers: int = 1,
        dropout_in: float = 0.5,
        dropout_out: float = 0.5,
        word_dropout: float = 0.0,
        initial_state: InitialState = "hidden",
        tie_embeddings: bool = False,
        output_bias: bool = True,
    ) -> None:
        super().__init__()
        if tie_embeddings and embedding_dim != hidden_dim:
            raise ValueError("tie_embeddings needs embedding_dim equal to hidden_dim")
        self.latent_dim, self.injection, self.initial_state_kind = (
            latent_dim,
            injection,
            initial_state,
        )
        self.dropout_in, self.dropout_out, self.word_dropout = dropout_in, dropout_out, word_dropout
        first = latent_dim if injection in ("input", "skip") else 0
        every = latent_dim if injection == "skip" else 0
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.layers = nn.ModuleList(
            LSTMLayer(hidden_dim if layer else embedding_dim, hidden_dim, every if layer else first)
            for layer in range(num_layers)
        )
        self.to_state = nn.Linear(latent_dim, hidden_dim) if self._fills_state() else None
        self.output = nn.Linear(hidden_dim, vocab_size, bias=output_bias)
        self.output_latent = (
            nn.Parameter(torch.empty(vocab_size, latent_dim).uniform_(-0.1, 0.1)) if every else None
        )
        if tie_embeddings:
            self.output.weight = self.embedding.weight

    def _fills_state(self) -> bool:
        return self.latent_dim > 0 and self.injection != "none"

    def initial_state(self, z: Tensor) -> DecoderState:
        """The state before the first word, for z (N, Z)."""
        zeros = z.new_zeros(z.size(0), self.layers[0].hidden_dim)
        top = (zeros, zeros)
        if self.to_state is not None:
            filled = self.to_state(z).to(z.dtype)
            hidden = self.initial_state_kind == "hidden"
            top = (filled, zeros) if hidden else (torch.tanh(filled), filled)
        return DecoderState((*[(zeros, zeros)] * (len(self.layers) - 1), top), z)

    def log_prob(self, batch: Batch, z: Tensor, share: float = 1.0) -> Tensor:
        """log p(x|z) in nats per sentence, (K, B), for z (K, B, Z).

        Args:
            share: below 1, an unbiased estimate from this share of each sentence's time steps,
                drawn at random: it saves that much of the softmax, the larger part of the work.
        """
        samples, size, _ = z.shape
        nll = self.token_nll(batch.x.t(), z.reshape(samples * size, -1), share)  # (T, K*B)
        return -nll.sum(0).view(samples, size)

    def token_nll(self, tokens: Tensor, z: Tensor, share: float = 1.0) -> Tensor:
        """-log p(x_t | x_<t, z) in nats for tokens (T+1, B), z (N, Z): (T, N), 0 on padding.

        N is B or a multiple of it: several z for each sentence, rows b, b + B, ... for sentence b.
        What does not depend on z is then computed once, unless dropout makes it differ.

        With a ``share`` below 1 every entry is 0 but for that share of them, drawn at random and
        divided by it."""
        samples = len(z) // tokens.size(1)
        targets = tokens[1:].repeat(1, samples)  # (T, N)
        if share < 1:
            targets = targets * spread(*targets.shape, share, targets.device)  # PAD is 0
        inputs = tokens[:-1].repeat(1, samples) if self._drops_inputs() else tokens[:-1]
        features, _ = self.features(self._drop_words(inputs), self.initial_state(z))
        rows = torch.arange(len(z), device=z.device).expand_as(targets)
        nll = token_nll(
            features.flatten(0, 1),
            self.output.weight,
            self.output_bias(z),
            targets.flatten(),
            ignore_index=PAD,
            groups=None if self.output_latent is None else rows.flatten(),
        )
        return nll.view_as(targets) / share

    def features(self, inputs: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """What the softmax layer sees beside z, (T, N, H), for input tokens (T, B) and the state of
        N rows; and the state after the last of them."""
        x = dropout(self.embedding(inputs), self.dropout_in, self.training)  # (T, B, E)
        states = []
        for layer, before in zip(self.layers, state.layers, strict=True):
            x, after = layer(x, before, state.z)  # (T, N, H)
            x = dropout(x, self.dropout_out, self.training)
            states.append(after)
        return x, DecoderState(tuple(states), state.z)

    def output_bias(self, z: Tensor) -> Tensor | None:
        """The bias of the softmax layer: (V,), the same for all; with ``skip`` b + W_z z, a row for
        each z (N, Z): (N, V)."""
        bias, weight = self.output.bias, self.output_latent
        if weight is None:
            return bias
        with torch.autocast(z.device.type, enabled=False):
            return z @ weight.t() if bias is None else torch.addmm(bias, z, weight.t())

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """One time step: tokens (N,) -> logits (N, V) of the next word, and the new state."""
        features, state = self.features(tokens[None], state)
        logits = F.linear(features[0], self.output.weight).float()
        bias = self.output_bias(state.z)
        return (logits if bias is None else logits + bias), state

    def _drops_inputs(self) -> bool:
        return self.training and (self.dropout_in > 0 or self.word_dropout > 0)

    def _drop_words(self, inputs: Tensor) -> Tensor:
        if not (self.training and self.word_dropout):
            return inputs
        drop = torch.rand(inputs.shape, device=inputs.device) < self.word_dropout
        kept = (inputs == BOS) | (inputs == EOS) | (inputs == PAD)
        return inputs.masked_fill(drop & ~kept, UNK)

    def sample(self, z: Tensor, **options: object) -> Tensor:
        """Sentences for z (N, Z) as token ids; options: see ``textvae.text.decode.generate.generate``."""
        from textvae.text.decode.generate import generate

        return generate(self, z, **options)
