"""The two classifiers of a probe, on standardized posterior means (Dieng et al. 2019).

A linear one, which is logistic regression, and the paper's network with one hidden layer of 1024
ReLU units and dropout 0.5, stopped early on the validation split.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from textvae.errors import UserError
from textvae.evaluation.intervals import of_share

logger = logging.getLogger(__name__)
UNITS, DROPOUT, BATCH, LEARNING_RATE = 1024, 0.5, 256, 1e-3
PATIENCE, EPOCHS = 5, 100


class Labeled(NamedTuple):
    """Posterior means and the labels, or numbers, to predict from them."""

    means: Tensor  # (N, Z)
    labels: Tensor  # (N,)


def classify(parts: Sequence[Labeled], seed: int) -> dict[str, Any]:
    """Score the two classifiers, given the training, the validation, and the scored split."""
    labels = parts[0].labels
    if len(labels.unique()) < 2:
        raise UserError("all training examples have the same label: there is nothing to predict")
    if unseen := set(parts[-1].labels.tolist()) - set(labels.tolist()):
        logger.warning(
            "%d of the classes in the scored split %s no training example and cannot be predicted",
            *(len(unseen), "has" if len(unseen) == 1 else "have"),
        )
    train, valid, test = _standardized(*parts)
    count, most_frequent = len(test.labels), train.labels.mode().values
    return {
        **_score("accuracy", _mlp_correct(train, valid, test, seed), count),
        **_score("linear_accuracy", _linear_correct(train, test, seed), count),
        "majority_accuracy": float((test.labels == most_frequent).double().mean()),
        "classes": len(train.labels.unique()),
    }


def _standardized(train: Labeled, *others: Labeled) -> list[Labeled]:
    mean, deviation = train.means.mean(0), train.means.std(0).clamp(min=1e-8)
    return [part._replace(means=(part.means - mean) / deviation) for part in (train, *others)]


def _score(key: str, correct: int, count: int) -> dict[str, float]:
    """The accuracy and its standard error, which is not 0 if all predictions are alike."""
    share = of_share(correct / count, count)
    return {key: share.value, f"{key}_se": share.standard_error}


def _linear_correct(train: Labeled, test: Labeled, seed: int) -> int:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000, random_state=seed % 2**32)
    model.fit(train.means.numpy(), train.labels.numpy())
    return int(np.sum(model.predict(test.means.numpy()) == test.labels.numpy()))


def _mlp_correct(train: Labeled, valid: Labeled, test: Labeled, seed: int) -> int:
    classes = int(max(part.labels.max() for part in (train, valid, test))) + 1
    with torch.random.fork_rng(devices=[]):  # the network is on the CPU
        torch.default_generator.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(train.means.size(1), UNITS),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(UNITS, classes),
        )
        _fit(network, train, valid)
    return _correct(network, test)


def _fit(network: nn.Sequential, train: Labeled, valid: Labeled) -> None:
    """Train until the validation accuracy stops rising, and restore the best weights."""
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
def _correct(network: nn.Sequential, data: Labeled) -> int:
    network.eval()
    return int((network(data.means).argmax(-1) == data.labels).sum())
