"""The input of encoders and decoders: a batch of examples, with the counts that metrics need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from textvae.errors import UserError, first_line

COUNTS = ("lengths", "units", "num_bytes", "index")  # of a batch, with defaults


@dataclass(frozen=True)
class Batch:
    """A batch of examples, batch dimension first. Only ``x`` is required.

    The examples of several batches need an ``index`` to be told apart in an evaluation; plain
    tensors are numbered there.

    For text, ``x`` is ``<s> w1 … wn </s>`` padded with 0, and the model predicts everything after
    ``<s>``: ``lengths`` counts those predictions.
    """

    x: Tensor  # (B, T+1) token ids, (B, 1, H, W) pixels, or anything your encoder reads
    lengths: Tensor = None  # type: ignore[assignment]  # (B,) predicted symbols of each example
    units: Tensor = None  # type: ignore[assignment]  # (B,) words + end of sentence; 0: no words
    num_bytes: Tensor = None  # type: ignore[assignment]  # (B,) UTF-8 bytes of the text
    index: Tensor = None  # type: ignore[assignment]  # (B,) row of each example in its dataset
    labels: Tensor | None = None  # (B,)
    condition: Tensor | None = None  # (B,) what the model is conditioned on: see vae/conditions.py

    def __post_init__(self) -> None:
        if not isinstance(self.x, Tensor):
            raise TypeError(f"x must be a tensor with B rows, not {type(self.x).__name__}")
        missing = [name for name in COUNTS if getattr(self, name) is None]
        if missing:  # else this would cost a GPU several launches for every batch
            rows = torch.arange(len(self.x), device=self.x.device)
            zeros = torch.zeros_like(rows)
            defaults = {"lengths": zeros + self.x[:1].numel(), "index": rows}
            for name in missing:
                object.__setattr__(self, name, defaults.get(name, zeros))

    def __len__(self) -> int:
        return self.x.size(0)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        tensors: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        later = torch.device(device).type == "cuda"  # the CPU would read what has not arrived
        return replace(
            self,
            **{k: v.to(device, non_blocking=later) for k, v in tensors.items() if v is not None},
        )


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's parameters and buffers; the CPU if it has none."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def check_device(device: str | torch.device) -> None:
    """Check that the tensors of a model can be on a device.

    Raises:
        UserError: There is no such device.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        why = first_line(error)
        if why.startswith("Expected one of"):  # twenty kinds of devices
            why = "there is no such kind of device: use cpu, or cuda for a GPU"
        raise UserError(f"device {device}: {why}") from error
    if torch.device(device).type == "meta":
        raise UserError(f"device {device}: it computes nothing; choose cpu or cuda")


class Split(Protocol):
    """N examples of any kind of data: the interface that training and evaluation rely on."""

    lengths: np.ndarray  # (N,) predicted symbols
    labels: np.ndarray | None  # (N,) indices into label_names; -1: unlabeled
    label_names: list[str] | None
    conditions: np.ndarray | None  # (N,) what the model is conditioned on

    @property
    def content_hash(self) -> str:
        """Hash of the texts or pixels and the labels, regardless of where they were read from."""
        ...

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, epoch: int | None = None) -> Batch:
        """The examples in ``rows``, as seen in a training epoch, or in evaluation if it is None."""

    def caption(self, i: int) -> str:
        """Example i as text."""

    def source_row(self, i: int) -> int:
        """Number of example i in its file, from 0, counting those that were left out."""
        ...

    def thumbnails(self, rows: np.ndarray) -> Tensor | None:
        """Some examples as images (N, 1, H, W); None if they are not images."""


def numbered(batches: Iterable[Any]) -> Iterator[Batch]:
    """Turn the batches of any loader into ``Batch`` objects, and leave out empty ones.

    The rows of plain tensors are numbered from 0.

    Args:
        batches: Batches, tensors or arrays x, or tuples that start with x, as a DataLoader makes.

    Raises:
        TypeError: It is a single tensor, or its elements are something else.
    """
    if isinstance(batches, Tensor | np.ndarray | Batch):
        kind = type(batches).__name__
        raise TypeError(f"batches must be a list or a loader of batches, not a single {kind}")
    first = 0
    for batch in batches:
        if not isinstance(batch, Batch):
            x = batch[0] if isinstance(batch, list | tuple) and batch else batch
            if not isinstance(x, Tensor | np.ndarray):
                shown = f"{type(x).__name__}: {x!r:.50}"
                made = "; a text model makes them: model.counted_batches(texts, 64)"
                raise TypeError(
                    f"a batch must be a Batch or a tensor, not {shown}"
                    f"{made if isinstance(x, str) else ''}"
                )
            x = torch.as_tensor(x)
            batch = Batch(x, index=torch.arange(first, first + len(x)))
        first += len(batch)
        if len(batch):
            yield batch
