"""Build data, models, and objectives from a config: the one module that knows all kinds of data."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from textvae.config.combinations import check_combinations
from textvae.config.experiment import OF_ANY_MODEL, OF_TEXT_FILES, Config, DataConfig
from textvae.config.inference import for_evaluation
from textvae.errors import UserError
from textvae.images.datasets import ImageSplit, read_image_split, read_images
from textvae.images.model import ImageVAE
from textvae.images.model import check_arguments as check_images
from textvae.runs import model_folder as pretrained
from textvae.runs.run_folder import CONFIG
from textvae.runs.weights import load_some_weights
from textvae.text.data.corpus import EncodedSplit, encode_corpus, read_corpus, read_file
from textvae.text.data.layout import Usual
from textvae.text.data.source import without_guesses
from textvae.text.data.sources import check_place
from textvae.text.data.targets import read_targets
from textvae.text.data.tokenizer import corpus_tokenizer, warn_of_unknown
from textvae.text.model import TextVAE, check_arguments
from textvae.text.tokenizers import Tokenizer, check_options, chosen_kind, read_tokenizer
from textvae.text.tokenizers.vocabulary import TOKENIZER_FILE
from textvae.vae.batch import Split
from textvae.vae.batching import LengthBuckets
from textvae.vae.conditioning import add_conditions, fit_condition
from textvae.vae.conditions import Classes, Given, load_condition
from textvae.vae.contracts import Objective
from textvae.vae.model import Model
from textvae.vae.objectives import WithMinimumKL, WithMMD, elbo, iwae

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
Splits = Mapping[str, Split]


def build_data(config: Config, run: Path, fresh: bool = False) -> Splits:
    """Read the splits of a run's data; ``add_conditions`` adds what the model is conditioned on.

    Args:
        config: The experiment.
        run: The run folder; for text, a tokenizer is trained and saved there if there is none.
        fresh: Whether the run is new; a tokenizer left over from a failed start is then ignored.

    Raises:
        UserError: There is no data, or there is a problem with it.
    """
    check_data(config.data)
    match config.data.kind:
        case "text":
            return _read_text(config, run, fresh)
        case "images":
            return read_images(config.data.dir, seed=config.train.seed)
    raise ValueError(f"unknown kind of data {config.data.kind!r}")


def check_data(data: DataConfig) -> None:
    """Check that there is data, without reading it.

    Raises:
        UserError: None is named, or there is no such file or folder.
    """
    if not data.dir:
        raise UserError("no data: set --data.dir to a folder, a file, or a dataset name")
    check_place(data.dir)


def labeled_splits(config: Config) -> set[str]:
    """Return the names of the splits that have labels; the data is read, and cached.

    Raises:
        UserError: There is a problem with the data.
    """
    if config.data.kind == "images":
        images = read_images(config.data.dir, seed=config.train.seed)
        return {name for name, split in images.items() if split.labels is not None}
    corpus = _read_corpus(config)
    return {name for name, documents in corpus.items() if "label" in documents.column_names}


def _read_corpus(config: Config) -> dict[str, Dataset]:
    options = {name: getattr(config.data, name) for name in OF_TEXT_FILES}
    options["numeric"] = config.model.condition == "number"
    return read_corpus(config.data.dir, cache_dir=config.data.cache_dir, **options)


def _read_text(config: Config, run: Path, fresh: bool) -> Splits:
    data = config.data
    with nullcontext() if fresh else without_guesses():
        corpus = _read_corpus(config)
    if not fresh and (run / TOKENIZER_FILE).exists():
        tokenizer = read_tokenizer(run)
    else:
        chosen = vars(config.tokenizer) | {"tokenized": data.tokenized}
        tokenizer = corpus_tokenizer(corpus["train"], cache_dir=data.cache_dir, **chosen)
        tokenizer.save(run)
    splits = _encoded(corpus, tokenizer, data)
    if fresh and config.tokenizer.path is not None:
        warn_of_unknown(splits["train"], config.tokenizer.path)
    return splits


def read_new(
    model: Model, folder: Path, source: str, condition: Given | None = None, **reading: Any
) -> Split:
    """Read all examples of a file that is not part of a run's data, in the way the run reads it.

    Args:
        model: The model that will read them.
        folder: Its run folder, or a folder with only the model.
        source: The file, or ``-`` for standard input.
        condition: What the model is conditioned on, if it is; None: the labels in the file.
        reading: For text, options of ``textvae.text.data.corpus.read_file``. By default, they are
            those of the run, if the file is of the same kind and has the columns.

    Raises:
        UserError: The file cannot be read, or it does not fit the model.
    """
    given = {name: value for name, value in reading.items() if value is not None}
    if isinstance(model, ImageVAE):
        if given:
            raise UserError(f"{source}: {', '.join(given)} can only be chosen for text")
        size = (model.config["height"], model.config["width"])
        images = read_image_split(Path(source), size)
        add_conditions({"new": images}, model.condition, condition)
        return images
    if (folder / CONFIG).exists():
        data = Config.load(folder / CONFIG).data
    else:
        tokenized = getattr(model.tokenizer, "tokenized", False)
        data = DataConfig(tokenized=tokenized, max_length=model.config["max_length"] + 1)
    given["usual"] = training_layout(data)
    given["numeric"] = model.config["condition"] == "number"
    texts = read_file(source, cache_dir=data.cache_dir, **given)
    splits = _encoded({"new": texts}, model.tokenizer, data)
    add_conditions(splits, model.condition, condition)
    return splits["new"]


def training_layout(data: DataConfig) -> Usual:
    """Return how the files of a run are laid out, as far as its options say."""
    options = {name: getattr(data, name) for name in Usual._fields[1:]}
    return Usual(data.train or data.dir, **options)


def read_column(config: Config, splits: Splits, column: str) -> dict[str, list[str | None]]:
    """Read another column of a run's data: for every split, the value of each example.

    Raises:
        UserError: There is no such column, or the data is not text.
    """
    if config.data.kind != "text":
        raise UserError(f"column {column}: only text files have columns")
    options = {name: getattr(config.data, name) for name in ("dir", "cache_dir", *OF_TEXT_FILES)}
    texts: dict[str, Any] = dict(splits)
    return read_targets(texts, column, **options)


def _encoded(corpus: dict[str, Any], tokenizer: Any, data: DataConfig) -> dict[str, EncodedSplit]:
    return encode_corpus(
        corpus,
        tokenizer,
        tokenized=data.tokenized,
        max_length=data.max_length,
        long=data.long,
        cache_dir=data.cache_dir,
    )


def check_model(config: Config) -> None:
    """Check the model's options before the data is read, which may take a while.

    Raises:
        UserError: An option is out of range.
    """
    if config.data.kind == "images":
        check_images(_image_options(config))
    else:
        options = vars(config.model) | {"max_length": config.data.max_length}
        tokenizer = config.tokenizer
        check_arguments(options | {"vocab_size": tokenizer.vocab_size})
        if tokenizer.path is None:
            kind = chosen_kind(tokenizer.kind, config.data.tokenized)
            check_options(kind, tokenizer.min_count, tokenizer.byte_fallback)
    check_combinations(config)


def _image_options(config: Config) -> dict[str, Any]:
    model = config.model
    own = {name: getattr(model, name) for name in OF_ANY_MODEL}
    return own | vars(config.images)


def build_model(
    config: Config, run: Path, splits: Splits, model_class: type[Any] | None = None
) -> Model:
    """Build a new model, with weights determined by ``train.seed``.

    Args:
        config: The experiment.
        run: The run folder, which contains the tokenizer if the data is text.
        splits: The data.
        model_class: A subclass of ``TextVAE`` or ``ImageVAE`` to use instead.

    Raises:
        UserError: An option does not fit the data or another option.
    """
    torch.manual_seed(config.train.seed)
    train = splits["train"]
    condition = fit_condition(config.model.condition, train)
    labels = {"num_labels": len(condition.names)} if isinstance(condition, Classes) else {}
    try:
        if isinstance(train, ImageSplit):
            kind: type[Any] = model_class or ImageVAE
            model = kind(*train.size, **labels, **_image_options(config))
        else:
            model = _text_model(config, read_tokenizer(run), labels, model_class or TextVAE)
    except ValueError as error:
        raise UserError(f"model: {error}") from error
    model.condition = condition
    model.inference = for_evaluation(config.inference, config.data.batch_size)
    return model


def _text_model(
    config: Config, tokenizer: Tokenizer, labels: dict[str, int], model_class: type[Any]
) -> Any:
    length = config.data.max_length - 1  # the end of the sentence is not counted there
    model = model_class(len(tokenizer), max_length=length, **labels, **vars(config.model))
    model.tokenizer = tokenizer
    return model


def build_objective(config: Config) -> Objective:
    """Build the loss that the config asks for."""
    options = config.objective
    per_dimension = options.free_bits > 0 and options.free_bits_per in ("element", "dim")
    if per_dimension and config.model.prior != "standard":
        logger.info(
            "--objective.free_bits_per %s: the KL to a learned prior is not a sum over dimensions, "
            "so the free bits are those of all of them together",
            options.free_bits_per,
        )
    objective: Objective = iwae
    if options.bound == "elbo":
        objective = partial(elbo, free_nats=options.free_bits, per=options.free_bits_per)
    if options.mmd:
        objective = WithMMD(objective, options.mmd)
    if options.min_kl:
        objective = WithMinimumKL(objective, options.min_kl)
    return objective


def load_model(name: str, **options: Any) -> Model:
    """Load a trained model of either kind from a folder or from the hub.

    Raises:
        UserError: The folder is missing or broken, or the hub cannot be reached.
    """
    folder = pretrained.fetch(name, **options)
    kind = ImageVAE if ImageVAE.ESSENTIAL in pretrained.read_config(folder) else TextVAE
    return kind.from_pretrained(folder)


def load_parts(model: Model, folder: Path, parts: str) -> None:
    """Start a model from the weights of a trained one.

    Args:
        model: The new model.
        folder: The folder of the trained one.
        parts: ``encoder``, ``decoder``, or ``all``.

    Raises:
        UserError: The weights do not fit the new model, or they belong to another tokenizer.
    """
    ours = getattr(model, "tokenizer", None)
    theirs = read_tokenizer(folder) if (folder / TOKENIZER_FILE).exists() else None
    if ours and theirs and ours.fingerprint() != theirs.fingerprint():
        raise UserError(
            f"--train.init {folder}: its tokenizer differs from the one of this run: add "
            f"--tokenizer.path {shlex.quote(str(folder))}"
        )
    kind = pretrained.read_config(folder).get("condition", "none")
    conditions = (load_condition(kind, folder / pretrained.CONDITION), model.condition)
    scales = [condition and condition.scale for condition in conditions]
    if scales[0] != scales[1]:
        raise UserError(
            f"--train.init {folder}: its --model.condition is {kind}, that of this run is "
            f"{model.config['condition']}, and both need the same labels, or numbers with the same "
            "mean and standard deviation"
        )
    names = ("encoder", "decoder", "prior") if parts == "all" else (parts,)
    if why := load_some_weights(model, folder, names):
        raise UserError(
            f"--train.init {folder}: its weights do not fit this model ({why}): use the model "
            "options of that run, or choose other --train.init_parts"
        )


def to_device(model: Model, device: str | torch.device | None = None) -> Model:
    """Move a model to a device; None: a GPU if there is one, else the CPU.

    Raises:
        UserError: There is no such device.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if torch.device(device).type == "meta":
            raise UserError(f"device {device}: it computes nothing; choose cpu or cuda")
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        raise UserError(f"device {device}: {str(error).splitlines()[0]}") from error


def build_buckets(config: Config, split: Split, replicas: int = 1, rank: int = 0) -> LengthBuckets:
    """Split the rows of a split into batches; a token budget, if set, replaces the batch size."""
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
