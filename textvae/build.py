"""From a config to tokenizer, data and model: the one place that knows every wing."""

from __future__ import annotations

from pathlib import Path

import torch

from textvae.config import Config
from textvae.core.options import for_evaluation
from textvae.errors import UserError
from textvae.text.batching import LengthBuckets
from textvae.text.corpus import EncodedSplit, encode_corpus, read_corpus, texts
from textvae.text.model import TextVAE
from textvae.text.pretrained import check_arguments, read_tokenizer
from textvae.text.tokenizers import (
    CharTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    WordTokenizer,
)
from textvae.text.vocabulary import TOKENIZER_FILE

Splits = dict[str, EncodedSplit]


def build_data(config: Config, run: Path, fresh: bool = False) -> tuple[Tokenizer, Splits]:
    """The run's tokenizer (trained on its training split the first time) and the encoded splits.

    Args:
        fresh: a new run, where a tokenizer in the folder is the rest of a failed start.
    """
    data = config.data
    if not data.dir:
        raise UserError("no corpus: give --data.dir a folder, a file or a dataset name")
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
        tokenizer = train_tokenizer(config, texts(corpus["train"]))
        tokenizer.save(run)
    splits = encode_corpus(
        corpus,
        tokenizer,
        tokenized=data.tokenized,
        max_length=data.max_length,
        long=data.long,
        cache_dir=data.cache_dir,
    )
    return tokenizer, splits


def train_tokenizer(config: Config, lines: object) -> Tokenizer:
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
    options = vars(config.model) | {"max_length": config.data.max_length}
    check_arguments(options | {"vocab_size": config.tokenizer.vocab_size})
    check_inference(config)


def check_inference(config: Config) -> None:
    """Checks that the model has what the inference method starts from, and nothing that it leaves
    without a gradient.

    Raises:
        UserError: it has not.
    """
    method, latent, layers = (
        config.inference.method,
        config.model.latent_dim,
        config.model.encoder_layers,
    )
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
        raise UserError("--inference.method svi has no encoder: give --model.encoder_layers 0")
    if method != "svi" and latent and not layers:
        raise UserError(
            "--model.encoder_layers 0 leaves no encoder: give --inference.method svi, or layers"
        )


def build_model(config: Config, tokenizer: Tokenizer) -> TextVAE:
    """A fresh model, its weights a function of ``train.seed``."""
    torch.manual_seed(config.train.seed)
    try:
        model = TextVAE(
            vocab_size=len(tokenizer), max_length=config.data.max_length, **vars(config.model)
        )
    except ValueError as error:
        raise UserError(f"model: {error}") from error
    model.tokenizer = tokenizer
    model.inference = for_evaluation(config.inference, config.data.batch_size)
    return model


def build_buckets(
    config: Config, split: EncodedSplit, replicas: int = 1, rank: int = 0
) -> LengthBuckets:
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
