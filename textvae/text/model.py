"""A text VAE: an LSTM encoder, an LSTM decoder, a tokenizer, and everything you can do with them.

    model = TextVAE.from_pretrained("runs/yahoo")        # a folder, or a name on the hub
    model.sample(5)                                      # x ~ p(x|z), z ~ N(0, I)
    model.reconstruct(["how do i learn to swim ?"])      # argmax p(x|z) at z = E_q[z|x]
    model.interpolate("it rains .", "the sun is out .")  # on a line between two posterior means
    model.encode(texts).mean, model.decode(z)            # text -> z -> text

With ``latent_dim`` 0, it is a language model without a latent variable, and can only ``sample``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from textvae.config.experiment import ModelConfig
from textvae.config.types import NonNegativeInt, PositiveInt, VocabSize, check_values
from textvae.errors import UserError
from textvae.runs.model_folder import Description
from textvae.text.data.batches import text_batch, token_ids
from textvae.text.decode.generate import generate
from textvae.text.examples import TextExamples
from textvae.text.nn.decoder import InitialState, Injection, LSTMDecoder
from textvae.text.nn.encoder import LSTMEncoder, Pooling
from textvae.text.nn.input_noise import InputNoise
from textvae.text.nn.pretrained import read_word_vectors
from textvae.text.tokenizers import MADE_FOR, PAD, Tokenizer, read_tokenizer
from textvae.vae.batch import Batch
from textvae.vae.condition_embeddings import LabelEmbedding, make_embedding
from textvae.vae.conditions import ConditionKind, Given, check_condition, codes_of
from textvae.vae.heads import HeadKind, PosteriorKind, check_head, head_maker
from textvae.vae.model import Source, check_batch_size
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.priors import PriorKind, VampPrior, check_prior

logger = logging.getLogger(__name__)

# A VampPrior's pseudo-inputs: their length, and the standard deviation of their initial values.
PSEUDO_TOKENS, PSEUDO_SCALE = 16, 0.1


class TextVAE(TextExamples, tags=["variational-autoencoder", "text-generation", "lstm"]):
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
        init_embedding: The same for the word embeddings only, overriding ``init_scale``.
        max_length: Longest sentence in training in tokens, not counting its end. Longer texts are
            cut when they are encoded, and generated sentences are no longer by default.

    Raises:
        UserError: An argument is out of range.
    """

    DECODE_OPTIONS = (
        *("temperature", "top_k", "top_p", "num_beams"),
        *("max_new_tokens", "allow_unk", "repetition_penalty", "no_repeat_ngram_size"),
        "condition",
    )
    ESSENTIAL = "vocab_size"
    tokenizer: Tokenizer | None

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
    ) -> None:
        config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_arguments(config)
        super().__init__(
            self.make_encoder(config), self.make_decoder(config), self.make_prior(config), config
        )
        self.tokenizer = None
        self._initialize(init_scale, init_embedding)

    @torch.no_grad()
    def _initialize(self, scale: float | None, embedding_scale: float | None) -> None:
        if scale is not None:
            for part in (self.encoder, self.decoder):  # a prior sets its own initial values
                for parameter in part.parameters():
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
        head = head_maker(config)
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

    def batches(self, examples: str | Sequence[str], batch_size: int) -> Iterator[Batch]:
        """Split texts into batches of similar length."""
        texts = [examples] if isinstance(examples, str) else list(examples)
        if not texts:
            yield text_batch([np.zeros(0, np.int64)], [-1])
        ids = token_ids(texts, self._needs_tokenizer(), self.config["max_length"])
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))  # little padding
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            yield text_batch([ids[row] for row in rows], rows)

    def _needs_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError("the model has no tokenizer: set model.tokenizer first")
        return self.tokenizer

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
        logger.info("%s: vectors of %d of %d tokens", path, len(rows), len(words))

    def decode(
        self,
        z: Tensor,
        *,
        condition: Given | None = None,
        batch_size: int = 64,
        seed: int = 0,
        first_row: int = 0,
        **options: Any,
    ) -> list[str]:
        """Generate a sentence for every z (N, Z); greedy by default.

        Args:
            z: Latent vectors (N, Z).
            condition: As in ``encode``; None: drawn as often as it occurs in training.
            batch_size: Sentences per batch; does not change the results.
            seed: Seed of sampled words; sentence i depends only on the seed, z, and i.
            first_row: Number of the first sentence.
            options: Options of ``textvae.text.decode.generate.generate``: max_new_tokens,
                do_sample, temperature, top_k, top_p, num_beams, length_penalty, allow_unk,
                repetition_penalty, no_repeat_ngram_size.

        Raises:
            UserError: z has the wrong shape, an option is out of range, or there is no tokenizer.
        """
        tokenizer = self._needs_tokenizer()
        check_batch_size(batch_size)
        z = self.check_z(z)
        noise = RowNoise(seed, Purpose.CONDITION, range(first_row, first_row + len(z)))
        codes = codes_of(self.condition, condition, len(z), noise)
        if codes is not None:
            z = self.decoder.with_condition(z, codes)
        if options.get("max_new_tokens") is None:
            options["max_new_tokens"] = self.config["max_length"] + 1  # and the end of sentence
        texts: list[str] = []
        for start, rows in zip(range(0, len(z), batch_size), z.split(batch_size), strict=False):
            ids = generate(self.decoder, rows, seed=seed, first_row=first_row + start, **options)
            texts += [tokenizer.decode(sentence) for sentence in ids.tolist()]
        return texts

    def sample(  # type: ignore[override]  # its options by name
        self,
        n: int = 10,
        *,
        source: Source = "prior",
        z: Tensor | None = None,
        condition: Given | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        num_beams: int = 1,
        do_sample: bool = True,
        seed: int = 0,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
        allow_unk: bool = False,
        repetition_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
        first_row: int = 0,
    ) -> list[str]:
        """Sample sentences: z ~ ``source``, then x ~ p(x|z), word by word.

        Args:
            n: Number of sentences, if ``z`` is not given.
            source: What z is drawn from: the ``prior``, or the sampler fitted to the ``aggregate``
                posterior (``textvae.fit_sampler``).
            z: Latent vectors (N, Z) to decode instead of draws from the source.
            condition: As in ``decode``.
            temperature: Divides the logits; below 1 for more likely words.
            top_k: Sample from the k most likely words; 0 for all.
            top_p: Sample from the most likely words whose probabilities add up to p; 1 for all.
            num_beams: Above 1, search for the most likely sentence for each z instead of sampling.
            do_sample: Sample words; False takes the most likely word at every step.
            seed: Seed of z and of the words; sentence i depends only on the seed and on i.
            max_new_tokens: Maximum length in tokens; as in training by default.
            batch_size: Sentences per batch; does not change the results.
            allow_unk: Whether ``<unk>`` may be generated.
            repetition_penalty: Makes words that the sentence has already used less likely.
            no_repeat_ngram_size: No sequence of this many tokens occurs twice in a sentence.
            first_row: Number of the first sentence, to draw a large sample in parts.

        Raises:
            UserError: An option is out of range, or there is no tokenizer.
        """
        if n < 0:
            raise UserError(f"n={n}: must be at least 0")
        z = self.draw_z(n, seed, source, first_row) if z is None else z
        return self.decode(
            z,
            condition=condition,
            batch_size=batch_size,
            seed=seed,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            num_beams=num_beams,
            do_sample=do_sample and num_beams == 1,
            max_new_tokens=max_new_tokens,
            allow_unk=allow_unk,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            first_row=first_row,
        )

    def describe(self) -> Description:
        """Return the description of this model for its model card."""
        kind = "An LSTM language model, the baseline without a latent variable."
        uses = ["model.sample(5)"]
        if self.latent_dim:
            kind = (
                f"A text variational autoencoder with {self.latent_dim} latent dimensions and an "
                f"LSTM decoder (injection `{self.config['injection']}`)."
            )
            uses += ['model.reconstruct(["a sentence"])', 'model.encode(["a sentence"])']
        return Description("textvae model", kind, "TextVAE", uses)

    def _metadata(self) -> dict[str, str]:
        own = {} if self.tokenizer is None else {MADE_FOR: self.tokenizer.fingerprint()}
        return super()._metadata() | own

    def _save_more(self, folder: Path) -> None:
        if self.tokenizer is not None:
            self.tokenizer.save(folder)

    def _load_more(self, folder: Path) -> None:
        if self.config["tie_embeddings"]:
            self.decoder.output.weight = self.decoder.embedding.weight
        self.tokenizer = read_tokenizer(folder, self.config["vocab_size"])


def _embedded(inputs: Tensor) -> Batch:
    """Return a batch of word embeddings (C, T, E), which the encoder reads as they are."""
    return Batch(inputs, lengths=torch.full(inputs.shape[:1], inputs.size(1), device=inputs.device))


ARGUMENTS = get_type_hints(ModelConfig)
ARGUMENTS |= {"vocab_size": VocabSize, "max_length": PositiveInt, "num_labels": NonNegativeInt}


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
    if noise != "none" and not (arguments["latent_dim"] and arguments["encoder_layers"]):
        raise UserError(f"model: encoder_noise {noise} needs an encoder, but this model has none")
