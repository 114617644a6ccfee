"""A text VAE and everything one can do with it: the LSTM encoder, the LSTM decoder, a tokenizer.

    model = TextVAE.from_pretrained("runs/yahoo")        # a folder, or a name on the hub
    model.sample(5)                                      # x ~ p(x|z), z ~ N(0, I)
    model.reconstruct(["how do i learn to swim ?"])      # argmax p(x|z) at z = E_q[z|x]
    model.interpolate("it rains .", "the sun is out .")  # along the line between two posteriors
    model.encode(texts).mean, model.decode(z)            # text -> z -> text

With ``latent_dim`` 0 it is the language model without a latent variable: ``sample`` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textvae.errors import UserError
from textvae.runs.model_folder import Description
from textvae.text.checks import MADE_FOR, check_arguments, read_tokenizer
from textvae.text.decode.generate import generate
from textvae.text.nn.lstm import InitialState, Injection, LSTMDecoder, LSTMEncoder
from textvae.text.posterior import posterior, token_ids
from textvae.text.tokenizers import Tokenizer
from textvae.vae.batching import Split
from textvae.vae.model import Model, check_batch_size
from textvae.vae.noise import normal_rows
from textvae.vae.posteriors import DiagGaussian


class TextVAE(Model, tags=["variational-autoencoder", "text-generation", "lstm"]):
    """p(z) = N(0, I), an LSTM decoder p(x|z), an LSTM encoder q(z|x).

    Args:
        vocab_size: number of ids, the four specials counted.
        latent_dim: size of z; 0 for a language model.
        encoder_layers: 0 for a model whose posteriors are found by gradient steps alone (SVI).
        injection: how z enters the decoder, see ``textvae.text.nn.lstm``.
        init_scale: every parameter from U(-s, s); None for torch's own initial weights.
        init_embedding: the same for the embeddings alone, where it is given.
        max_length: longest sentence in training in tokens, end not counted: the bound for
            generation where no other is given; longer texts are cut when they are encoded.

    Raises:
        UserError: an argument out of range.
    """

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
        decoder_hidden: int = 1024,
        decoder_layers: int = 1,
        dropout_in: float = 0.5,
        dropout_out: float = 0.5,
        word_dropout: float = 0.0,
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
        encoder = None
        if latent_dim and encoder_layers:
            sizes = (embedding_dim, encoder_hidden, encoder_layers)
            encoder = LSTMEncoder(vocab_size, latent_dim, *sizes, bidirectional, head_bias)
        decoder = LSTMDecoder(
            vocab_size,
            latent_dim,
            injection,
            *(embedding_dim, decoder_hidden, decoder_layers),
            *(dropout_in, dropout_out, word_dropout),
            *(initial_state, tie_embeddings, output_bias),
        )
        super().__init__(encoder, decoder, latent_dim, config)
        self.tokenizer = None
        self._initialise(init_scale, init_embedding)

    @torch.no_grad()
    def _initialise(self, scale: float | None, embedding_scale: float | None) -> None:
        if scale is not None:
            for parameter in self.parameters():
                parameter.uniform_(-scale, scale)
        if embedding_scale is not None:
            for module in self.modules():
                if isinstance(module, nn.Embedding):
                    module.weight.uniform_(-embedding_scale, embedding_scale)

    def encode(
        self,
        texts: Sequence[str],
        *,
        refine_steps: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> DiagGaussian:
        """q(z|x) of every text: mean and logvar (N, Z), in the order given.

        Args:
            refine_steps: gradient steps on the ELBO that refine q; as in training where it is not
                given, 0 for the encoder alone.
            seed: of the noise in these steps.

        Raises:
            UserError: the model has no latent, no encoder for 0 steps, or no tokenizer.
        """
        if not self.latent_dim:
            raise UserError(
                "this model is a language model (latent_dim 0): without a latent it can sample, "
                "but not encode, reconstruct or interpolate"
            )
        check_batch_size(batch_size)
        texts = [texts] if isinstance(texts, str) else texts
        ids = token_ids(texts, self._needs_tokenizer(), self.config["max_length"])
        return posterior(self, ids, self.inference_with(refine_steps), seed, batch_size)

    def _needs_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError("the model has no tokenizer: set model.tokenizer first")
        return self.tokenizer

    def decode(
        self, z: Tensor, *, batch_size: int = 64, seed: int = 0, **options: Any
    ) -> list[str]:
        """A sentence for every z (N, Z); greedy unless the options say otherwise.

        Args:
            batch_size: sentences at once; no result depends on it.
            options: of ``textvae.text.decode.generate.generate``: max_new_tokens, do_sample,
                temperature, top_k, top_p, num_beams, length_penalty, allow_unk.

        Raises:
            UserError: z has another shape, an option is out of range, or there is no tokenizer.
        """
        tokenizer = self._needs_tokenizer()
        check_batch_size(batch_size)
        z = self.check_z(z)
        if options.get("max_new_tokens") is None:
            options["max_new_tokens"] = self.config["max_length"] + 1  # and the end of sentence
        texts: list[str] = []
        for start, rows in zip(range(0, len(z), batch_size), z.split(batch_size), strict=False):
            ids = generate(self.decoder, rows, seed=seed, first_row=start, **options)
            texts += [tokenizer.decode(sentence) for sentence in ids.tolist()]
        return texts

    def sample(
        self,
        n: int = 10,
        *,
        z: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        num_beams: int = 1,
        do_sample: bool = True,
        seed: int = 0,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
        allow_unk: bool = False,
    ) -> list[str]:
        """Sentences of the model: z ~ N(0, I), then x ~ p(x|z), word by word.

        Args:
            n: how many, where no ``z`` (N, Z) is given.
            temperature, top_k, top_p: as in transformers; ``top_k`` 0 and ``top_p`` 1 are off.
            num_beams: above 1 the likeliest sentence is searched for each z, none is drawn.
            seed: sentence i is a function of the seed and of i, whatever ``n`` or ``batch_size``.
        """
        if n < 0:
            raise UserError(f"n={n}: a number of sentences")
        z = normal_rows(n, self.latent_dim, seed) if z is None else z
        return self.decode(
            z,
            batch_size=batch_size,
            seed=seed,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            num_beams=num_beams,
            do_sample=do_sample and num_beams == 1,
            max_new_tokens=max_new_tokens,
            allow_unk=allow_unk,
        )

    def exhibits(self, split: Split, count: int) -> dict[str, list[str]]:
        """Sentences sampled, and sentences of the split with what becomes of them."""
        shown = {"samples": self.sample(count)}
        if self.latent_dim:
            texts = [split.caption(i) for i in range(min(count, len(split)))]
            pairs = zip(texts, self.reconstruct(texts), strict=True)
            shown["reconstructions"] = [f"{a} → {b}" for a, b in pairs]
        return shown

    def describe(self) -> Description:
        """What the model card says of this model."""
        kind = "An LSTM language model, the baseline without a latent variable."
        uses = ["model.sample(5)"]
        if self.latent_dim:
            kind = (
                f"A text variational autoencoder: z has {self.latent_dim} dimensions and enters "
                f"the LSTM decoder by `{self.config['injection']}`."
            )
            uses += ['model.reconstruct(["a sentence"])', 'model.encode(["a sentence"])']
        return Description("textvae model", kind, "TextVAE", uses)

    def _metadata(self) -> dict[str, str]:
        return {} if self.tokenizer is None else {MADE_FOR: self.tokenizer.fingerprint()}

    def _save_more(self, folder: Path) -> None:
        if self.tokenizer is not None:
            self.tokenizer.save(folder)

    def _load_more(self, folder: Path) -> None:
        if self.config["tie_embeddings"]:
            self.decoder.output.weight = self.decoder.embedding.weight
        self.tokenizer = read_tokenizer(folder, self.config["vocab_size"])
