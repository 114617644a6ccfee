"""The autoregressive LSTM decoder p(x|z).

One option sets how z enters it (Dieng et al. 2019, section 3 and the text models):

* ``none``   z is ignored;
* ``init``   the initial state of the top layer is a linear map of z;
* ``input``  as ``init``, and z joins the word embedding at every time step: the paper's plain VAE;
* ``skip``   as ``input``, and z enters all other layers and the softmax layer at every time step.

If the model is conditioned on y (``textvae.vae.conditions``), the vector of y joins z wherever z
enters the decoder. Time is the first dimension inside the module, so that a time step is one
contiguous block.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from textvae.config.arguments import check_choice, check_integers, check_shares
from textvae.config.choices import InitialState, Injection
from textvae.errors import UserError
from textvae.text.nn.dropout import drop_words, dropout, systematic_mask
from textvae.text.nn.products import product
from textvae.text.nn.recurrence import LSTMLayer
from textvae.text.nn.softmax import token_nll
from textvae.text.nn.stepper import LSTMStepper, State
from textvae.text.tokenizers import PAD, SPECIALS
from textvae.vae.batch import Batch
from textvae.vae.condition_embeddings import ConditionalDecoder, width_of


class LSTMDecoder(ConditionalDecoder):
    """An autoregressive LSTM p(x|z) = prod_t p(x_t | x_<t, z), with skip connections from z.

    It can be used in any model: it needs token ids in which 0 is padding, 1 ``<unk>``, 2 ``<s>``
    and 3 ``</s>``, and a latent vector z for each sentence.

    Example:
        >>> decoder = textvae.SkipLSTMDecoder(vocab_size=10_000, latent_dim=32)
        >>> batch = textvae.Batch(torch.tensor([[2, 17, 4, 256, 3]]))  # <s>, 3 words, </s>
        >>> z = torch.randn(5, 1, 32)                                  # 5 samples of 1 sentence
        >>> decoder.log_prob(batch, z)                                 # (5, 1), nats per sentence

    Args:
        vocab_size: Number of token ids, including the four special tokens.
        latent_dim: Size of z; 0 for a language model.
        injection: How z enters the decoder; see the top of this module.
        embedding_dim: Size of the word embeddings.
        hidden_dim: Size of the hidden state of each layer.
        num_layers: Number of LSTM layers.
        dropout_in: Dropout on the word embeddings.
        dropout_out: Dropout on the output of every layer. z itself is never dropped.
        word_dropout: Fraction of input words replaced by ``<unk>`` in training, which forces the
            decoder to rely on z (Bowman et al. 2016).
        initial_state: ``hidden``: h0 = Linear(z), c0 = 0 (SA-VAE, Skip-VAE); ``cell``:
            c0 = Linear(z), h0 = tanh(c0) (lagging encoder).
        tie_embeddings: Whether the softmax layer shares the embedding matrix; this requires
            ``embedding_dim`` to equal ``hidden_dim``.
        output_bias: Whether the softmax layer has a bias.
        condition: Makes ``Batch.condition`` (B,) a vector (B, C), which joins z.

    Raises:
        UserError: If an argument is out of range.
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
        condition: nn.Module | None = None,
    ) -> None:
        super().__init__(condition)
        check_integers(len(SPECIALS) + 1, vocab_size=vocab_size)
        check_integers(0, latent_dim=latent_dim)
        check_integers(1, embedding_dim=embedding_dim, hidden_dim=hidden_dim, num_layers=num_layers)
        check_shares(dropout_in=dropout_in, dropout_out=dropout_out, word_dropout=word_dropout)
        check_choice(get_args(Injection), injection=injection)
        check_choice(get_args(InitialState), initial_state=initial_state)
        if tie_embeddings and embedding_dim != hidden_dim:
            raise UserError(
                f"LSTMDecoder: tie_embeddings requires embedding_dim ({embedding_dim}) to equal "
                f"hidden_dim ({hidden_dim})"
            )
        self.latent_dim, self.injection = latent_dim, injection
        self.initial_state_kind = initial_state
        self.dropout_in, self.dropout_out, self.word_dropout = dropout_in, dropout_out, word_dropout
        width = latent_dim + width_of(condition)
        first = width if injection in ("input", "skip") else 0
        every = width if injection == "skip" else 0
        fills_state = width > 0 and injection != "none"
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.layers = nn.ModuleList(
            LSTMLayer(hidden_dim if layer else embedding_dim, hidden_dim, every if layer else first)
            for layer in range(num_layers)
        )
        self.to_state = nn.Linear(width, hidden_dim) if fills_state else None
        self.output = nn.Linear(hidden_dim, vocab_size, bias=output_bias)
        self.output_latent = (
            nn.Parameter(torch.empty(vocab_size, width).uniform_(-0.1, 0.1)) if every else None
        )
        if tie_embeddings:
            self.output.weight = self.embedding.weight
        self.standard = tuple(name for name, _ in self.named_parameters())  # not of a subclass

    def log_prob(self, batch: Batch, z: Tensor, share: float = 1.0) -> Tensor:
        """Compute log p(x|z) in nats per sentence.

        Args:
            batch: B sentences.
            z: (K, B, Z).
            share: If below 1, return an unbiased estimate from this fraction of the time steps of
                each sentence, chosen at random. Only their softmax is computed, which is most of
                the work.

        Returns:
            (K, B).
        """
        samples, size, _ = z.shape
        z = self.with_batch(z, batch).reshape(samples * size, -1)
        nll = self.token_nll(batch.x.t(), z, share)  # (T, K*B)
        return -nll.sum(0).view(samples, size)

    def token_nll(self, tokens: Tensor, z: Tensor, share: float = 1.0) -> Tensor:
        """Compute -log p(x_t | x_<t, z) in nats for every token.

        Args:
            tokens: (T+1, B).
            z: (N, Z), with the vectors of y if there is a condition. N is B or a multiple of B:
                rows b, b + B, ... belong to sentence b. Anything that does not depend on z is then
                computed only once, unless dropout changes it.
            share: If below 1, only this fraction of the entries is computed, chosen at random and
                divided by ``share``; all others are 0.

        Returns:
            (T, N), with 0 for padding.
        """
        samples = len(z) // tokens.size(1)
        targets = tokens[1:].repeat(1, samples)  # (T, N)
        if share < 1:
            mask = systematic_mask(len(targets), len(z), share, targets.device)
            targets = targets * mask  # PAD is 0
        rows = torch.arange(len(z), device=z.device).expand_as(targets)
        nll = token_nll(
            self._features(tokens[:-1], z).flatten(0, 1),
            self.output.weight,
            self.output_bias(z),
            targets.flatten(),
            ignore_index=PAD,
            groups=None if self.output_latent is None else rows.flatten(),
            ahead=samples == 1,  # several draws are weighted differently: IWAE
        )
        return nll.view_as(targets) / share

    def _features(self, inputs: Tensor, z: Tensor) -> Tensor:
        """The output of the top layer (T, N, H) for input tokens (T, B) and z (N, Z)."""
        if self.training and (self.dropout_in or self.word_dropout):
            inputs = inputs.repeat(1, len(z) // inputs.size(1))  # each row has its own mask
        if self.training and self.word_dropout:
            inputs = drop_words(inputs, self.word_dropout)
        states = self.initial_state(z)
        x = dropout(self.embedding(inputs), self.dropout_in, self.training)  # (T, B, E)
        for layer, state in zip(self.layers, states, strict=True):
            x, _ = layer(x, state, z)  # (T, N, H)
            x = dropout(x, self.dropout_out, self.training)
        return x

    def initial_state(self, z: Tensor) -> list[State]:
        """The h and c of each layer before the first word, (N, H) each, for z (N, Z)."""
        zeros = z.new_zeros(len(z), self.output.in_features)
        states = [(zeros, zeros)] * len(self.layers)
        if self.to_state is not None:
            filled = self.to_state(z).to(z.dtype)
            hidden = self.initial_state_kind == "hidden"
            states[-1] = (filled, zeros) if hidden else (torch.tanh(filled), filled)
        return states

    def output_bias(self, z: Tensor) -> Tensor | None:
        """The bias of the softmax layer for z (N, Z).

        Returns:
            (V,), the same for all rows; with ``skip`` b + W_z z, (N, V).
        """
        bias, weight = self.output.bias, self.output_latent
        if weight is None:
            return bias
        with torch.autocast(z.device.type, enabled=False):
            if not torch.is_grad_enabled():  # faster, and not differentiable
                return product(z, weight, bias)
            return z @ weight.t() if bias is None else torch.addmm(bias, z, weight.t())

    def stepper(self, z: Tensor) -> LSTMStepper:
        """Start decoding one token at a time from z (N, Z), or z ``with_condition`` (N, Z + C)."""
        return LSTMStepper(
            z,
            embedding=self.embedding.weight,
            layers=[layer for layer in self.layers if isinstance(layer, LSTMLayer)],
            initial_state=self.initial_state,
            output=self.output.weight,
            output_bias=self.output_bias,
        )
