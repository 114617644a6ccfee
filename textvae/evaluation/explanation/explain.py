"""Which words z predicts: the shuffle gap, split among the tokens of a text by the chain rule.

    gain_t = E_q(z|x)[log p(x_t | x_<t, z)] - E_q(z|x')[log p(x_t | x_<t, z)]

x' is another text. The sum over t is the shuffle gap of x (``textvae.evaluation.shuffle``). A wrong
z misleads the decoder, so this is more than what z knows. What z adds to what a language model
knows from the words before is

    gain_t = E_q(z|x)[log p(x_t | x_<t, z)] - log p_LM(x_t | x_<t)

whose sum is the advantage of the reconstruction term over the language model's log p(x). It counts
every difference between the two models, and not only z. What some dimensions of z say is the gain
over a z in which only these are those of another text. In all three, a z that only knows how a text
begins, as that of many text VAEs (Bosc & Vincent 2020), gains at the first positions and nowhere
else. Single tokens may lose: a z that makes other words more likely makes this one less likely.
The gains of the tokens that spell a word add up to that of the word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from textvae.config.arguments import check_integers
from textvae.errors import OptionError, UserError
from textvae.evaluation.explanation.result import ExplainedText, Explanation
from textvae.evaluation.latent.traversal import checked_dimensions
from textvae.evaluation.shuffle import ring
from textvae.text.decode.token_log_probs import token_log_probs
from textvae.text.tokenizers import PAD, Unit
from textvae.vae.batch import Batch
from textvae.vae.conditions import Given
from textvae.vae.model import Model
from textvae.vae.modes import evaluation_mode, undisturbed
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.posteriors import select

DRAWS = 4  # of z for every one of many texts; for few, whose tokens are read one by one, more
MOST_DRAWS, DRAWS_IN_ALL = 32, 128
# log p of the tokens of B texts without their z, (B, T): of the texts, and K draws of z, (K, B, Z).
Reference = Callable[[Batch, Tensor], np.ndarray]


def explain(
    model: Model,
    texts: Sequence[str],
    *,
    baseline: Model | None = None,
    others: Sequence[str] | None = None,
    dimension: int | Sequence[int] | None = None,
    condition: Given | None = None,
    other_condition: Given | None = None,
    draws: int | None = None,
    unit: Unit | None = None,
    refine_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    name: str = "",
    split: str = "",
) -> Explanation:
    """Measure how many nats of every word of some texts z is worth.

    Args:
        model: A text model.
        texts: N texts.
        baseline: A language model with the same tokens to compare with; None: the model itself,
            with the z of other texts.
        others: These texts; by default the N texts, each with the z of others.
        dimension: The dimension of z, from 0, or several, that are taken from the other text; None:
            all of them.
        condition: As in ``model.encode``, for a conditional model.
        other_condition: The same for ``others``.
        draws: Draws of z for each text, and of as many other texts' z; None: 4, or up to 32 if
            there are few texts.
        unit: ``word``, or ``token`` for the tokens of the tokenizer, which may be parts of words;
            None: tokens if they are characters or symbols, else words.
        refine_steps: As in ``model.encode``.
        seed: Seed of the draws.
        batch_size: Texts per batch; does not change the results.
        name: Name of the model, for the result.
        split: What the texts are, for the result.

    Raises:
        UserError: The model has no latent variable, is not one of texts, or cannot generate; or
            there are not enough texts; or the baseline has a latent variable, or other tokens or
            labels; or there is no such dimension, or it cannot change alone; or there are others or
            a dimension besides a baseline, which has no use for them.
    """
    check_explainable(model, baseline)
    texts = model.listed(texts)
    others = None if others is None else model.listed(others)
    dimensions = None if dimension is None else _distinct(checked_dimensions(model, dimension))
    _check_others(texts, others, baseline, dimensions)
    draws = _default_draws(len(texts)) if draws is None else draws
    check_integers(1, draws=draws, batch_size=batch_size)
    unit = _checked_unit(unit, model.tokenizer)
    options: dict[str, Any] = {"refine_steps": refine_steps, "seed": seed, "batch_size": batch_size}
    in_evaluation = nullcontext() if baseline is None else evaluation_mode(baseline)
    with undisturbed(model, seed), in_evaluation, torch.no_grad():
        own = model.encode(texts, condition=condition, **options)
        if baseline is not None:
            reference = _without_z(baseline)
        else:
            same = others is None
            donors = own if same else model.encode(others, condition=other_condition, **options)
            sources = _donors(len(donors.center()), len(texts), draws, same, seed)
            reference = _with_z_of_others(model, donors, sources, dimensions, seed)
        found: list[Any] = [None] * len(texts)
        batches = model.batches(texts, max(1, batch_size // draws))
        for batch in model.conditioned(batches, condition, len(texts)):
            here, rows = batch.to(model.device), batch.index.cpu()
            z = select(own, rows).rsample(draws, RowNoise(seed, Purpose.LATENT, rows))
            log_px = _mean_log_px(model, here, z)
            explained = _by_unit(unit, model, batch, log_px, log_px - reference(here, z))
            for row, text in zip(rows.tolist(), explained, strict=True):
                found[row] = text
    return Explanation(found, draws, name, split, baseline is not None, dimensions, unit)


def check_explainable(model: Model, baseline: Model | None = None) -> None:
    """Check that a model has what explaining its texts needs, and a baseline the same tokens.

    Raises:
        UserError: It has no latent variable, is not one of texts, or cannot generate; or the
            baseline is not a language model of the same tokens, or reads other labels.
    """
    if model.KIND != "text":
        raise UserError("explain applies only to text models: it says which words z predicts")
    model.check_latent()
    _check_stepper(model)
    if baseline is None:
        return
    if baseline.KIND != "text" or baseline.latent_dim:
        raise UserError("a baseline is a language model (latent_dim 0), and this is not one")
    _check_stepper(baseline)
    if _fingerprint(baseline) != _fingerprint(model):
        raise UserError("the baseline has another tokenizer: train it with --tokenizer.path RUN")
    theirs, ours = (each.condition and each.condition.scale for each in (baseline, model))
    if theirs is not None and theirs != ours:
        raise UserError("the baseline was trained with other labels than the model")


def _check_stepper(model: Model) -> None:
    if not hasattr(model.decoder, "stepper"):
        raise UserError(
            f"{type(model.decoder).__name__} has no method stepper, which predicts a text word by "
            "word (textvae.vae.contracts.Stepper)"
        )


def is_explainable(model: Model) -> bool:
    """Return whether a model has z, words, and a decoder that predicts them one by one."""
    return model.KIND == "text" and model.latent_dim > 0 and hasattr(model.decoder, "stepper")


def _check_others(
    texts: Sequence[str],
    others: Sequence[str] | None,
    baseline: Model | None,
    dimensions: Sequence[int] | None,
) -> None:
    if baseline is not None and (others is not None or dimensions is not None):
        raise UserError("a baseline replaces z itself: give no dimension and no other texts")
    if dimensions == []:
        raise UserError("give at least one dimension")
    if not len(texts):
        raise UserError("there is no text to explain")
    if baseline is None and (len(texts) < 2 if others is None else not len(others)):
        raise UserError(
            "a single text has no other to take z from: give more texts (or a larger --limit), or "
            "a baseline"
        )


def _distinct(dimensions: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(dimensions))


def _checked_unit(unit: Unit | None, tokenizer: Any) -> Unit:
    if unit is None:
        chosen: Unit = tokenizer.unit
        return chosen
    if unit not in get_args(Unit):
        raise OptionError(f"choose {' or '.join(get_args(Unit))}", unit=unit)
    return unit


def _default_draws(count: int) -> int:
    return min(MOST_DRAWS, max(DRAWS, DRAWS_IN_ALL // max(1, count)))


def _fingerprint(model: Any) -> str | None:
    return model.tokenizer and str(model.tokenizer.fingerprint())


def _without_z(baseline: Model) -> Reference:
    """Return log p(x_t | x_<t) of a language model for the texts of a batch, (B, T)."""

    def log_px(batch: Batch, _: Tensor) -> np.ndarray:
        here = batch if baseline.condition is not None else replace(batch, condition=None)
        here = here.to(baseline.device)
        return _mean_log_px(baseline, here, here.x.new_zeros(1, len(here), 0, dtype=torch.float32))

    return log_px


def _donors(given: int, count: int, draws: int, same: bool, seed: int) -> Tensor:
    """Return whose z each of N texts receives in each draw, (K, N).

    Args:
        given: Number of texts that z is taken from.
        count: N.
        draws: K.
        same: Whether they are the same texts, none of which receives its own z.
        seed: Seed of their order.
    """
    if same:
        return torch.stack([ring(count, seed, 1 + k % (count - 1)) for k in range(draws)])
    # The texts follow each other on the ring, and the draws of a text are far from each other.
    places = torch.arange(count) + max(1, given // draws) * torch.arange(draws)[:, None]
    return ring(given, seed)[places % given]


def _with_z_of_others(
    model: Model, donors: Any, sources: Tensor, dimensions: Sequence[int] | None, seed: int
) -> Reference:
    """Return log p(x_t | x_<t, z) with the z of other texts, or with these dimensions of it."""
    replaced = torch.ones(model.latent_dim, dtype=torch.bool)
    if dimensions is not None:
        replaced = torch.isin(torch.arange(model.latent_dim), torch.tensor(dimensions))

    def log_px(batch: Batch, z: Tensor) -> np.ndarray:
        rows = batch.index.cpu()
        other = torch.cat(
            [
                select(donors, places[rows]).rsample(1, RowNoise(seed, Purpose.DONOR, rows, k))
                for k, places in enumerate(sources)
            ]
        )
        return _mean_log_px(model, batch, torch.where(replaced.to(z.device), other, z))

    return log_px


def _by_unit(
    unit: Unit, model: Model, batch: Batch, log_px: np.ndarray, gains: np.ndarray
) -> list[ExplainedText]:
    """Return the texts of a batch from the figures of their tokens, (B, T)."""
    tokenizer: Any = model.tokenizer
    texts = []
    for row, *figures in zip(batch.x[:, 1:], log_px, gains, strict=True):
        ids = row[row != PAD].tolist()
        if unit == "token":
            spelling, counts = tokenizer.tokens(ids), [1] * len(ids)
        else:
            spelling, counts = map(list, zip(*tokenizer.words(ids), strict=True))
        starts = np.cumsum([0, *counts[:-1]])
        sums = [np.add.reduceat(values[: len(ids)], starts) for values in figures]
        texts.append(ExplainedText(spelling, *sums))
    return texts


def _mean_log_px(model: Model, batch: Batch, z: Tensor) -> np.ndarray:
    """Return log p(x_t | x_<t, z) in nats, the mean over z (K, B, Z): (B, T)."""
    samples, size, _ = z.shape
    flat, y = z.flatten(0, 1).to(batch.x.device), batch.condition
    if y is not None:
        flat = model.decoder.with_condition(flat, y.repeat(samples))
    found = token_log_probs(model.decoder.stepper(flat), batch.x.repeat(samples, 1))
    return found.view(samples, size, -1).double().mean(0).cpu().numpy()
