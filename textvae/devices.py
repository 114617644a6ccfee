"""Device, precision and processes: what ``accelerate`` does for the training loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from textvae.config import Config
from textvae.errors import UserError


def accelerator(precision: str) -> Any:
    """The accelerator for ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        UserError: the device cannot compute in this precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # accelerate keeps the first precision for the whole process; each run here has its own.
    AcceleratorState._reset_state()
    unable = f"--train.precision {precision} is not possible on this machine: take fp32 or bf16"
    try:
        made = Accelerator(mixed_precision="no" if precision == "fp32" else precision)
    except ValueError as error:
        raise UserError(unable) from error
    if precision == "fp16" and made.device.type == "cpu":
        raise UserError(unable)
    return made


def with_precision(config: Config) -> Config:
    """The config with precision ``auto`` as what it means here: ``bf16`` where the device computes
    products in it faster than in fp32, else ``fp32``."""
    if config.train.precision != "auto":
        return config
    from accelerate import PartialState

    precision = "bf16" if _has_fast_bf16(PartialState().device.type) else "fp32"
    return replace(config, train=replace(config.train, precision=precision))


def _has_fast_bf16(kind: str) -> bool:
    match kind:
        case "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":  # below these instructions oneDNN widens every number first
            return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        case _:
            return False


def on_any_process(accelerator: Any, holds: bool) -> bool:
    """Whether something holds on any process; every one of them has to ask."""
    if accelerator.num_processes == 1:
        return holds
    flag = torch.tensor(float(holds), device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum"))


def of_main_process(accelerator: Any, number: float) -> float:
    """The main process's number; every process has to ask."""
    if accelerator.num_processes == 1:
        return number
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([number])[0]
