"""Device, precision, processes, and memory of a training run."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from textvae.config.experiment import Config
from textvae.errors import UserError

T = TypeVar("T")
# How long processes wait for each other: the first one reads the corpus and evaluates alone, which
# may take longer than the ten minutes after which NCCL gives up.
PATIENCE = timedelta(days=1)


def accelerator(precision: str) -> Any:
    """Return the accelerator for a precision.

    Args:
        precision: ``fp32``, ``bf16``, or ``fp16``.

    Raises:
        UserError: The device cannot compute in this precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    _processes()
    # accelerate keeps its first precision for the whole process, but runs may differ.
    AcceleratorState._reset_state()
    unable = f"--train.precision {precision} is not supported on this machine: use fp32 or bf16"
    try:
        made = Accelerator(mixed_precision="no" if precision == "fp32" else precision)
    except ValueError as error:
        raise UserError(unable) from error
    if made.device.type == "cuda":  # the peak is that of one run
        torch.cuda.reset_peak_memory_stats(made.device)
    if precision == "fp16" and made.device.type == "cpu":
        raise UserError(unable)
    return made


def with_precision(config: Config) -> Config:
    """Replace the precision ``auto`` by ``bf16`` or ``fp32``.

    It becomes ``bf16`` if the device multiplies faster in bf16 than in fp32, else ``fp32``.
    """
    if config.train.precision != "auto":
        return config
    device = _processes().device or torch.device("cpu")
    precision: Literal["bf16", "fp32"] = "bf16" if _has_fast_bf16(device.type) else "fp32"
    return replace(config, train=replace(config.train, precision=precision))


def _processes() -> Any:
    """Return accelerate's ``PartialState``, as its ``Accelerator`` makes it, but more patient."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)


def _has_fast_bf16(kind: str) -> bool:
    match kind:
        case "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":  # without these instructions oneDNN converts every number to fp32 first
            return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        case _:
            return False


def on_any_process(accelerator: Any, holds: bool) -> bool:
    """Return whether a condition holds on any process; every process has to call this."""
    if accelerator.num_processes == 1:
        return holds
    flag = torch.tensor(float(holds), device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum"))


def of_main_process(accelerator: Any, value: T) -> T:
    """Return the main process's number or card; every process has to call this."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def mean_of_processes(accelerator: Any, values: Tensor) -> Tensor:
    """Return the mean over all processes; every process has to call this."""
    return values if accelerator.num_processes == 1 else accelerator.reduce(values, "mean")


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> None:
    """Ask glibc, if present, to keep large blocks of memory that are freed.

    Returning them to the system and faulting them in again at every step would take a tenth of the
    training time on a CPU.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        # glibc before 2.35 has a largest threshold, and refuses more without an error.
        libc.mallopt(M_MMAP_THRESHOLD, 2**30) or libc.mallopt(M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory_mb(device: torch.device | None = None) -> int | None:
    """Return the peak memory in MiB: of the GPU if that is the device, else of the process."""
    if device is not None and device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    with suppress(OSError, StopIteration, ValueError):  # Linux; getrusage includes the parent
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) // 2**10
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
