"""What the latent variable knows about labels or numbers: probes on posterior means.

Two classifiers are trained on the standardized means of the training split (Dieng et al. 2019): a
linear one (logistic regression), and the paper's two-layer network with 1024 ReLU units and dropout
0.5, stopped early on the validation split. A number is predicted by ridge regression
(``textvae.evaluation.latent.regression``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from textvae.builders.data import read_column
from textvae.config.arguments import check_integers
from textvae.errors import OptionError, UserError
from textvae.evaluation.latent.classification import Labeled, classify
from textvae.evaluation.latent.regression import fit_regression, score_regression
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.metrics.saving import may_save, save_card
from textvae.evaluation.open_run import Opening, OpenRun, open_run
from textvae.evaluation.per_example import posteriors
from textvae.runs import origin
from textvae.text.data.targets import are_numbers
from textvae.vae.conditions import Numbers
from textvae.vae.modes import ordinary_tensors

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)


class Target(NamedTuple):
    """What is predicted: for every split, the label or the number of each example."""

    values: Mapping[str, Tensor]  # (N,) integers, or numbers
    present: Mapping[str, Tensor]  # (N,) whether an example has one
    numeric: bool


@ordinary_tensors()
def probe(
    run: Path | str,
    *,
    split: str = "test",
    target: str | None = None,
    labels: int | None = None,
    refine_steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **opening: Unpack[Opening],
) -> Card:
    """Score probes on a split, and save their scores in the run folder.

    Labels are predicted by the two classifiers, and numbers by ridge regression. The scores are
    saved as ``RUN/metrics/SPLIT-probe.json``, where ``compare`` finds them, or as
    ``SPLIT-probe-TARGET-labelsN.json`` for another target or a limited number of labels.

    Args:
        run: A run folder.
        split: Which split to score.
        target: The column to predict: numbers, or classes if a value is not a number. None: the
            labels of the data.
        labels: Use only this many labeled examples for training, and at most as many to stop
            early, chosen at random; a larger number includes the examples of a smaller one. None:
            all of them.
        refine_steps: Gradient steps that refine q(z|x); None: as in training.
        batch_size: Examples per batch; does not change the results.
        seed: Seed of the classifiers and of the refinement steps.
        opening: data, reading, device, model, as in ``Opening``.

    Returns:
        The accuracies with their standard errors, or R^2 and the mean absolute error with their
        intervals; ``print`` shows them.

    Raises:
        UserError: There is no latent variable, there are too few labels or only one, or the run
            cannot be opened.
    """
    if labels is not None:
        check_integers(1, labels=labels)
    opened = open_run(run, **opening)
    save = may_save(opened.folder, opened.is_foreign)
    chosen = _chosen_target(opened, split, target)
    if labels is not None and labels > (count := int(chosen.present["train"].sum())):
        raise OptionError(
            f"the training split has only {count} with a label: use fewer",
            labels=labels,
        )
    options = {"seed": seed, "refine_steps": refine_steps, "batch_size": batch_size}
    names = ("train", split) if chosen.numeric else ("train", "valid", split)
    parts = [_labeled(opened, name, chosen, **options) for name in names]
    if labels is not None:
        parts = [*(_some(part, labels, seed) for part in parts[:-1]), parts[-1]]
        if len(parts[0].labels.unique()) < 2:
            raise OptionError("these examples all have the same label: use more", labels=labels)
    score = _regression if chosen.numeric else classify
    card = Card(
        model=opened.name,
        split=split,
        **({} if target is None else {"target": target}),
        **score(parts, seed),
        probed=len(parts[-1].labels),
        trained_on=len(parts[0].labels),
        **({} if refine_steps is None else {"refine_steps": refine_steps}),
        seed=seed,
        weights=opened.weights,
        commit=origin.commit(),
    )
    if save:
        save_card(opened.folder, card_name(split, target, labels, refine_steps), card)
    return card


def _chosen_target(opened: OpenRun, split: str, column: str | None) -> Target:
    """Return what is to be predicted; warn if the encoder has read it."""
    if not opened.model.latent_dim:
        raise UserError(
            f"{opened.folder} has no latent variable (latent_dim 0) to predict labels from"
        )
    condition = opened.model.condition
    if column is None and isinstance(condition, Numbers):
        raise UserError(
            f"the labels of {opened.folder} are numbers: name their column with --target"
        )
    if split == "train":
        logger.warning("the probe is scored on the examples that it is trained on")
    chosen = _target(opened, dict.fromkeys(("train", "valid", split)), column)
    if split == "valid" and not chosen.numeric:
        logger.warning("the probe is scored on the examples that decide when its training stops")
    if condition is not None and (column is None or _are_labels(opened, chosen)):
        logger.warning(
            "the encoder reads the %s that is predicted here, so the scores do not show what z "
            "says about the example: choose another --target",
            condition.noun,
        )
    return chosen


def card_name(
    split: str,
    target: str | None = None,
    labels: int | None = None,
    refine_steps: int | None = None,
) -> str:
    """Return what the scores are saved as."""
    steps = None if refine_steps is None else f"refine{refine_steps}"
    parts = (target, None if labels is None else f"labels{labels}", steps)
    suffixes = [str(part).replace("/", "_") for part in parts if part is not None]
    return "-".join([split, "probe", *suffixes])


def _target(opened: OpenRun, names: Iterable[str], column: str | None) -> Target:
    """Return what is to be predicted."""
    if column is None:
        labels = {name: _labels(opened, name) for name in names}
        return Target(labels, {name: own.ge(0) for name, own in labels.items()}, False)
    opened.split("train")  # a file of new examples has none
    every = read_column(opened.config, opened.splits, column)
    found = {name: every[name] for name in names}
    known = sorted({value for own in found.values() for value in own if value is not None})
    numeric = are_numbers(known)
    examples = sum(map(len, found.values()))
    if not numeric and len(known) > max(2, examples / 2):
        raise OptionError(
            f"{len(known):,} different texts in {examples:,} examples; a probe "
            "predicts classes or numbers",
            target=column,
        )
    codes: dict[str | None, float] = {None: -1}
    codes |= {value: float(value) if numeric else i for i, value in enumerate(known)}
    dtype = torch.float64 if numeric else torch.long
    return Target(
        {n: torch.tensor([codes[v] for v in own], dtype=dtype) for n, own in found.items()},
        {n: torch.tensor([v is not None for v in own]) for n, own in found.items()},
        numeric,
    )


def _are_labels(opened: OpenRun, target: Target) -> bool:
    """Return whether a target says the same as the labels of the training split."""
    split = opened.split("train")
    names = split.label_names or ()
    if split.labels is None:
        return False
    pairs = set(zip(target.values["train"].tolist(), split.labels.tolist(), strict=True))
    if target.numeric:
        return are_numbers(names) and all(v == float(names[n]) for v, n in pairs if n >= 0)
    return len(pairs) == len({value for value, _ in pairs}) == len({label for _, label in pairs})


def _labels(opened: OpenRun, name: str) -> Tensor:
    """Return the label of every example of a split; -1 for none."""
    split = opened.split(name)
    if split.labels is None:
        raise UserError(f"the {name} split has no labels, and a probe needs them")
    return torch.from_numpy(split.labels.copy())


def _labeled(opened: OpenRun, name: str, target: Target, **options: Any) -> Labeled:
    present = target.present[name]
    if not present.any():
        raise UserError(f"no example of the {name} split is labeled, and a probe needs labels")
    means = posteriors(opened.model, opened.split(name), **options).center().float()
    return Labeled(means[present], target.values[name][present])


def _regression(parts: Sequence[Labeled], seed: int) -> dict[str, Any]:
    """Score the regression, given the training and the scored split."""
    (means, numbers), (test_means, test_numbers) = (
        (part.means.double().numpy(), part.labels.double().numpy()) for part in parts
    )
    if len(numbers) < 2 or not np.ptp(numbers):
        raise UserError("all training examples have the same number: there is nothing to predict")
    fitted = fit_regression(means, numbers)
    return {
        **score_regression(fitted.predict(test_means), test_numbers, seed),
        "median_mae": float(abs(test_numbers - np.median(numbers)).mean()),
        **fitted.as_record(),
    }


def _some(data: Labeled, count: int, seed: int) -> Labeled:
    """Return the first ``count`` examples in a random order."""
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
    return Labeled(*(part[order[:count]] for part in data))
