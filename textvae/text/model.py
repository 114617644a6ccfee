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
from typing import Any, Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from textvae.core.gaussian import DiagGaussian
from textvae.core.options import Inference, with_steps
from textvae.core.vae import VAE
from textvae.errors import UserError
from textvae.text import pretrained
from textvae.text.generate import generate
from textvae.text.lstm import InitialState, Injection, LSTMDecoder, LSTMEncoder
from textvae.text.posterior import posterior, token_ids
from textvae.text.pretrained import check_arguments, save_weights
from textvae.text.prior import between, normal_rows
from textvae.text.tokenizers import Tokenizer

__all__ = ["TextVAE", "save_weights"]


class TextVAE(
    VAE,
    PyTorchModelHubMixin,
    library_name="textvae",
    tags=["variational-autoencoder", "text-generation", "lstm"],
    license="mit",
):
    """p(z) = N(0, I), an LSTM decoder p(x|z), an LSTM encoder q(z|x).

    Args:
        vocab_size: number of ids, the four specials counted.
        latent_dim: size of z; 0 for a language model.
        encoder_layers: 0 for a model whose posteriors are found by gradient steps alone (SVI).
        injection: how z enters the decoder, see ``textvae.text.lstm``.
        init_scale: every parameter from U(-s, s); None for torch's own initial weights.
        init_embedding: the same for the embeddings alone, where it is given.
        max_length: longest sentence in training in tokens, end not counted: the bound for
            generation where no other is given; longer texts are cut when they are encoded.

    Raises:
        UserError: an argument out of range.
    """

    tokenizer: Tokenizer | None
    inference: Inference  # how q(z|x) is found; its steps depend on nothing but the sentence

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
        super().__init__(encoder, decoder, latent_dim)
        self.config: dict[str, Any] = config
        self.tokenizer, self.inference = None, pretrained.DEFAULT_INFERENCE
        self.metrics: dict[str, Any] = {}  # for the model card
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
        _check_batch_size(batch_size)
        texts = [texts] if isinstance(texts, str) else texts
        ids = token_ids(texts, self._needs_tokenizer(), self.config["max_length"])
        return posterior(self, ids, self.inference_with(refine_steps), seed, batch_size)

    def inference_with(self, refine_steps: int | None) -> Inference:
        """The model's inference with another number of refinement steps.

        Raises:
            UserError: fewer than possible.
        """
        try:
            return with_steps(self.inference, refine_steps, self.encoder is not None)
        except ValueError as error:
            raise UserError(f"refine_steps={refine_steps}: {error}") from error

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
            options: of ``textvae.text.generate.generate``: max_new_tokens, do_sample,
                temperature, top_k, top_p, num_beams, length_penalty, allow_unk.

        Raises:
            UserError: z has another shape, an option is out of range, or there is no tokenizer.
        """
        tokenizer = self._needs_tokenizer()
        _check_batch_size(batch_size)
        z = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        if z.dim() != 2 or z.size(1) != self.latent_dim:
            raise UserError(
                f"z must be (N, {self.latent_dim}) for this model, not {tuple(z.shape)}"
            )
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

    def reconstruct(
        self,
        texts: Sequence[str],
        *,
        use: Literal["mean", "sample"] = "mean",
        refine_steps: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
        **options: Any,
    ) -> list[str]:
        """Each text through z and back: from the mean of q(z|x), or from a draw of it.

        ``refine_steps`` as in ``encode``; other options as in ``decode``, greedy by default.
        """
        if use not in ("mean", "sample"):
            raise UserError(f"use={use!r}: mean or sample")
        q = self.encode(texts, refine_steps=refine_steps, seed=seed, batch_size=batch_size)
        z = q.mean
        if use == "sample":
            noise = normal_rows(len(z), self.latent_dim, seed).to(z.device)
            z = z + torch.exp(0.5 * q.logvar) * noise
        return self.decode(z, batch_size=batch_size, seed=seed, **options)

    def interpolate(
        self,
        a: str,
        b: str,
        steps: int = 7,
        kind: Literal["linear", "spherical"] = "linear",
        *,
        refine_steps: int | None = None,
        **options: Any,
    ) -> list[str]:
        """Sentences from ``a`` to ``b``: along the line, or the arc, between their means.

        Args:
            steps: how many sentences, the two ends counted.
            refine_steps: as in ``encode``.
            options: as in ``decode``.
        """
        if steps < 2:
            raise UserError(f"steps={steps}: an interpolation has at least its 2 ends")
        start, end = self.encode([a, b], refine_steps=refine_steps).mean
        return self.decode(between(start, end, steps, kind), **options)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **hub_options: Any,
    ) -> str | None:
        """Writes the model folder, and sends it to the hub if asked; returns the commit's URL.

        Raises:
            UserError: the folder cannot be written; what was there before is intact.
        """
        folder = Path(save_directory)
        self._save_pretrained(folder)
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, **hub_options)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(self, save_directory / pretrained.WEIGHTS, self.tokenizer)
        if self.tokenizer is not None:
            self.tokenizer.save(save_directory)
        pretrained.write_config(save_directory, self.config)
        pretrained.write_inference(save_directory, self.inference)
        header = f"---\n{self._hub_mixin_info.model_card_data.to_yaml()}\n---"
        pretrained.write_card(save_directory, header, self.config, self.metrics)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        map_location: str | torch.device = "cpu",
        **hub_options: Any,
    ) -> TextVAE:
        """A model, ready for use, out of its folder or from the hub.

        Args:
            map_location: the device to load it to.
            hub_options: revision, token, cache_dir, force_download, local_files_only.

        Raises:
            UserError: the folder is missing or broken, or the hub cannot be reached.
        """
        # The mixin would pass on JSON errors of config.json as they are: the folder is read here.
        folder = pretrained.fetch(str(pretrained_model_name_or_path), **hub_options)
        return cls._from_pretrained(model_id=str(folder), map_location=map_location)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str | torch.device = "cpu", **_: Any
    ) -> TextVAE:
        folder = Path(model_id)
        known = set(cls._hub_mixin_init_parameters) - {"self"}
        config = pretrained.read_config(folder, known)
        with torch.device("meta"):  # no memory, no random numbers: the weights are about to come
            model = cls(**config)
        pretrained.load_weights(model, folder / pretrained.WEIGHTS, map_location)
        if config.get("tie_embeddings"):
            model.decoder.output.weight = model.decoder.embedding.weight
        model.tokenizer = pretrained.read_tokenizer(folder, model.config["vocab_size"])
        model.inference = pretrained.read_inference(folder)
        model.metrics = pretrained.read_metrics(folder)
        return model.eval()


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: must be at least 1")
