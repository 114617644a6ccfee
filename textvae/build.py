"""From a config to data and model: the one place that knows every kind of data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from textvae.config.experiment import Config
from textvae.config.inference import for_evaluation
from textvae.errors import UserError
from textvae.images.datasets import ImageSplit, read_images
from textvae.images.model import ImageVAE
from textvae.images.model import check_arguments as check_images
from textvae.runs import model_folder as pretrained
from textvae.text.data.corpus import encode_corpus, learned_tokenizer, read_corpus
from textvae.text.model import TextVAE, check_arguments
from textvae.text.quality import text_quality
from textvae.text.tokenizers import (
    CharTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    WordTokenizer,
    read_tokenizer,
)
from textvae.text.tokenizers.vocabulary import TOKENIZER_FILE
from textvae.text.tokenizers.words import split_words
from textvae.vae.batch import Split
from textvae.vae.batching import LengthBuckets
from textvae.vae.contracts import Objective
from textvae.vae.model import Model
from textvae.vae.objectives import elbo

Splits = Mapping[str, Split]


def build_data(config: Config, run: Path, fresh: bool = False) -> Splits:
    """The splits of a run's corpus, ready to be cut into batches.

    Args:
        config: The experiment.
        run: The run folder: its tokenizer is trained on the training split the first time.
        fresh: Whether the run is new, so that a tokenizer in the folder is left over from a failed
            start.

    Raises:
        UserError: There is no corpus, or something is wrong with it.
    """
    data = config.data
    if not data.dir:
        raise UserError("no corpus: set --data.dir to a folder, a file or a dataset name")
    match data.kind:
        case "text":
            return _read_text(config, run, fresh)
        case "images":
            return read_images(data.dir, seed=config.train.seed)
    raise ValueError(f"unknown kind of data {data.kind!r}")


def _read_text(config: Config, run: Path, fresh: bool) -> Splits:
    data = config.data
    corpus = read_corpus(
        data.dir,
        text_column=data.text_column,
        label_column=data.label_column,
        format=data.format,
        cache_dir=data.cache_dir,
    )
    if not fresh and (run / TOKENIZER_FILE).exists():
        tokenizer = read_tokenizer(run)
    else:
        options = vars(config.tokenizer) | {"tokenized": data.tokenized}
        learn = partial(train_tokenizer, config)
        tokenizer = learned_tokenizer(corpus["train"], learn, options, data.cache_dir)
        tokenizer.save(run)
    return encode_corpus(
        corpus,
        tokenizer,
        tokenized=data.tokenized,
        max_length=data.max_length,
        long=data.long,
        cache_dir=data.cache_dir,
    )


def train_tokenizer(config: Config, lines: Iterable[str]) -> Tokenizer:
    """Learns the vocabulary that the config asks for."""
    options = config.tokenizer
    kind = options.kind
    if kind == "auto":
        kind = "word" if config.data.tokenized else "unigram"
    match kind:
        case "word":
            return WordTokenizer.train(
                lines,
                max_size=options.vocab_size,
                min_count=options.min_count,
                tokenized=config.data.tokenized,
            )
        case "char":
            return CharTokenizer.train(
                lines, max_size=options.vocab_size, min_count=options.min_count
            )
        case "unigram" | "bpe":
            return SentencePieceTokenizer.train(
                lines, vocab_size=options.vocab_size, model_type=kind
            )
    raise ValueError(f"unknown tokenizer {kind!r}")


def check_model(config: Config) -> None:
    """Checks the model's options before the corpus is read, which may take long.

    Raises:
        UserError: one is out of range.
    """
    if config.data.kind == "images":
        check_images(_image_options(config))
    else:
        options = vars(config.model) | {"max_length": config.data.max_length}
        check_arguments(options | {"vocab_size": config.tokenizer.vocab_size})
    check_inference(config)


def _image_options(config: Config) -> dict[str, Any]:
    model = config.model
    own = {"latent_dim": model.latent_dim, "injection": model.injection}
    return own | vars(config.images)


def check_inference(config: Config) -> None:
    """Checks that the inference method and the model fit each other.

    Raises:
        UserError: There is nothing to refine, no encoder where one is needed, or one that would
            get no gradient.
    """
    section = "images" if config.data.kind == "images" else "model"
    layers, latent = getattr(config, section).encoder_layers, config.model.latent_dim
    method = config.inference.method
    if method != "amortised" and not latent:
        raise UserError(
            f"--inference.method {method} refines a latent, and --model.latent_dim is 0"
        )
    if method != "amortised" and config.inference.loss_per == "batch" and config.data.max_tokens:
        raise UserError(
            "--data.max_tokens makes batches of many sizes, and with --inference.loss_per batch a "
            "step depends on its batch: give --inference.loss_per example and a smaller "
            "--inference.lr"
        )
    if method == "svi" and layers:
        raise UserError(f"--inference.method svi has no encoder: give --{section}.encoder_layers 0")
    if method != "svi" and latent and not layers:
        raise UserError(
            f"--{section}.encoder_layers 0 leaves no encoder: give --inference.method svi, or "
            "layers"
        )


def build_model(
    config: Config, run: Path, splits: Splits, model_class: type[Any] | None = None
) -> Model:
    """A new model; its weights are a function of ``train.seed``.

    Args:
        config: The experiment.
        run: The run folder, which holds the tokenizer of a text corpus.
        splits: The corpus.
        model_class: A subclass of ``TextVAE`` or ``ImageVAE``, to use in its place.

    Raises:
        UserError: An option does not fit the data or another option.
    """
    torch.manual_seed(config.train.seed)
    try:
        match splits["train"]:
            case ImageSplit(size=size):
                model = (model_class or ImageVAE)(*size, **_image_options(config))
            case _:
                model = _text_model(config, read_tokenizer(run), model_class or TextVAE)
    except ValueError as error:
        raise UserError(f"model: {error}") from error
    model.inference = for_evaluation(config.inference, config.data.batch_size)
    return model


def _text_model(config: Config, tokenizer: Tokenizer, model_class: type[Any]) -> Any:
    length = config.data.max_length - 1  # the end of the sentence is not counted there
    model = model_class(vocab_size=len(tokenizer), max_length=length, **vars(config.model))
    model.tokenizer = tokenizer
    return model


def build_objective(config: Config) -> Objective:
    """The loss that the config asks for."""
    options = config.objective
    return partial(elbo, free_nats=options.free_bits, per=options.free_bits_per)


def load_model(name: str, **options: Any) -> Model:
    """A trained model of either kind, out of its folder or from the hub.

    Raises:
        UserError: the folder is missing or broken, or the hub cannot be reached.
    """
    folder = pretrained.fetch(name, **options)
    kind = ImageVAE if ImageVAE.ESSENTIAL in pretrained.read_config(folder) else TextVAE
    return kind.from_pretrained(folder)


def to_device(model: Model, device: str | torch.device | None = None) -> Model:
    """Moves a model to a device; None: a GPU if there is one, else the CPU.

    Raises:
        UserError: There is no such device.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        raise UserError(f"device {device}: {str(error).splitlines()[0]}") from error


def generation_metrics(
    config: Config, model: Any, split: Split, count: int, *, seed: int, **options: Any
) -> Callable[[], dict[str, Any]] | None:
    """What is measured on generated sentences; nothing for images.

    Args:
        config: The experiment.
        model: A trained model.
        split: Where the sentences to reconstruct come from.
        count: Number of sentences to reconstruct, and at most to sample.
        seed: Seed of all noise.
        options: Options of ``reconstruct``: refine_steps, batch_size.

    Returns:
        A function that generates and measures; None if there is nothing to measure.
    """
    if not count or config.data.kind != "text":
        return None
    sources = [split.caption(i) for i in range(count)] if model.latent_dim else []
    return lambda: text_quality(
        sources,
        reconstruct=lambda texts: model.reconstruct(texts, **options),
        sample=lambda n: model.sample(n, seed=seed, batch_size=options["batch_size"]),
        split=lambda text: split_words(text, config.data.tokenized),
        max_texts=count,
        samples=min(count, 200),
    )


def build_buckets(config: Config, split: Split, replicas: int = 1, rank: int = 0) -> LengthBuckets:
    """The batches of a split; a token budget takes the place of the batch size."""
    data = config.data
    return LengthBuckets(
        split.lengths,
        batch_size=None if data.max_tokens else data.batch_size,
        max_tokens=data.max_tokens,
        equal_length=data.equal_length,
        seed=config.train.seed,
        num_replicas=replicas,
        rank=rank,
    )
