"""Batches of examples of similar length: almost no padding, and a position that can be saved.

The rows of each batch and the order of the batches are a pure function of (seed, epoch), so these
two numbers and the index of the next batch are enough to resume a run exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from textvae.vae.batch import Batch, Split


class LengthBuckets:
    """Splits N rows, sorted by length, into batches.

    In a distributed run, every rank gets the same number of batches, with similar lengths at each
    step, and every row goes to exactly one rank.

    Args:
        lengths: (N,) number of predicted tokens in each row.
        batch_size: Maximum number of rows in a batch; None if only ``max_tokens`` limits it.
        max_tokens: Maximum number of tokens in a batch, including padding; a longer row forms a
            batch by itself.
        equal_length: Whether all rows of a batch must have exactly the same length, as in the
            reference implementations.
        seed: Seed of the shuffling.
        num_replicas: Number of processes in a distributed run.
        rank: Index of this process.

    Raises:
        ValueError: There are no rows or fewer rows than replicas, or an argument is out of range.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int | None = 32,
        max_tokens: int | None = None,
        equal_length: bool = False,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ):
        self.lengths = np.asarray(lengths, dtype=np.int64)
        if batch_size is None and max_tokens is None:
            raise ValueError("batch_size or max_tokens must be given")
        limits = {"batch_size": batch_size, "max_tokens": max_tokens}
        for name, limit in limits.items():
            if limit is not None and limit < 1:
                raise ValueError(f"{name} {limit}: must be at least 1")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank {rank} of {num_replicas} replicas")
        if len(self.lengths) < num_replicas:
            raise ValueError(f"{len(self.lengths)} rows cannot feed {num_replicas} replicas")
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.equal_length = equal_length
        self.seed = seed
        self.num_replicas = num_replicas
        self.rank = rank

    def epoch(self, e: int) -> list[np.ndarray]:
        """Row indices of every batch of epoch ``e`` for this rank, shuffled."""
        rng = np.random.default_rng([self.seed, e])
        steps = self._steps(self._batches(rng.permutation(len(self.lengths))))
        return [steps[i][self.rank] for i in rng.permutation(len(steps))]

    def sequential(self) -> list[np.ndarray]:
        """Row indices for evaluation, longest first, so that running out of memory shows early."""
        batches = self._cut(np.argsort(self.lengths, kind="stable"))
        return [step[self.rank] for step in self._steps(batches)][::-1]

    def _batches(self, order: np.ndarray) -> list[np.ndarray]:
        # A stable sort of a shuffled order leaves ties in random order.
        return self._cut(order[np.argsort(self.lengths[order], kind="stable")])

    def _cut(self, rows: np.ndarray) -> list[np.ndarray]:
        lengths = self.lengths[rows]
        batches, start = [], 0
        while start < len(rows):
            end = start + self._at_most(lengths[start])
            window = lengths[start:end]
            size = len(window)
            if self.equal_length:
                size = int(np.searchsorted(window, window[0], side="right"))
            if self.max_tokens is not None:
                padded = window[:size] * np.arange(1, size + 1)
                size = max(1, int(np.searchsorted(padded, self.max_tokens, side="right")))
            batches.append(rows[start : start + size])
            start += size
        return batches

    def _at_most(self, length: int) -> int:
        """Return how many rows of this length or longer fit in a batch."""
        limits = [] if self.batch_size is None else [self.batch_size]
        if self.max_tokens is not None:
            limits.append(max(1, self.max_tokens // max(1, int(length))))
        return min(limits)

    def _steps(self, batches: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Batches grouped by step, one per rank; the largest are halved until the count divides."""
        while len(batches) % self.num_replicas:
            i = max(range(len(batches)), key=lambda j: len(batches[j]))
            if len(batches[i]) == 1:
                batches = self._joined(batches)
                break
            half = len(batches[i]) // 2
            batches[i : i + 1] = [batches[i][:half], batches[i][half:]]
        return [
            batches[i : i + self.num_replicas] for i in range(0, len(batches), self.num_replicas)
        ]

    def _joined(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        # Single rows cannot be halved: pair up the shortest ones, even beyond batch_size.
        pairs = len(batches) % self.num_replicas
        joined = [np.concatenate(batches[2 * i : 2 * i + 2]) for i in range(pairs)]
        return joined + batches[2 * pairs :]


class BatchLoader:
    """Batches of a split, epoch after epoch, from a position that can be saved.

    Iterating yields the rest of the current epoch; iterating again yields the next epoch. The
    position advances before a batch is yielded, so a state saved after a step resumes with the
    next batch.
    """

    def __init__(self, split: Split, buckets: LengthBuckets):
        self.split = split
        self.buckets = buckets
        self.epoch = 0
        self.next_batch = 0

    def __len__(self) -> int:
        """Number of batches in the current epoch, including those already yielded."""
        return len(self.buckets.epoch(self.epoch))

    def __iter__(self) -> Iterator[Batch]:
        epoch, batches = self.epoch, self.buckets.epoch(self.epoch)
        for i in range(self.next_batch, len(batches)):
            if i + 1 < len(batches):
                self.next_batch = i + 1
            else:
                self.epoch, self.next_batch = self.epoch + 1, 0
            yield self.split.batch(batches[i], epoch)

    def state_dict(self) -> dict[str, Any]:
        """Epoch and next batch."""
        return {"epoch": self.epoch, "next_batch": self.next_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where ``state`` was saved.

        Raises:
            ValueError: The epoch has fewer batches: the corpus or the batch size has changed.
        """
        epoch, next_batch = int(state["epoch"]), int(state["next_batch"])
        count = len(self.buckets.epoch(epoch))
        if not 0 <= next_batch < count:
            raise ValueError(
                f"saved position {next_batch} in an epoch of {count} batches: the corpus or the "
                "batch size has changed"
            )
        self.epoch, self.next_batch = epoch, next_batch
