"""Context managers that put a model into evaluation mode or freeze its weights, then restore it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from textvae.vae.batch import device_of
from textvae.vae.noise import check_seed


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Use evaluation mode; restore the mode of each part afterward."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with _FastAttention.off() if torch.is_autocast_enabled("cpu") else nullcontext():
            yield
    finally:
        for part, training in modes:
            part.training = training


class _FastAttention:
    """The fast path of ``nn.TransformerEncoder``, which fails under autocast on a CPU.

    It is a setting of the process, so it is off as long as one of several threads needs that.
    """

    lock, users, enabled = threading.Lock(), 0, True

    @classmethod
    @contextmanager
    def off(cls) -> Iterator[None]:
        """Turn it off for a while."""
        with cls.lock:
            if cls.users == 0:
                cls.enabled = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            cls.users += 1
        try:
            yield
        finally:
            with cls.lock:
                cls.users -= 1
                if cls.users == 0:
                    torch.backends.mha.set_fastpath_enabled(cls.enabled)


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Leave trainable parameters out of the backward pass."""
    chosen = list(parameters)
    for parameter in chosen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in chosen:
            parameter.requires_grad_(True)


@contextmanager
def undisturbed(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Use evaluation mode and a seeded random state; restore both afterward."""
    check_seed(seed)
    device = device_of(model)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), evaluation_mode(model):
        torch.manual_seed(seed)
        yield
