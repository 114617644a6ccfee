"""Which numbers an experiment may hold: checked before anything is read or computed."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from textvae.config.experiment import Config, options_read
from textvae.errors import UserError

AT_LEAST = {
    "data.max_length": 2,
    "data.batch_size": 1,
    "data.max_tokens": 1,
    "tokenizer.vocab_size": 5,
    "tokenizer.min_count": 1,
    "objective.beta": 0,
    "objective.kl_start": 0,
    "objective.kl_epochs": 0,
    "objective.free_bits": 0,
    "objective.samples": 1,
    "inference.steps": 1,
    "inference.momentum": 0,
    "inference.clip": 0,
    "inference.max_growth": 0,
    "optim.momentum": 0,
    "optim.weight_decay": 0,
    "optim.clip": 0,
    "optim.warmup_steps": 0,
    "optim.patience": 1,
    "optim.decay_from": 0,
    "optim.min_lr_share": 0,
    "optim.max_decays": 1,
    "train.epochs": 1,
    "train.max_steps": 1,
    "train.seed": 0,
    "train.accumulate": 1,
    "train.threads": 1,
    "train.early_stopping": 1,
    "train.log_every": 1,
    "train.save_every": 1,
    "train.samples": 0,
}
ABOVE = {
    "objective.kl_ramp": 0,
    "inference.lr": 0,
    "inference.token_share": 0,
    "optim.lr": 0,
    "optim.lr_decay": 0,
    "train.evaluate_every": 0,
}
AT_MOST = {
    "objective.kl_ramp": 1,
    "inference.momentum": 1,
    "inference.token_share": 1,
    "optim.momentum": 1,
    "optim.lr_decay": 1,
    "optim.min_lr_share": 1,
    "train.seed": 2**63 - 1,  # the largest of torch's generators
}


def check_ranges(config: Config) -> None:
    """Checks every number of an experiment; those of the model are checked by the model.

    Raises:
        UserError: one is out of range, or of no effect; the message names the option.
    """
    _check_meaning(config)
    for option in (*AT_LEAST, *ABOVE, *AT_MOST):
        section, name = option.split(".")
        value = getattr(getattr(config, section), name)
        if value is not None and (wrong := _wrong(option, value)):
            raise UserError(f"--{option} {value}: must be {wrong}")


def _check_meaning(config: Config) -> None:
    given, defaults, read = asdict(config), asdict(Config()), options_read(config)
    for section, options in given.items():
        for name, value in options.items():
            if name not in read.get(section, ()) and value != defaults[section][name]:
                raise UserError(
                    f"--{section}.{name} has no meaning where --data.kind is {config.data.kind}: "
                    "leave it out"
                )


def _wrong(option: str, value: Any) -> str | None:
    if not math.isfinite(value):
        return "a finite number"
    if option in AT_LEAST and value < AT_LEAST[option]:
        return f"at least {AT_LEAST[option]}"
    if option in ABOVE and value <= ABOVE[option]:
        return f"above {ABOVE[option]}"
    if option in AT_MOST and value > AT_MOST[option]:
        return f"at most {AT_MOST[option]}"
    return None
