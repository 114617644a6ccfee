"""The sections of an experiment. The string below each field is its help on the command line.

The type of a field includes its range. Durations are in epochs unless the name says steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textvae.config.choices import (
    ConditionKind,
    FreeBitsPer,
    HeadKind,
    ImageDecoder,
    ImageEncoder,
    InitialState,
    Injection,
    InputNoise,
    Pooling,
    PosteriorKind,
    PriorKind,
    Schedule,
)
from textvae.config.types import (
    ClosedUnitInterval,
    Concentration,
    DecoderLayers,
    DropoutRate,
    EncoderLayers,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Seed,
    Threads,
    TwoOrMore,
    VocabSize,
)


@dataclass(frozen=True)
class DataConfig:
    """The dataset and how it is batched."""

    dir: str = ""
    """a folder with train/valid/test files, a file, - (standard input), or a dataset on the Hub"""
    train: str | None = None
    """the training file, in that folder or elsewhere; or the name of the split on the Hub"""
    valid: str | None = None
    """the validation file, or the name of the validation split on the Hub"""
    test: str | None = None
    """the test file, or the name of the test split on the Hub"""
    kind: Literal["text", "images"] = "text"
    """the kind of data; some options apply to one kind only"""
    format: Literal[
        "auto",
        "lines",
        "label-tab-text",
        "documents",
        "jsonl",
        "json",
        "csv",
        "tsv",
        "torchtext-csv",
        "parquet",
    ] = "auto"
    """file format; auto detects it from the file name and the first lines"""
    text_column: str | None = None
    """the text column, "text" by default; several are joined (title,body), a.b is nested"""
    label_column: str | None = None
    """the label column; "label" by default, if there is one"""
    labels: bool = True
    """read labels, if there are any; training uses them only with model.condition"""
    delimiter: str | None = None
    """what separates the columns of a table: a character, or tab, comma, semicolon, pipe"""
    header: bool | None = None
    """whether the first row of a table names its columns; if not, they are named 1, 2, ..."""
    tokenized: bool = False
    """words are already separated by single spaces (as in PTB); false for raw text"""
    max_length: TwoOrMore = 200
    """maximum length in tokens, including the end of the sentence"""
    long: Literal["truncate", "drop"] = "truncate"
    """what to do with longer texts; in either case, their number is reported"""
    batch_size: PositiveInt = 32
    """examples per batch"""
    max_tokens: PositiveInt | None = None
    """tokens per batch, instead of batch_size"""
    equal_length: bool = False
    """every batch holds sentences of the same length, as in the reference implementations"""
    cache_dir: str | None = None
    """where to cache token ids; the user's cache folder by default"""


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes token ids; trained on the training split and saved with the model."""

    kind: Literal["auto", "word", "unigram", "bpe", "char", "smiles"] = "auto"
    """words, SentencePiece (unigram, bpe), chars, SMILES; auto: word if tokenized, else unigram"""
    vocab_size: VocabSize = 20000
    """maximum vocabulary size of a tokenizer that is learned"""
    min_count: PositiveInt = 1
    """tokens with fewer occurrences become <unk>; not for unigram and bpe"""
    byte_fallback: bool = True
    """for char: encode characters not seen in training as UTF-8 bytes; false: as <unk>"""
    path: str | None = None
    """use the tokenizer of this run, folder, or model on the Hub (default: that of train.init)"""


@dataclass(frozen=True)
class ModelConfig:
    """The LSTM encoder and the LSTM decoder."""

    latent_dim: NonNegativeInt = 32
    """size of z; 0 for a language model (no encoder)"""
    injection: Injection = "skip"
    """init: z sets the initial state; input: also every input; skip: also all layers and softmax"""
    embedding_dim: PositiveInt = 512
    """size of the word embeddings"""
    encoder_hidden: PositiveInt = 1024
    """hidden size of the encoder"""
    encoder_layers: EncoderLayers = 1
    """number of encoder layers; 0 for no encoder (inference by svi)"""
    bidirectional: bool = False
    """use a bidirectional encoder"""
    pooling: Pooling = "last"
    """state that the encoder passes on: after the last token, or the mean or maximum over tokens"""
    head: HeadKind = "linear"
    """how the encoder's last layer makes the means: linear, or normalized over the batch"""
    head_scale: PositiveFloat | None = None
    """scale of normalized means; 0.6 for batch_norm, 0.5 for du, 1.1 for scale by default"""
    posterior: PosteriorKind = "gaussian"
    """family of q(z|x); vmf: von Mises-Fisher, with z on the unit sphere and a constant KL"""
    kappa: Concentration = 13.0
    """concentration of the von Mises-Fisher posterior"""
    prior: PriorKind = "standard"
    """p(z): N(0, I), a learned mixture of Gaussians, or posteriors of learned inputs (VampPrior)"""
    prior_components: PositiveInt = 50
    """components of the mixture, or inputs of the VampPrior"""
    condition: ConditionKind = "none"
    """what the encoder and decoder also read: an example's label, or a number in its place"""
    condition_dim: PositiveInt = 16
    """size of the learned vector of a label"""
    decoder_hidden: PositiveInt = 1024
    """hidden size of the decoder"""
    decoder_layers: DecoderLayers = 1
    """number of decoder layers"""
    dropout_in: DropoutRate = 0.5
    """dropout on the decoder's word embeddings"""
    dropout_out: DropoutRate = 0.5
    """dropout on the decoder's output and between its layers"""
    word_dropout: DropoutRate = 0.0
    """fraction of the decoder's input tokens replaced by <unk>; helps against posterior collapse"""
    encoder_noise: InputNoise = "none"
    """noise on the encoder's input in training; blank replaces neighboring tokens with one <unk>"""
    encoder_noise_rate: DropoutRate = 0.3
    """fraction of the tokens that encoder_noise deletes, replaces, or moves"""
    initial_state: InitialState = "hidden"
    """whether z sets h0, as in SA-VAE and Skip-VAE, or c0, as in He et al. 2019"""
    tie_embeddings: bool = False
    """share the weights of the softmax layer with the decoder's embeddings"""
    output_bias: bool = True
    """use a bias in the softmax layer"""
    head_bias: bool = True
    """use a bias in the encoder's last layer"""
    init_scale: PositiveFloat | None = 0.1
    """initialize weights from U(-s, s), as in SA-VAE and Skip-VAE; null: PyTorch's defaults"""
    init_embedding: PositiveFloat | None = None
    """like init_scale, for the embeddings only; null: init_scale"""


@dataclass(frozen=True)
class ImagesConfig:
    """The encoder and decoder of image models, instead of the LSTMs."""

    encoder: ImageEncoder = "resnet"
    """residual blocks that each halve the resolution, or fully connected layers"""
    encoder_hidden: PositiveInt = 64
    """ResNet channels (64 in the Skip-VAE paper), or units per MLP layer (use 512)"""
    encoder_layers: EncoderLayers = 3
    """number of ResNet blocks (3) or MLP layers (use 2); 0 for no encoder (inference by svi)"""
    decoder: ImageDecoder = "pixelcnn"
    """gated PixelCNN, one pixel after another; or fully connected layers, all pixels at once"""
    decoder_hidden: PositiveInt = 32
    """channels of the PixelCNN (32), or units per MLP layer (512)"""
    decoder_layers: DecoderLayers = 9
    """number of PixelCNN or MLP layers"""
    kernel_size: PositiveInt = 3
    """kernel size of the PixelCNN before masking; odd"""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss: minus a bound on log p(x), with a weighted KL, and what is added to it."""

    bound: Literal["elbo", "iwae"] = "elbo"
    """what is maximized: the ELBO, or the importance-weighted bound of objective.samples draws"""
    kl_schedule: Schedule = "linear"
    """schedule of the KL weight: constant, a linear or logistic warm-up, or one in every cycle"""
    beta: NonNegativeFloat = 1.0
    """KL weight after warm-up"""
    kl_start: NonNegativeFloat = 0.1
    """KL weight at the start of warm-up"""
    kl_epochs: NonNegativeFloat = 10.0
    """epochs of warm-up, or of one cycle"""
    kl_ramp: PositiveShare = 0.5
    """fraction of a cycle spent in warm-up"""
    free_bits: NonNegativeFloat = 0.0
    """nats of KL that are not penalized; helps against posterior collapse"""
    free_bits_per: FreeBitsPer = "element"
    """what free bits apply to: each example and dimension, dimensions, examples, or the batch"""
    min_kl: NonNegativeFloat = 0.0
    """minimum of the mean KL in nats, with a learned multiplier; 0 for none"""
    mmd: NonNegativeFloat = 0.0
    """weight of the MMD between draws from the posteriors and from the prior (InfoVAE, WAE)"""
    density_gap: NonNegativeFloat = 0.0
    """weight of the KL of each dimension's aggregate posterior to the prior, which closes holes"""
    bag_of_words: NonNegativeFloat = 0.0
    """weight of the loss of predicting a text's words, in any order, from z alone"""
    samples: PositiveInt = 1
    """samples of z per example in training"""


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning rate."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """the optimizer"""
    lr: PositiveFloat = 1.0
    """peak learning rate"""
    encoder_name: Literal["sgd", "adam", "adamw"] | None = None
    """sgd, adam, or adamw for the encoder alone; by default, one optimizer trains all parts"""
    encoder_lr: PositiveFloat = 0.001
    """the encoder's peak learning rate, which follows the same schedule"""
    autoencode_name: Literal["sgd", "adam", "adamw"] | None = None
    """sgd, adam, or adamw for the autoencoding phase; by default, as for the rest of the run"""
    autoencode_lr: PositiveFloat = 0.001
    """the learning rate of autoencode_name"""
    momentum: ClosedUnitInterval = 0.0
    """momentum of SGD"""
    weight_decay: NonNegativeFloat = 0.0
    """weight decay"""
    clip: NonNegativeFloat = 5.0
    """maximum gradient norm; 0 for no clipping"""
    schedule: Literal["constant", "plateau", "cosine"] = "plateau"
    """plateau: decay when the model stops improving on the validation split; cosine: decay to 0"""
    warmup_steps: NonNegativeInt = 0
    """steps of linear learning-rate warm-up"""
    lr_decay: PositiveShare = 0.5
    """learning-rate factor of the plateau schedule"""
    patience: PositiveInt = 1
    """evaluations without improvement before a decay"""
    decay_from: NonNegativeInt = 15
    """no decay before this epoch"""
    decay_every: bool = True
    """after the first decay, decay at every evaluation (SA-VAE)"""
    reload_best: bool = False
    """restore the best weights at every decay (lagging encoder)"""
    min_lr_share: ClosedUnitInterval = 0.03
    """stop when the plateau schedule has reduced the learning rate below this fraction of lr"""
    max_decays: PositiveInt | None = None
    """stop after this many decays (lagging encoder: 5)"""


@dataclass(frozen=True)
class TrainConfig:
    """Duration, precision, and how often to evaluate."""

    epochs: PositiveInt = 30
    """maximum number of epochs, not counting autoencode_epochs"""
    max_steps: PositiveInt | None = None
    """maximum number of optimizer steps"""
    seed: Seed = 0
    """random seed of initial weights, data order, and noise"""
    procedure: Literal["joint", "aggressive"] = "joint"
    """joint updates, or updates of the encoder alone before each update of the decoder"""
    aggressive_patience: PositiveInt = 1
    """stop aggressive training after this many evaluations without a rise in mutual information"""
    autoencode_epochs: NonNegativeFloat = 0.0
    """initial epochs with a KL weight of 0; all schedules start after them"""
    autoencode_decoder: Literal["reset", "keep"] = "reset"
    """whether the decoder then starts again from initial weights; the encoder is kept"""
    init: str | None = None
    """a trained model to start from, with its tokenizer: a run folder, or a name on the Hub"""
    init_parts: Literal["encoder", "decoder", "all"] = "all"
    """the parts that start with the weights of that model"""
    init_embeddings: str | None = None
    """a file of word vectors (text format of word2vec, GloVe, or fastText) to start from"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """precision of matrix products (weights and sums stay in fp32); auto: bf16 if it is fast"""
    accumulate: PositiveInt = 1
    """batches per optimizer step"""
    threads: Threads | None = None
    """CPU threads; PyTorch's choice by default"""
    early_stopping: PositiveInt | None = None
    """stop after this many evaluations without improvement, with any schedule"""
    keep: Literal["best", "last"] = "best"
    """which model the run folder keeps: the best on the validation split, or the last"""
    evaluate_every: PositiveFloat = 1.0
    """epochs between evaluations on the validation split"""
    log_every: PositiveInt = 50
    """steps between log lines"""
    save_every: PositiveInt = 500
    """steps between checkpoints, in addition to one at every evaluation"""
    samples: NonNegativeInt = 4
    """examples sampled and reconstructed for TensorBoard at every evaluation"""
