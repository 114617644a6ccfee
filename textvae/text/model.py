"""A text VAE: an LSTM encoder, an LSTM decoder, a tokenizer, and everything you can do with them.

    model = TextVAE.from_pretrained("runs/yahoo")        # a folder, or a name on the Hub
    model.sample(5)                                      # x ~ p(x|z), z ~ p(z)
    model.reconstruct(["how do i learn to swim ?"])      # greedily, from the mean of q(z|x)
    model.interpolate("it rains .", "the sun is out .")  # on a line between two posterior means
    model.encode(texts).mean, model.decode(z)            # text -> z -> text

With ``latent_dim`` 0, it is a language model without a latent variable, and can only ``sample``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from textvae.config.choices import (
    ConditionKind,
    HeadKind,
    InitialState,
    Injection,
    InputNoise,
    Pooling,
    PosteriorKind,
    PriorKind,
)
from textvae.config.experiment import ModelConfig
from textvae.config.types import NonNegativeInt, PositiveInt, VocabSize, check_values
from textvae.errors import UserError, quantity
from textvae.runs.model_folder import WEIGHTS, Description, public_module
from textvae.runs.weights import read_metadata
from textvae.text.nn.bag_of_words import BagOfWords
from textvae.text.nn.decoder import LSTMDecoder
from textvae.text.nn.encoder import LSTMEncoder
from textvae.text.nn.pretrained import read_word_vectors
from textvae.text.sentences import Sentences
from textvae.text.tokenizers import MADE_FOR, NONE, PAD, check_size, read_tokenizer
from textvae.vae.batch import Batch
from textvae.vae.condition_embeddings import LabelEmbedding, make_embedding
from textvae.vae.conditioning import check_condition
from textvae.vae.heads import check_head
from textvae.vae.priors import VampPrior, check_prior

logger = logging.getLogger(__name__)

# A VampPrior's pseudo-inputs: their length, and the standard deviation of their initial values.
PSEUDO_TOKENS, PSEUDO_SCALE = 16, 0.1


class TextVAE(Sentences, tags=["variational-autoencoder", "text-generation", "lstm"]):
    """A VAE of text with an LSTM encoder q(z|x), an LSTM decoder p(x|z) and a tokenizer.

    Override ``make_encoder``, ``make_decoder`` or ``make_prior`` in a subclass to use parts of
    your own.

    Args:
        vocab_size: Number of token ids, including the four special tokens.
        latent_dim: Size of z; 0 for a language model.
        injection: How z enters the decoder; see ``textvae.text.nn.decoder``.
        embedding_dim: Size of the word embeddings of both LSTMs.
        encoder_hidden: Hidden units of an encoder layer.
        encoder_layers: Layers of the encoder; 0 for a model without an encoder, whose posteriors
            are found only by gradient steps (SVI).
        bidirectional: Whether the encoder reads in both directions.
        pooling: What the encoder makes of its states: the ``last`` one, or their ``mean`` or
            ``max`` over the sentence.
        head: How the encoder makes the means of q(z|x): ``linear``, or normalized over the batch
            (``batch_norm``, ``du``, ``scale``); see ``textvae.vae.heads``.
        head_scale: Scale of the normalized means; None for the published value.
        posterior: Family of q(z|x): ``gaussian``, or ``vmf`` for von Mises-Fisher on the unit
            sphere, whose prior is uniform.
        kappa: Concentration of the von Mises-Fisher posterior.
        prior: p(z): ``standard``, or learned with the model: a ``mixture`` of Gaussians, or the
            posteriors of learned inputs (``vamp``); see ``textvae.vae.priors``.
        prior_components: Components of the mixture, or learned inputs.
        condition: What the encoder and the decoder read besides x and z: ``none``, the ``label`` of
            a text, or a ``number`` that takes its place; see ``textvae.vae.conditions``.
        condition_dim: Size of the learned vector of a label.
        num_labels: Number of labels.
        decoder_hidden: Hidden units of a decoder layer.
        decoder_layers: Layers of the decoder.
        dropout_in: Dropout on the decoder's word embeddings.
        dropout_out: Dropout on the output of every decoder layer.
        word_dropout: Fraction of the decoder's input words replaced by ``<unk>`` in training.
        encoder_noise: Noise on the sentences that the encoder reads in training: ``none``,
            ``delete``, ``mask``, ``shuffle`` or ``blank``; see ``textvae.text.nn.input_noise``.
        encoder_noise_rate: Fraction of the words that it affects.
        initial_state: Whether z sets the decoder's initial ``hidden`` or ``cell`` state.
        tie_embeddings: Whether the softmax layer shares the decoder's embeddings.
        output_bias: Whether the softmax layer has a bias.
        head_bias: Whether the encoder's last layer has a bias.
        init_scale: Draw the initial weights of encoder and decoder from U(-s, s); None keeps
            torch's defaults.
        init_embedding: Like ``init_scale``, for the word embeddings only.
        max_length: Longest sentence in training in tokens, not counting its end. Longer texts are
            cut when they are encoded, and generated sentences are no longer by default.
        tokenized: Whether the words of the texts are separated by spaces; otherwise the words that
            perplexities are measured in are counted by Treebank rules. A word tokenizer knows it.
        bag_of_words: Whether the words of a text are also predicted from z alone, which
            ``textvae.WithBagOfWords`` adds to the loss.

    Raises:
        UserError: An argument is out of range.
    """

    ESSENTIAL = "vocab_size"

    def __init__(
        self,
        vocab_size: int,
        latent_dim: int = 32,
        injection: Injection = "skip",
        embedding_dim: int = 512,
        encoder_hidden: int = 1024,
        encoder_layers: int = 1,
        bidirectional: bool = False,
        pooling: Pooling = "last",
        head: HeadKind = "linear",
        head_scale: float | None = None,
        posterior: PosteriorKind = "gaussian",
        kappa: float = 13.0,
        prior: PriorKind = "standard",
        prior_components: int = 50,
        condition: ConditionKind = "none",
        condition_dim: int = 16,
        num_labels: int = 0,
        decoder_hidden: int = 1024,
        decoder_layers: int = 1,
        dropout_in: float = 0.5,
        dropout_out: float = 0.5,
        word_dropout: float = 0.0,
        encoder_noise: InputNoise = "none",
        encoder_noise_rate: float = 0.3,
        initial_state: InitialState = "hidden",
        tie_embeddings: bool = False,
        output_bias: bool = True,
        head_bias: bool = True,
        init_scale: float | None = 0.1,
        init_embedding: float | None = None,
        max_length: int = 200,
        tokenized: bool = False,
        bag_of_words: bool = False,
    ) -> None:
        config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_arguments(config)
        super().__init__(
            self.make_encoder(config), self.make_decoder(config), self.make_prior(config), config
        )
        self.tokenizer = None
        self._initialize(init_scale, init_embedding)
        # Last, so that a seed gives all other weights the same initial values without it.
        self.bag_of_words = BagOfWords(latent_dim, vocab_size) if bag_of_words else None

    def log_bag(self, batch: Batch, z: Tensor) -> Tensor | None:
        """Log-probability of a text's words in any order, (K, B), if there is a head for it."""
        return None if self.bag_of_words is None else self.bag_of_words.log_prob(batch, z)

    @torch.no_grad()
    def _initialize(self, scale: float | None, embedding_scale: float | None) -> None:
        for part in (self.encoder, self.decoder):  # other parts set their own initial values
            if scale is not None and isinstance(part, (LSTMEncoder, LSTMDecoder)):
                for name, parameter in part.named_parameters():
                    if name in part.standard:
                        parameter.uniform_(-scale, scale)
        if embedding_scale is not None:
            for module in self.modules():
                if isinstance(module, nn.Embedding):
                    module.weight.uniform_(-embedding_scale, embedding_scale)
        for module in self.modules():
            if isinstance(module, LabelEmbedding):  # it enters beside z, and has its scale
                module.reset_parameters()

    def make_encoder(self, config: dict[str, Any]) -> nn.Module | None:
        """Create the encoder from the model's arguments; override it to use a different one."""
        if not (config["latent_dim"] and config["encoder_layers"]):
            return None
        head = partial(self.make_head, config)
        return LSTMEncoder(
            config["vocab_size"],
            head,
            embedding_dim=config["embedding_dim"],
            hidden_dim=config["encoder_hidden"],
            num_layers=config["encoder_layers"],
            bidirectional=config["bidirectional"],
            pooling=config["pooling"],
            noise=config["encoder_noise"],
            noise_rate=config["encoder_noise_rate"],
            condition=make_embedding(config),
        )

    def make_decoder(self, config: dict[str, Any]) -> nn.Module:
        """Create the decoder from the model's arguments; override it to use a different one."""
        return LSTMDecoder(
            config["vocab_size"],
            config["latent_dim"],
            config["injection"],
            embedding_dim=config["embedding_dim"],
            hidden_dim=config["decoder_hidden"],
            num_layers=config["decoder_layers"],
            dropout_in=config["dropout_in"],
            dropout_out=config["dropout_out"],
            word_dropout=config["word_dropout"],
            initial_state=config["initial_state"],
            tie_embeddings=config["tie_embeddings"],
            output_bias=config["output_bias"],
            condition=make_embedding(config),
        )

    def make_vamp_prior(self, config: dict[str, Any]) -> VampPrior:
        """Create a prior whose pseudo-inputs are sequences of word embeddings."""
        shape = (config["prior_components"], PSEUDO_TOKENS, config["embedding_dim"])
        return VampPrior(config["latent_dim"], PSEUDO_SCALE * torch.randn(shape), _embedded)

    def load_embeddings(self, path: Path) -> None:
        """Start from word vectors in a file; words that it does not have keep their own.

        Raises:
            UserError: The file cannot be read or has none of the words, or the sizes differ.
        """
        tokens = self._needs_tokenizer().tokens(range(self.config["vocab_size"]))
        words = {token: row for row, token in enumerate(tokens) if row != PAD}
        found = read_word_vectors(path, words, self.config["embedding_dim"])
        rows, vectors = list(found), torch.from_numpy(np.stack(list(found.values())))
        for part in (self.encoder, self.decoder):
            if isinstance(embedding := getattr(part, "embedding", None), nn.Embedding):
                embedding.weight.data[rows] = vectors.to(embedding.weight)
        logger.info("%s: vectors for %d of %d tokens", path, len(rows), len(words))

    def describe(self) -> Description:
        """Return the description of this model for its model card."""
        kind = "An LSTM language model, the baseline without a latent variable."
        given = "" if self.condition is None else f", condition={self.condition.example}"
        uses = [f"model.sample(5{given})"]
        name = type(self).__name__
        if self.latent_dim:
            decoder = f"an LSTM decoder (injection `{self.config['injection']}`)"
            kind = (
                f"A text variational autoencoder with "
                f"{quantity(self.latent_dim, 'latent dimension')} and "
                f"{decoder if type(self) is TextVAE else f'custom parts (class `{name}`)'}."
            )
            shown = f'(["a sentence"]{given})'
            uses += [f"model.{name}{shown}" for name in ("reconstruct", "encode")]
        return Description("textvae model", kind, public_module(type(self)), name, uses)

    def _metadata(self) -> dict[str, str]:
        if self.tokenizer is None:
            return super()._metadata() | {MADE_FOR: NONE}
        check_size(self.tokenizer, self.config["vocab_size"])
        return super()._metadata() | {MADE_FOR: self.tokenizer.fingerprint()}

    def _save_more(self, folder: Path) -> None:
        if self.tokenizer is not None:
            self.tokenizer.save(folder)

    def _load_more(self, folder: Path) -> None:
        if read_metadata(folder / WEIGHTS).get(MADE_FOR) != NONE:
            self.tokenizer = read_tokenizer(folder, self.config["vocab_size"])


def _embedded(inputs: Tensor) -> Batch:
    """Return a batch of word embeddings (C, T, E), which the encoder reads as they are."""
    return Batch(inputs, lengths=torch.full(inputs.shape[:1], inputs.size(1), device=inputs.device))


ARGUMENTS = get_type_hints(ModelConfig)
ARGUMENTS |= {"vocab_size": VocabSize, "num_labels": NonNegativeInt}
ARGUMENTS |= {"max_length": PositiveInt, "tokenized": bool, "bag_of_words": bool}


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check all arguments of ``TextVAE``, from a config, a file, or Python.

    Raises:
        UserError: An argument has the wrong type or is out of range, or two are incompatible.
    """
    check_values(ARGUMENTS, arguments, "model: ")
    check_head(arguments)
    check_prior(arguments)
    check_condition(arguments)
    embedding, hidden = arguments["embedding_dim"], arguments["decoder_hidden"]
    if arguments["tie_embeddings"] and embedding != hidden:
        raise UserError(
            f"model: tie_embeddings needs embedding_dim ({embedding}) and decoder_hidden "
            f"({hidden}) to be equal"
        )
    noise = arguments["encoder_noise"]
    if arguments.get("bag_of_words") and not arguments["latent_dim"]:
        raise UserError("model: bag_of_words needs a latent variable, but latent_dim is 0")
    if noise != "none" and not (arguments["latent_dim"] and arguments["encoder_layers"]):
        raise UserError(f"model: encoder_noise {noise} needs an encoder, but there is none")
