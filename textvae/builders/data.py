"""From a configuration to the splits of its data, and to batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textvae.config.experiment import OF_TEXT_FILES, Config, DataConfig
from textvae.errors import UserError
from textvae.images.datasets import read_image_split, read_images
from textvae.images.model import ImageVAE
from textvae.runs.cache import private_cache
from textvae.runs.files import expanded
from textvae.runs.model_folder import fetch
from textvae.runs.run_folder import CONFIG, is_run
from textvae.text.data.corpus import (
    EncodedSplit,
    encode_corpus,
    read_corpus,
    read_file,
    warn_of_known_texts,
)
from textvae.text.data.kept import Kept, kept_parts
from textvae.text.data.layout import Usual
from textvae.text.data.source import without_guesses
from textvae.text.data.sources import check_place
from textvae.text.data.streams import STANDARD_INPUT
from textvae.text.data.targets import read_targets
from textvae.text.data.tokenizer import (
    learned_tokenizer,
    taken_tokenizer,
    warn_of_raw_text,
    warn_of_spelling,
    warn_of_unknown,
)
from textvae.text.tokenizers import Tokenizer, read_tokenizer, train_tokenizer
from textvae.text.tokenizers.vocabulary import TOKENIZER_FILE
from textvae.vae.batch import Split
from textvae.vae.batching import LengthBuckets
from textvae.vae.conditioning import add_conditions, no_labels
from textvae.vae.conditions import Given
from textvae.vae.model import Model

if TYPE_CHECKING:
    from datasets import Dataset

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
    if not data.dir and data.train:
        raise UserError(
            f"--data.train {data.train}: also set --data.dir, the folder that the files of the "
            "other splits are in"
        )
    if not data.dir:
        raise UserError("no data: set --data.dir to a folder, a file, or a dataset name")
    check_place(data.dir)


def splits_with_labels(config: Config) -> dict[str, bool]:
    """Return the names of the splits, and whether each has labels; the data is read, and cached.

    Raises:
        UserError: There is a problem with the data.
    """
    if config.data.kind == "images":
        images = read_images(config.data.dir, seed=config.train.seed)
        return {name: split.labels is not None for name, split in images.items()}
    corpus = _read_corpus(config)
    return {name: "label" in documents.column_names for name, documents in corpus.items()}


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
    data = _data_of(model, folder)
    path = expanded(source)
    if source == STANDARD_INPUT or not (path.is_file() or path.is_dir()):  # a pipe is not kept
        data = replace(data, cache_dir=str(private_cache()))
    given["usual"] = training_layout(data)
    given["numeric"] = model.config["condition"] == "number"
    texts = read_file(source, cache_dir=data.cache_dir, **given)
    name = "standard input" if source == STANDARD_INPUT else source
    new = _encoded({name: texts}, model.tokenizer, data)[name]
    add_conditions({"new": new}, model.condition, condition)
    return new


def _data_of(model: Any, folder: Path) -> DataConfig:
    """Return how a model's texts are read, as far as its folder says so."""
    if is_run(folder):
        return Config.load(folder / CONFIG).data
    longest = model.config["max_length"] + 1
    return DataConfig(tokenized=bool(model.tokenized), max_length=longest)


def kept_columns(
    model: Model, source: str, columns: Sequence[str], size: int | None = None, **reading: Any
) -> Callable[[], Iterator[Kept]]:
    """Return a function that reads other columns of a file of new examples, as ``kept_parts`` does.

    Raises:
        UserError: There is no such column, or the examples are images.
    """
    if columns and isinstance(model, ImageVAE):
        raise UserError(f"--keep {' '.join(columns)}: images have no other columns")
    return kept_parts(source, columns, size, **reading)


def usual_layout(folder: Path) -> Usual:
    """Return how the files of a model's run are laid out; nothing is known of those of others."""
    data = Config.load(folder / CONFIG).data if is_run(folder) else DataConfig()
    return training_layout(data)


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


def _read_text(config: Config, run: Path, fresh: bool) -> Splits:
    data = config.data
    is_known = not fresh and (run / TOKENIZER_FILE).exists()
    taken_from = None if is_known else config.tokenizer.path or _start_with_tokenizer(config)
    # One that cannot be used is found before the corpus is read, which may take minutes.
    tokenizer = read_tokenizer(run) if is_known else _taken_tokenizer(config, taken_from)
    with nullcontext() if fresh else without_guesses():
        corpus = _read_corpus(config)
    if (kind := config.model.condition) != "none":  # before the texts are tokenized
        for name, documents in corpus.items():
            if "label" not in documents.column_names:
                raise no_labels(name, kind)
    if tokenizer is None:
        tokenizer = _learned_tokenizer(config, corpus["train"])
    if not is_known:
        tokenizer.save(run)
    splits = _encoded(corpus, tokenizer, data)
    if fresh and taken_from is not None:
        warn_of_unknown(splits["train"], taken_from)
        warn_of_spelling(tokenizer, corpus["train"], taken_from)
    if fresh and data.tokenized:
        warn_of_raw_text(corpus["train"])
    if fresh:
        warn_of_known_texts(corpus)
    return splits


def _start_with_tokenizer(config: Config) -> str | None:
    """Return the model that a run starts from, if it has a tokenizer: its weights belong to it."""
    start = config.train.init
    has_one = start is not None and (fetch(start) / TOKENIZER_FILE).exists()
    return start if has_one else None


def _taken_tokenizer(config: Config, path: str | None) -> Tokenizer | None:
    if path is None:
        return None
    return taken_tokenizer(path, config.tokenizer.kind, config.data.tokenized)


def _learned_tokenizer(config: Config, texts: Dataset) -> Tokenizer:
    options = vars(config.tokenizer) | {"tokenized": config.data.tokenized}
    del options["path"]
    learn = partial(train_tokenizer, **options)
    return learned_tokenizer(texts, learn, options, config.data.cache_dir)


def _read_corpus(config: Config) -> dict[str, Dataset]:
    options = {name: getattr(config.data, name) for name in OF_TEXT_FILES}
    options["numeric"] = config.model.condition == "number"
    return read_corpus(config.data.dir, cache_dir=config.data.cache_dir, **options)


def _encoded(corpus: dict[str, Any], tokenizer: Any, data: DataConfig) -> dict[str, EncodedSplit]:
    return encode_corpus(
        corpus,
        tokenizer,
        tokenized=data.tokenized,
        max_length=data.max_length,
        long=data.long,
        cache_dir=data.cache_dir,
    )
