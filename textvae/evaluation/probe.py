"""What the latent tells of a label: classifiers on posterior means (Dieng et al. 2019).

Two are trained on the means of the training split, standardised: a linear one (logistic
regression), and the paper's of two layers, 1024 ReLU units with dropout 0.5, stopped where the
validation split says so. Both serve any labelled corpus.
"""

from __future__ import annotations

import copy
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from textvae.build import Splits
from textvae.errors import UserError
from textvae.evaluation.compare import save_card
from textvae.evaluation.per_example import posteriors
from textvae.runs import run_folder as checkpoint
from textvae.vae.model import Model

logger = logging.getLogger(__name__)
UNITS, DROPOUT, BATCH, LEARNING_RATE = 1024, 0.5, 256, 1e-3
PATIENCE, EPOCHS = 5, 100


class Labelled(NamedTuple):
    """Posterior means and the labels to read from them."""

    means: Tensor  # (N, Z)
    labels: Tensor  # (N,)


def probe(
    run: Path,
    model: Model,
    splits: Splits,
    *,
    split: str = "test",
    seed: int = 0,
    refine_steps: int | None = None,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Accuracies on a split with their standard errors, saved as ``RUN/metrics/SPLIT-probe.json``.

    Raises:
        UserError: there is no latent, no label, or only one.
    """
    checkpoint.make_folder(run / "metrics")
    if not model.latent_dim:
        raise UserError(f"{run} has no latent (latent_dim 0) to read labels from")
    options = {"seed": seed, "refine_steps": refine_steps, "batch_size": batch_size}
    train, valid, test = _standardised(
        *(_labelled(model, splits, name, **options) for name in ("train", "valid", split))
    )
    if len(train.labels.unique()) < 2:
        raise UserError("all training examples have the same label: there is nothing to tell apart")
    count = len(test.labels)
    commonest = train.labels.mode().values
    found = {
        "model": run.name,
        "split": split,
        **_score("accuracy", _mlp_correct(train, valid, test, seed), count),
        **_score("linear_accuracy", _linear_correct(train, test, seed), count),
        "majority_accuracy": float((test.labels == commonest).double().mean()),
        "classes": len(train.labels.unique()),
        "probed": count,
        "trained_on": len(train.labels),
        "seed": seed,
        "commit": checkpoint.commit(),
    }
    save_card(run, f"{split}-probe", found)
    return found


def render(found: dict[str, Any]) -> str:
    """The accuracies as lines of text, in per cent."""
    lines = [
        f"{name:22}{100 * found[key]:6.2f} ± {100 * found[f'{key}_se']:.2f} %"
        for name, key in (
            (f"2 layers, {UNITS} ReLU", "accuracy"),
            ("linear", "linear_accuracy"),
        )
    ]
    lines.append(f"{'the commonest label':22}{100 * found['majority_accuracy']:6.2f} %")
    lines.append(
        f"labels of {found['probed']} examples of {found['split']}, {found['classes']} classes, "
        f"from posterior means; trained on {found['trained_on']}"
    )
    return "\n".join(lines) + "\n"


def _labelled(model: Model, splits: Splits, name: str, **options: Any) -> Labelled:
    if name not in splits:
        raise UserError(f"the corpus has no split {name!r}: choose {', '.join(splits)}")
    split = splits[name]
    if split.labels is None:
        raise UserError(f"the {name} split has no labels: a probe needs them")
    labels = torch.from_numpy(split.labels.copy())
    means = posteriors(model, split, **options).mean
    return Labelled(means[labels >= 0], labels[labels >= 0])


def _standardised(train: Labelled, *others: Labelled) -> list[Labelled]:
    centre, spread = train.means.mean(0), train.means.std(0).clamp(min=1e-8)
    return [own._replace(means=(own.means - centre) / spread) for own in (train, *others)]


def _score(key: str, correct: int, count: int) -> dict[str, float]:
    share = correct / count
    return {key: share, f"{key}_se": math.sqrt(share * (1 - share) / count)}


def _linear_correct(train: Labelled, test: Labelled, seed: int) -> int:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000, random_state=seed)
    model.fit(train.means.numpy(), train.labels.numpy())
    return int((model.predict(test.means.numpy()) == test.labels.numpy()).sum())


def _mlp_correct(train: Labelled, valid: Labelled, test: Labelled, seed: int) -> int:
    classes = int(max(own.labels.max() for own in (train, valid, test))) + 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(train.means.size(1), UNITS),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(UNITS, classes),
        )
        _fit(network, train, valid)
    return _correct(network, test)


def _fit(network: nn.Sequential, train: Labelled, valid: Labelled) -> None:
    """Trains until the validation split gains no more, and takes the best weights."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    best, weights, waited = -1, network.state_dict(), 0
    for epoch in range(EPOCHS):
        network.train()
        for rows in torch.randperm(len(train.labels)).split(BATCH):
            loss = nn.functional.cross_entropy(network(train.means[rows]), train.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        correct, waited = _correct(network, valid), waited + 1
        if correct > best:
            best, weights, waited = correct, copy.deepcopy(network.state_dict()), 0
        elif waited >= PATIENCE:
            logger.info("probe stopped after %d epochs", epoch + 1)
            break
    network.load_state_dict(weights)


@torch.no_grad()
def _correct(network: nn.Sequential, data: Labelled) -> int:
    network.eval()
    return int((network(data.means).argmax(-1) == data.labels).sum())
