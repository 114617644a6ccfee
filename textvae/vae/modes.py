"""Context managers that put a model into evaluation mode or freeze its weights, then restore it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

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
def ordinary_tensors() -> Iterator[None]:
    """Make new tensors in float32 on the CPU, whatever the caller's defaults are."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with _on_the_cpu():
            yield
    finally:
        torch.set_default_dtype(dtype)


def _on_the_cpu() -> AbstractContextManager[Any]:
    """Make new tensors on the CPU if the caller has chosen another device for them."""
    elsewhere = torch.get_default_device().type != "cpu"
    return torch.device("cpu") if elsewhere else nullcontext()


@contextmanager
def fresh_settings() -> Iterator[None]:
    """Compute as in a new process, so that the caller's settings cannot change the results.

    Gradients are on, new tensors are ordinary ones, and no autocast is active. Afterward, all of
    this is as before, and so are the random state of torch and the number of its threads.
    """
    threads = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(ordinary_tensors())
        stack.enter_context(torch.random.fork_rng(devices))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


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
    """Use evaluation mode, a seeded random state, and the CPU; restore all of it afterward."""
    check_seed(seed)
    device = device_of(model)
    random_state = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with random_state, _on_the_cpu(), evaluation_mode(model):
        torch.manual_seed(seed)
        yield
