"""A whole experiment on one page: frozen dataclasses, written as YAML and read back.

The comment under each field is its help text on the command line. Times are in epochs unless the
name says steps; the latent's size, the injection and every cure for collapse are one option each.
Options that a kind of data does not read must keep their defaults, and are left out of its YAML.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Literal

import yaml

from textvae.config.inference import Inference


@dataclass(frozen=True)
class DataConfig:
    """Where the text, or the images, come from and how they are cut into batches."""

    dir: str = ""
    """a folder with train/valid/test files, one file, or a dataset name on the Hugging Face hub"""
    kind: Literal["text", "images"] = "text"
    """what the examples are; tells which of the other options have a meaning"""
    format: Literal[
        "auto", "lines", "label-tab-text", "jsonl", "json", "csv", "tsv", "torchtext-csv", "parquet"
    ] = "auto"
    """how a file is laid out; auto looks at its name and its first lines"""
    text_column: str | None = None
    """the column holding the text, by default "text"; several are joined by a space: title,body"""
    label_column: str | None = None
    """the column holding the label; by default "label" where there is one"""
    tokenized: bool = False
    """the words are already separated by single spaces (as in PTB); false for raw text"""
    max_length: int = 200
    """longest sentence in tokens, its end counted"""
    long: Literal["truncate", "drop"] = "truncate"
    """what happens to longer ones; either way they are counted and reported"""
    batch_size: int = 32
    """sentences in a batch"""
    max_tokens: int | None = None
    """a token budget per batch in place of batch_size"""
    equal_length: bool = False
    """only sentences of exactly one length in a batch, as the references do"""
    cache_dir: str | None = None
    """where token ids are cached; by default the user's cache folder"""


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes ids; trained on the training split, saved with the model."""

    kind: Literal["auto", "word", "unigram", "bpe", "char"] = "auto"
    """words, SentencePiece (unigram, bpe), characters; auto: words if tokenized, else unigram"""
    vocab_size: int = 20000
    """the most ids a tokenizer may have"""
    min_count: int = 1
    """words seen less often become <unk>"""


@dataclass(frozen=True)
class ModelConfig:
    """The LSTM encoder and the LSTM decoder."""

    latent_dim: int = 32
    """size of z; 0 makes a language model (no encoder)"""
    injection: Literal["none", "init", "input", "skip"] = "skip"
    """how z enters the decoder: initial state, + every input, + every layer and the softmax"""
    embedding_dim: int = 512
    """size of the word embeddings, of encoder and decoder"""
    encoder_hidden: int = 1024
    """units of an encoder layer"""
    encoder_layers: int = 1
    """layers of the encoder; 0: no encoder (inference by svi)"""
    bidirectional: bool = False
    """whether the encoder also reads backwards"""
    decoder_hidden: int = 1024
    """units of a decoder layer"""
    decoder_layers: int = 1
    """layers of the decoder"""
    dropout_in: float = 0.5
    """dropout on the decoder's word embeddings"""
    dropout_out: float = 0.5
    """dropout on the decoder's output, and between its layers"""
    word_dropout: float = 0.0
    """share of the decoder's input words replaced by <unk>: a cure for collapse"""
    initial_state: Literal["hidden", "cell"] = "hidden"
    """z fills h0 (SA-VAE, Skip-VAE) or c0 (lagging encoder)"""
    tie_embeddings: bool = False
    """the softmax layer shares the decoder's embeddings"""
    output_bias: bool = True
    """a bias in the softmax layer"""
    head_bias: bool = True
    """a bias in the encoder's last layer"""
    init_scale: float | None = 0.1
    """weights from U(-s, s): 0.1 SA-VAE and Skip-VAE, 0.01 lagging encoder; null: torch's own"""
    init_embedding: float | None = None
    """the same for the embeddings alone (lagging encoder: 0.1)"""


@dataclass(frozen=True)
class ImagesConfig:
    """The encoder and the decoder of images, in place of the LSTMs; z is the model's."""

    encoder: Literal["resnet", "mlp"] = "resnet"
    """residual blocks, each halving the picture; or fully connected layers"""
    encoder_hidden: int = 64
    """feature maps of the ResNet (64 in the paper), units of an MLP layer (512)"""
    encoder_layers: int = 3
    """blocks of the ResNet, hidden layers of the MLP (2); 0: no encoder (inference by svi)"""
    decoder: Literal["pixelcnn", "mlp"] = "pixelcnn"
    """gated PixelCNN, pixel after pixel; or fully connected layers, all pixels at once"""
    decoder_hidden: int = 32
    """feature maps of the PixelCNN (32), units of an MLP layer (512)"""
    decoder_layers: int = 9
    """gated layers of the PixelCNN, hidden layers of the MLP"""
    kernel_size: int = 3
    """width and height of the PixelCNN's kernels, before half of them is cut off; odd"""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised: minus the ELBO, with the KL weighted and partly free."""

    kl_schedule: Literal["constant", "linear", "cyclical"] = "linear"
    """how beta moves: fixed, one rise, or a rise in every cycle"""
    beta: float = 1.0
    """the KL's weight at the end of the rise"""
    kl_start: float = 0.1
    """the KL's weight at the start of the rise"""
    kl_epochs: float = 10.0
    """epochs of the rise, or of one cycle"""
    kl_ramp: float = 0.5
    """share of a cycle that rises"""
    free_bits: float = 0.0
    """nats of KL that cost nothing: a cure for collapse"""
    free_bits_per: Literal["dim", "sample", "batch"] = "dim"
    """what the threshold is compared with"""
    samples: int = 1
    """draws of z per sentence in training"""


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and its learning rate."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """the optimiser"""
    lr: float = 1.0
    """the learning rate at its highest"""
    momentum: float = 0.0
    """momentum of sgd"""
    weight_decay: float = 0.0
    """weight decay"""
    clip: float = 5.0
    """largest norm of the gradient over all parameters; 0 for none"""
    schedule: Literal["constant", "plateau", "cosine"] = "plateau"
    """plateau: cut when the validation ELBO stops rising; cosine: fall to 0 at the end"""
    warmup_steps: int = 0
    """steps over which the learning rate rises from 0"""
    lr_decay: float = 0.5
    """what plateau multiplies by"""
    patience: int = 1
    """evaluations without gain before a decay: 1 SA-VAE, 2 lagging encoder"""
    decay_from: int = 15
    """the first epoch that counts for a decay"""
    decay_every: bool = True
    """once decayed, decay at every evaluation (SA-VAE)"""
    reload_best: bool = False
    """go back to the best weights at every decay (lagging encoder)"""
    min_lr_share: float = 0.03
    """training stops when plateau has cut the learning rate below this share of lr"""
    max_decays: int | None = None
    """training stops at this many decays (lagging encoder: 5)"""


@dataclass(frozen=True)
class TrainConfig:
    """How long, how precise, how often looked at."""

    epochs: int = 30
    """epochs at most"""
    max_steps: int | None = None
    """optimiser steps at most"""
    seed: int = 0
    """initial weights, order, noise: one number fixes all"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """what products are computed in, weights and sums staying fp32; auto: bf16 where it is fast"""
    accumulate: int = 1
    """batches per optimiser step"""
    threads: int | None = None
    """CPU threads; by default torch's choice"""
    early_stopping: int | None = None
    """evaluations without gain before training stops, whatever the schedule"""
    evaluate_every: float = 1.0
    """epochs between evaluations on the validation split"""
    log_every: int = 50
    """steps between log lines"""
    save_every: int = 500
    """steps between checkpoints, beside the one at every evaluation"""
    samples: int = 4
    """sentences sampled and reconstructed for TensorBoard at every evaluation"""


@dataclass(frozen=True)
class Config:
    """One experiment."""

    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    inference: Inference = field(default_factory=Inference)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def options_read(config: Config) -> dict[str, tuple[str, ...]]:
    """The names of the options that have a meaning for this kind of data, by section."""
    names = {part.name: _names(getattr(config, part.name)) for part in fields(config)}
    if config.data.kind == "text":
        return {part: own for part, own in names.items() if part != "images"}
    for_images = {"data": ("dir", "kind", "batch_size"), "model": ("latent_dim", "injection")}
    own = tuple(name for name in names["inference"] if name != "token_share")
    del names["tokenizer"]
    return names | for_images | {"inference": own}


def _names(section: object) -> tuple[str, ...]:
    return tuple(option.name for option in fields(section))


def dump_config(config: Config) -> str:
    """The experiment as YAML that ``--config`` reads back."""
    everything = asdict(config)
    read = {
        part: {name: everything[part][name] for name in names}
        for part, names in options_read(config).items()
    }
    return yaml.safe_dump(read, sort_keys=False, allow_unicode=True)
