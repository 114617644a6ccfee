"""Scores of single examples: how likely a model finds each of them, old or new.

    elbo, iw, rec, kl      nats, as on the metrics card, which has their means
    regret                 ELBO(q_S) - ELBO(q_0), nats
    ppl_iw                 exp(-iw / units), units = words + end of sentence
    bits_per_byte_iw       -iw / (ln 2 * bytes)
    bits_per_dim_iw        the same per predicted symbol, for data without words

The likelihood regret is explained in ``textvae.evaluation.scoring.regret``.

The scores of an example depend on the seed and its row, not on the batch size or on other examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textvae.builders.data import kept_columns, read_new, usual_layout
from textvae.builders.model import load_model, to_device
from textvae.config.arguments import check_integers
from textvae.config.inference import AMORTIZED, Inference, with_steps
from textvae.errors import UserError
from textvae.evaluation.examination import check_model
from textvae.evaluation.labels import label_of
from textvae.evaluation.open_run import path_of_run
from textvae.evaluation.per_example import ExampleStats, collect, log_progress, short_first
from textvae.evaluation.scoring.regret import REGRET_STEPS, likelihood_regret
from textvae.runs import model_folder
from textvae.text.data.kept import check_not_taken
from textvae.text.examples import TextExamples
from textvae.vae.batch import Batch, Split, numbered
from textvae.vae.conditions import Given
from textvae.vae.inference import inference_of
from textvae.vae.model import Model
from textvae.vae.modes import undisturbed

CHUNK = 512  # examples scored before any of them is returned; limits memory
COLUMNS = (
    *("row", "elbo", "iw", "rec", "kl", "regret", "ppl_iw", "units", "bits_per_byte_iw", "bytes"),
    *("bits_per_dim_iw", "tokens", "label", "text"),
)
TEXTS = 64  # per batch


def score(
    model: Any,
    batches: Iterable[Any],
    *,
    samples: int = 200,
    regret_steps: int = REGRET_STEPS,
    condition: Given | None = None,
    seed: int = 0,
    inference: Inference | None = None,
    max_symbols: int | None = None,
) -> dict[str, np.ndarray]:
    """Score every example of some batches.

    The scores are ``elbo``, ``iw``, ``rec``, and ``kl`` in nats, as on the metrics card;
    ``regret``, the likelihood regret in nats; and ``ppl_iw`` and ``bits_per_byte_iw``, or, for data
    without words, ``bits_per_dim_iw``, which follow from ``iw`` and ``units``, ``bytes``, or
    ``tokens``. The noise of an example depends on the seed and its row: the same text in another
    row has slightly different scores. The regret takes most of the time; 0 steps skip it.

    It works with any ``VAE``, or any module with the attributes of
    ``textvae.vae.contracts.LatentModel``.

    Args:
        model: The model.
        batches: Every example once, as ``Batch`` objects in any order, or as plain tensors; for a
            ``TextVAE``, the texts themselves.
        samples: K, draws of z for the reconstruction term and the importance-weighted bound.
        regret_steps: Gradient steps of the likelihood regret; 0 skips it.
        condition: For texts, and a model that is conditioned on labels: a label for all texts, or
            one for each; batches have their own.
        seed: Seed of all noise.
        inference: How q(z|x) is found, and the step size of the regret; by default, as the model
            was trained (``TextVAE``, ``ImageVAE``), or by the encoder alone.
        max_symbols: See ``textvae.importance_bound``.

    Returns:
        Arrays (N,) in the order of ``Batch.index``, by key: ``row``, which is that index, and the
        scores. Those that are meaningless for the model or its data are
        missing: ``kl`` and ``regret`` without a latent variable, ``regret`` without an encoder,
        ``ppl_iw`` and ``bits_per_byte_iw`` if no words or bytes are counted.

    Raises:
        UserError: A number of draws or steps is out of range.
        ValueError: There are no examples, or a row occurs twice.
    """
    check_model(model)
    _check_counts(samples, regret_steps)
    kept = list(numbered(_batched(model, batches, condition)))
    chosen = inference_of(model, inference)

    def examine(some: Iterable[Batch], options: Inference) -> ExampleStats:
        return collect(model, some, samples, seed, options, max_symbols=max_symbols, own_draws=0)

    with undisturbed(model, seed), torch.no_grad():
        stats = examine(kept, chosen)
        scores = {"row": stats.index, "elbo": stats.elbo, "iw": stats.bound, "rec": stats.rec}
        if stats.posterior.center().size(1):
            scores["kl"] = stats.total_kl
            if regret_steps and getattr(model, "has_encoder", True):
                own = stats if chosen.method == "amortized" else examine(kept, AMORTIZED)
                steps = with_steps(chosen, regret_steps, has_encoder=True)
                scores["regret"] = likelihood_regret(examine, kept, own, steps)
    arrays = {key: _for_numpy(column).numpy() for key, column in scores.items()}
    counts = (stats.units, stats.num_bytes, stats.lengths)
    rates = _rates(
        arrays["iw"].astype(float),
        *(count.numpy() for count in counts),
        has_bytes=isinstance(model, TextExamples),
    )
    return arrays | rates


def _check_counts(samples: int, regret_steps: int) -> None:
    check_integers(1, samples=samples)
    check_integers(0, regret_steps=regret_steps)


def _batched(model: Any, given: Iterable[Any], condition: Given | None) -> Iterable[Any]:
    """Turn texts into batches of the model; others are batches already."""
    if isinstance(model, Model) and not isinstance(given, Tensor):
        given = list(model.listed(given))
        if not given:
            raise UserError("there is nothing to score: the list is empty")
        if not isinstance(given[0], Batch | Tensor | np.ndarray | list | tuple):
            return model.conditioned(model.counted_batches(given, TEXTS), condition, len(given))
    if condition is not None:
        raise UserError("a condition is given to texts; for batches, set Batch.condition")
    return given


def _for_numpy(column: Tensor) -> Tensor:
    """Return a column in single precision if it has less, as NumPy does not know bfloat16."""
    return column.float() if column.is_floating_point() and column.itemsize < 4 else column


def _rates(
    iw: np.ndarray,
    units: np.ndarray,
    num_bytes: np.ndarray,
    symbols: np.ndarray,
    *,
    has_bytes: bool,
) -> dict[str, np.ndarray]:
    """Divide the bound by each way to count, for a whole dataset in one of them."""
    if not units.any():
        return {"bits_per_dim_iw": -iw / (math.log(2) * symbols), "tokens": symbols}
    with np.errstate(divide="ignore", over="ignore"):  # infinite without bytes, or very unlikely
        rates = {"ppl_iw": np.exp(-iw / units), "units": units}
        if has_bytes or num_bytes.any():
            rates |= {"bits_per_byte_iw": -iw / (math.log(2) * num_bytes), "bytes": num_bytes}
    return rates


@dataclass(frozen=True)
class ScoredFile:
    """The examples of a file, which are scored while they are iterated over, in bounded memory.

    Each is a dictionary with its scores as in ``score``, its ``label`` if the file has labels, and
    its ``text``; then the columns to keep. Its ``row`` is its number in the file, from 0, counting
    what is not scored: blank rows, and documents that the model's ``data.long`` drops.

    Attributes:
        model: The model.
        split: The examples.
        batch_size: Examples per batch; does not change the results.
        options: Options of ``score``.
        kept: The values of other columns for every row of the file.
    """

    model: Model
    split: Split
    batch_size: int
    options: Mapping[str, Any]
    kept: Mapping[str, Sequence[str | None]]

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        lengths = self.split.lengths
        show = log_progress(lengths, "scored")
        for start in range(0, len(self), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(self)))
            batches = short_first(self.split, rows, self.batch_size)
            scores = score(self.model, batches, **self.options)
            yield from self._described(scores)
            show(start + len(rows))

    def _described(self, scores: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        for values in zip(*(column.tolist() for column in scores.values()), strict=True):
            described = dict(zip(scores, values, strict=True))
            row = described["row"]
            if self.split.labels is not None:
                described["label"] = label_of(self.split, row)
            described["row"] = place = self.split.source_row(row)
            kept = {name: column[place] for name, column in self.kept.items()}
            yield described | {"text": self.split.caption(row)} | kept


def score_file(
    run: Path | str,
    source: Path | str,
    *,
    samples: int = 200,
    regret_steps: int = REGRET_STEPS,
    refine_steps: int | None = None,
    condition: str | float | None = None,
    keep: Sequence[str] = (),
    device: str | torch.device | None = None,
    model: Model | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **reading: Any,
) -> ScoredFile:
    """Open a file whose texts or images are to be scored.

    Args:
        run: A run folder, a folder with a saved model, or a model name on the Hub.
        source: A file in any format that training reads, or ``-`` for the lines on standard input.
        samples: As in ``score``.
        regret_steps: As in ``score``.
        refine_steps: Gradient steps that refine q(z|x) for all scores but the regret; None: as in
            training.
        condition: For a model that is conditioned on labels: the label of all texts; None: those in
            the file.
        keep: Other columns of the file to copy, such as an id.
        device: Where to compute; None: a GPU if there is one.
        model: A model to use instead of the one in the folder.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of all noise.
        reading: For text: format, text_column, label_column, labels, delimiter, and header, as in
            the section ``data`` of ``Config``. By default, the columns are those of the run, if
            the file has them.

    Returns:
        The scored examples in the order of the file: an iterable of dictionaries.

    Raises:
        UserError: The model or the file cannot be read, or an option is out of range.
    """
    check_integers(1, batch_size=batch_size)
    _check_counts(samples, regret_steps)
    folder = model_folder.fetch(path_of_run(run))
    model = to_device(load_model(str(folder)), device) if model is None else model
    options = {
        "samples": samples,
        "regret_steps": regret_steps,
        "seed": seed,
        "inference": model.inference_with(refine_steps),
    }
    keep = [keep] if isinstance(keep, str) else keep
    check_not_taken(keep, COLUMNS)
    given = {name: value for name, value in reading.items() if value is not None}
    # First, because a pipe is refused.
    kept = next(kept_columns(model, str(source), keep, usual=usual_layout(folder), **given)())
    split = read_new(model, folder, str(source), condition, **reading)
    return ScoredFile(model, split, batch_size, options, kept)
