"""A Transformer encoder and an autoregressive Transformer decoder with a key/value cache.

The rest of the model, the loop with its checkpoints, and the evaluation are those of textvae.
After bash recipes/toy/run.sh --stop-stage 1, which makes a corpus:

    own="--own-model examples/transformer_text_model.py:TransformerVAE"
    textvae train --config recipes/toy/base.yaml --data.dir runs/toy/corpus --out runs/transformer \
      --optim.lr 0.001 --optim.warmup_steps 200 $own
    textvae evaluate runs/transformer $own
    textvae sample runs/transformer --num-beams 5 $own

In Python, pass model_class=TransformerVAE, or partial(TransformerVAE, heads=8), to textvae.train.

Of the options of the model, these parts read embedding_dim, encoder_hidden, encoder_layers,
decoder_hidden, decoder_layers, dropout_in (word and position embeddings of the decoder),
dropout_out (every residual branch of the decoder), and those of the latent variable, the head, the
posterior, the prior, and the condition.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import textvae

PAD = 0


class PositionedEmbedding(nn.Embedding):
    """Word embeddings, mapped to the hidden size, plus learned position embeddings.

    There are ``max_length + 1`` positions: ``max_length`` does not count the end of a sentence, so
    this is the most that the encoder reads (w1 ... wn </s>) and the decoder too (<s> w1 ... wn).
    """

    def __init__(self, config: dict[str, Any], hidden: int) -> None:
        super().__init__(config["vocab_size"], config["embedding_dim"])
        self.to_hidden = nn.Linear(config["embedding_dim"], hidden)
        self.positions = nn.Parameter(0.02 * torch.randn(config["max_length"] + 1, hidden))

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Return (N, T, H) for tokens (N, T), the first of which is at position ``start``."""
        end, limit = start + tokens.size(1), len(self.positions)
        if end > limit:
            raise textvae.UserError(
                f"this model has {limit} positions: generate at most {limit} tokens, or train it "
                "with a larger --data.max_length"
            )
        return self.to_hidden(super().forward(tokens)) + self.positions[start:end]


class Block(nn.Module):
    """Self-attention and a feed-forward network, each on normalized inputs (pre-norm)."""

    def __init__(self, hidden: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"{hidden} hidden units cannot be divided among {heads} heads")
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.to_query_key_value = nn.Linear(hidden, 3 * hidden)
        self.from_heads = nn.Linear(hidden, hidden)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )

    def forward(
        self, x: Tensor, mask: Tensor | None = None, past: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read x (N, T, H); return (N, T, H) and the keys and values of all tokens so far.

        Args:
            x: T tokens.
            mask: The tokens to attend to, (N, 1, 1, T); None: each token and those before it.
            past: Keys and values of S earlier tokens, (2, N, heads, S, H / heads), if T is 1.
        """
        parts = self.to_query_key_value(self.attention_norm(x)).unflatten(2, (3, self.heads, -1))
        parts = parts.permute(2, 0, 3, 1, 4)  # (3, N, heads, T, H / heads)
        query, keys_values = parts[0], parts[1:]
        if past is not None:
            keys_values = torch.cat([past, keys_values], 3)
        key, value = keys_values
        causal = mask is None and past is None  # a single new token may attend to everything
        found = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
        x = x + self.dropout(self.from_heads(found.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), keys_values


class TransformerEncoder(nn.Module):
    """q(z|x) from the mean of the states of a sentence, with the vector of its label, if any."""

    def __init__(
        self, config: dict[str, Any], heads: int, make_head: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        hidden, self.condition = config["encoder_hidden"], textvae.make_embedding(config)
        self.embedding = PositionedEmbedding(config, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads) for _ in range(config["encoder_layers"]))
        self.norm = nn.LayerNorm(hidden)
        # The options --model.head and --model.posterior decide what the head is.
        self.head = make_head(hidden + getattr(self.condition, "embedding_dim", 0))

    def forward(self, batch: textvae.Batch) -> textvae.Posterior:
        """Return q(z|x) of B sentences, which does not depend on their padding."""
        tokens = batch.x[:, 1:]  # w1 ... wn </s>, (B, T)
        is_token = tokens != PAD
        x = self.embedding(tokens)  # (B, T, H)
        for block in self.blocks:
            x, _ = block(x, is_token[:, None, None])
        x = self.norm(x).masked_fill(~is_token[..., None], 0.0)
        state = x.sum(1) / is_token.sum(1, keepdim=True)  # (B, H)
        if self.condition is not None:
            state = torch.cat([state, self.condition(batch.condition)], 1)
        return self.head(state)


class TransformerDecoder(textvae.ConditionalDecoder):
    """p(x|z) with skip connections from z, as in Skip-VAE (Dieng et al. 2019).

    A linear map of z is added to the input of every block and to the output of the last one, at
    every position. Z includes the vector of the label, if there is one.
    """

    def __init__(self, config: dict[str, Any], heads: int) -> None:
        super().__init__(textvae.make_embedding(config))
        hidden, layers = config["decoder_hidden"], config["decoder_layers"]
        width = config["latent_dim"] + getattr(self.condition, "embedding_dim", 0)
        self.embedding = PositionedEmbedding(config, hidden)
        self.dropout = nn.Dropout(config["dropout_in"])
        self.blocks = nn.ModuleList(
            Block(hidden, heads, config["dropout_out"]) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.from_z = nn.Linear(width, (layers + 1) * hidden)  # all linear maps of z at once
        self.output = nn.Linear(hidden, config["vocab_size"])

    def features(
        self, tokens: Tensor, from_z: Tensor, cache: Sequence[Tensor] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Read tokens (N, T) after those whose keys and values are in the cache of every block.

        Returns:
            The inputs of the softmax layer (N, T, H), and the new cache.
        """
        x = self.dropout(self.embedding(tokens, cache[0].size(3) if cache else 0))
        *to_blocks, to_output = from_z[:, None].chunk(len(self.blocks) + 1, 2)  # (N, 1, H) each
        longer = []
        for i, block in enumerate(self.blocks):
            x, keys_values = block(x + to_blocks[i], past=cache[i] if cache else None)
            longer.append(keys_values)
        return self.norm(x) + to_output, longer

    def log_prob(self, batch: textvae.Batch, z: Tensor, share: float = 1.0) -> Tensor:
        """Log p(x|z), (K, B), for z (K, B, Z), or an estimate from a random share of the tokens.

        Padding comes last, so that no other token attends to it, and its softmax is not computed.
        """
        from_z = self.from_z(self.with_batch(z, batch)).flatten(0, 1)  # (K*B, (layers + 1) * H)
        tokens = batch.x.repeat(len(z), 1)  # (K*B, T+1)
        features, _ = self.features(tokens[:, :-1], from_z)
        targets = tokens[:, 1:]
        scored = targets != PAD  # (K*B, T)
        if share < 1:
            scored = scored & (torch.rand(targets.shape, device=targets.device) < share)
        logits = self.output(features[scored]).float()  # (scored tokens, V)
        nll = F.cross_entropy(logits, targets[scored], reduction="none")
        log_p = nll.new_zeros(targets.shape).masked_scatter(scored, -nll)
        return log_p.sum(1).view(len(z), len(batch)) / share

    def stepper(self, z: Tensor) -> "TransformerStepper":
        """Start decoding N sentences, for z (N, Z)."""
        return TransformerStepper(self, z)


class TransformerStepper:
    """The same decoder one token at a time.

    Keys and values of the earlier tokens are kept, so that a step computes only those of the new
    token; its time is linear in the number of tokens so far, because attention reads all of them.
    """

    def __init__(self, decoder: TransformerDecoder, z: Tensor) -> None:
        self.decoder, self.from_z, self.size = decoder, decoder.from_z(z), len(z)
        self.cache: list[Tensor] = []  # (2, N, heads, tokens so far, H / heads) of every block

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token per sentence, (N,); return the logits of the next token, (N, V)."""
        features, self.cache = self.decoder.features(tokens[:, None], self.from_z, self.cache)
        return self.decoder.output(features[:, 0])

    def keep(self, rows: Tensor) -> None:
        """Continue with these sentences only: they take z and their rows of the cache along."""
        self.from_z, self.size = self.from_z[rows], len(rows)
        self.move(rows)

    def move(self, rows: Tensor) -> None:
        """Give sentence i the past of sentence rows[i], which has the same z."""
        self.cache = [keys_values[:, rows] for keys_values in self.cache]


class TransformerVAE(textvae.TextVAE):
    """A TextVAE with these parts; ``heads``, of every attention, is saved with the model."""

    def __init__(self, heads: int = 4, **options) -> None:
        self.heads = heads  # before the parts are made
        super().__init__(**options)

    def make_encoder(self, config: dict[str, Any]) -> nn.Module | None:
        if not (config["latent_dim"] and config["encoder_layers"]):
            return None  # a language model, or a model whose posteriors are found by SVI
        return TransformerEncoder(config, self.heads, partial(self.make_head, config))

    def make_decoder(self, config: dict[str, Any]) -> nn.Module:
        return TransformerDecoder(config, self.heads)

    def make_vamp_prior(self, config: dict[str, Any]) -> NoReturn:
        raise ValueError(
            "prior vamp: its learned inputs are not words, and this encoder reads words"
        )
