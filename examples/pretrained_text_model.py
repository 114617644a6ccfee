"""A VAE whose encoder and decoder start from a pretrained language model of Hugging Face.

As in Optimus (Li et al. 2020), z enters the decoder as a memory that every position can attend to,
and is added to the embedding of every token; as in Skip-VAE, it also enters the softmax layer. The
encoder is a second copy of the same language model, because both read the same tokens.

    pip install transformers
    own="--own-model examples/pretrained_text_model.py:PretrainedVAE"
    textvae train --config recipes/toy/base.yaml --data.dir my_texts.txt --data.tokenized false \
      --tokenizer.path gpt2 --optim.lr 0.00005 --objective.free_bits 4 --out runs/pretrained $own
    textvae evaluate runs/pretrained $own
    textvae sample runs/pretrained $own

PRETRAINED is the model to start from: a folder, or a name on the Hub. For another one, write a
subclass, and give its name as --tokenizer.path, too. Any causal language model whose tokenizer is a
file tokenizer.json will do. It is needed only to train: a saved model has its architecture and all
of its weights.

Of the options of the model, these parts read latent_dim and those of the head, the posterior, and
the prior. Everything else is that of the pretrained model.
"""

import inspect
import json
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import textvae

PAD, SPECIALS = 0, 4  # the pretrained model's token 0 has id 4 here
START, END = 2, 3
NEVER = -1e9  # the logit of what is not predicted


def their_ids(tokens: Tensor, config: Any) -> Tensor:
    """Return the pretrained model's ids; some have the same token for the start and the end."""
    end, start = config.eos_token_id, config.bos_token_id
    end = end[0] if isinstance(end, list) else end
    special = torch.where(tokens == START, end if start is None else start, end)
    return torch.where(tokens < SPECIALS, special, tokens - SPECIALS)


def read(model: nn.Module, inputs: Tensor, cache: Any = None) -> Tensor:
    """Return the states (N, T, H) of a language model for the embeddings (N, T, H) of T tokens.

    Every token attends only to those before it, so padding at the end changes no other state.
    """
    past = 0 if cache is None else cache.get_seq_length()
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and past + inputs.size(1) > limit:
        raise textvae.UserError(
            f"the pretrained model has {limit} positions: allow at most {limit - 1} tokens"
        )
    if cache is None:
        return model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    known = inspect.signature(model.forward).parameters  # transformers 4 has another name for it
    name = "cache" if "cache" in known else "past_key_values"
    return model(inputs_embeds=inputs, use_cache=True, **{name: cache}).last_hidden_state


class PretrainedEncoder(nn.Module):
    """q(z|x) from the state of the end of a text, which has read all of it."""

    def __init__(self, language_model: nn.Module, make_head: Any) -> None:
        super().__init__()
        self.model = language_model.base_model
        self.head = make_head(self.model.config.hidden_size)

    def forward(self, batch: textvae.Batch) -> textvae.Posterior:
        """Return q(z|x) of B texts, which does not depend on their padding."""
        tokens = batch.x[:, 1:]  # w1 ... wn </s>, (B, T)
        embedding = self.model.get_input_embeddings()
        states = read(self.model, embedding(their_ids(tokens, self.model.config)))
        last = (tokens != PAD).sum(1) - 1  # (B,)
        return self.head(states[torch.arange(len(tokens), device=tokens.device), last])


class PretrainedDecoder(nn.Module):
    """p(x|z): the language model with z as a memory, in every embedding, and in the softmax."""

    def __init__(self, language_model: nn.Module, vocab_size: int, latent_dim: int) -> None:
        super().__init__()
        self.language_model, self.vocab_size = language_model, vocab_size
        known = language_model.get_output_embeddings().weight.size(0)
        if not 0.9 * known <= vocab_size - SPECIALS <= known:  # some models have a few more rows
            raise ValueError(
                f"the tokenizer has {vocab_size - SPECIALS} tokens, but the pretrained model has "
                f"{known}: give its own one with --tokenizer.path"
            )
        self.from_z = nn.Linear(latent_dim, 3 * self.model.config.hidden_size)
        nn.init.normal_(self.from_z.weight, std=0.02)  # little at first, next to what is trained
        nn.init.zeros_(self.from_z.bias)

    @property
    def model(self) -> nn.Module:
        """The language model without its softmax layer."""
        return self.language_model.base_model

    def features(self, tokens: Tensor, from_z: Tensor, cache: Any = None) -> Tensor:
        """Return the inputs of the softmax layer (N, T, H) for tokens (N, T) after those so far."""
        memory, to_inputs, to_output = from_z[:, None].chunk(3, 2)  # (N, 1, H) each
        embedding = self.model.get_input_embeddings()
        inputs = embedding(their_ids(tokens, self.model.config)) + to_inputs
        if cache is None or not cache.get_seq_length():
            inputs = torch.cat([memory, inputs], 1)
        return read(self.model, inputs, cache)[:, -tokens.size(1) :] + to_output

    def logits(self, features: Tensor) -> Tensor:
        """Return logits (..., V) of our tokens: their end of a text is ours, and is listed once."""
        output = self.language_model.get_output_embeddings()
        theirs = output(features).float()[..., : self.vocab_size - SPECIALS]
        end = their_ids(torch.tensor([END], device=theirs.device), self.model.config)
        ours = theirs.new_full((*theirs.shape[:-1], SPECIALS), NEVER)
        ours[..., END] = theirs[..., end[0]]
        return torch.cat([ours, theirs.index_fill(-1, end, NEVER)], -1)

    def log_prob(self, batch: textvae.Batch, z: Tensor, share: float = 1.0) -> Tensor:
        """Log p(x|z), (K, B), for z (K, B, Z), or an estimate from a random share of the tokens."""
        tokens = batch.x.repeat(len(z), 1)  # (K*B, T+1)
        features = self.features(tokens[:, :-1], self.from_z(z).flatten(0, 1))
        targets = tokens[:, 1:]
        scored = targets != PAD  # (K*B, T)
        if share < 1:
            scored = scored & (torch.rand(targets.shape, device=targets.device) < share)
        nll = F.cross_entropy(self.logits(features[scored]), targets[scored], reduction="none")
        log_p = nll.new_zeros(targets.shape).masked_scatter(scored, -nll)
        return log_p.sum(1).view(len(z), len(batch)) / share

    def stepper(self, z: Tensor) -> "PretrainedStepper":
        """Start decoding N texts, for z (N, Z)."""
        return PretrainedStepper(self, z)


class PretrainedStepper:
    """The same decoder one token at a time, with the keys and values of the earlier tokens."""

    def __init__(self, decoder: PretrainedDecoder, z: Tensor) -> None:
        from transformers import DynamicCache

        self.decoder, self.from_z, self.size = decoder, decoder.from_z(z), len(z)
        self.cache = DynamicCache()

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token per text, (N,); return the logits of the next token, (N, V)."""
        features = self.decoder.features(tokens[:, None], self.from_z, self.cache)
        return self.decoder.logits(features[:, 0])

    def keep(self, rows: Tensor) -> None:
        """Continue with these texts only: they take z and their rows of the cache along."""
        self.from_z, self.size = self.from_z[rows], len(rows)
        self.move(rows)

    def move(self, rows: Tensor) -> None:
        """Give text i the past of text rows[i], which has the same z."""
        self.cache.batch_select_indices(rows)


class PretrainedVAE(textvae.TextVAE):
    """A TextVAE with these parts.

    Args:
        architecture: The configuration of a language model whose weights are loaded later, as a
            saved model has it; None: start from PRETRAINED, with its weights.
        options: As for ``textvae.TextVAE``.
    """

    PRETRAINED = "gpt2"

    def __init__(self, architecture: dict[str, Any] | None = None, **options) -> None:
        self.architecture = architecture
        super().__init__(**options)

    def make_encoder(self, config: dict[str, Any]) -> nn.Module | None:
        if not (config["latent_dim"] and config["encoder_layers"]):
            return None  # a language model, or a model whose posteriors are found by SVI
        if config["condition"] != "none":
            raise ValueError("this example reads no labels: set --model.condition none")
        return PretrainedEncoder(self._language_model(), partial(self.make_head, config))

    def make_decoder(self, config: dict[str, Any]) -> nn.Module:
        model = self._language_model()
        decoder = PretrainedDecoder(model, config["vocab_size"], config["latent_dim"])
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit is not None and config["max_length"] >= limit:
            raise ValueError(
                f"the pretrained model has {limit} positions: set --data.max_length {limit - 1} or "
                "less"
            )
        return decoder

    def make_vamp_prior(self, config: dict[str, Any]) -> NoReturn:
        raise ValueError(
            "prior vamp: its learned inputs are not words, and this encoder reads words"
        )

    def own_options(self) -> dict[str, Any]:
        """Return what a saved model needs besides the options of all text models."""
        model = self.decoder.language_model
        return {"architecture": json.loads(model.config.to_json_string())}

    def _language_model(self) -> nn.Module:
        """Return a new copy, with the weights of PRETRAINED unless they are loaded later."""
        from transformers import AutoConfig, AutoModelForCausalLM

        if self.architecture is not None:
            return AutoModelForCausalLM.from_config(AutoConfig.for_model(**self.architecture))
        try:
            model = AutoModelForCausalLM.from_pretrained(self.PRETRAINED, dtype=torch.float32)
        except OSError as error:
            reason = str(error).strip().partition("\n")[0]
            raise textvae.UserError(f"{self.PRETRAINED} cannot be loaded: {reason}") from None
        if model.config.eos_token_id is None:
            raise ValueError(
                f"{self.PRETRAINED} has no token for the end of a text: set eos_token_id in its "
                "config.json"
            )
        return model
