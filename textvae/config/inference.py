"""Options of inference: how q(z|x) is found. Does not import torch, which would slow down help."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

from textvae.config.types import (
    ClosedUnitInterval,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    check_values,
    current_value,
)
from textvae.errors import UserError
from textvae.runs.files import read_record, write_json


@dataclass(frozen=True)
class Inference:
    """How q(z|x) is found: by the encoder, by gradient steps on the ELBO, or by both."""

    method: Literal["amortized", "svi", "semi_amortized"] = "amortized"
    """encoder only; gradient steps from the prior (no encoder); or from the encoder's output"""
    steps: PositiveInt = 20
    """gradient steps on the mean and log variance of each example"""
    lr: PositiveFloat = 1.0
    """step size of the gradient steps"""
    momentum: ClosedUnitInterval = 0.5
    """momentum of the gradient steps"""
    clip: NonNegativeFloat = 5.0
    """maximum gradient norm, for means and for log variances; 0 for no clipping"""
    clip_per: Literal["batch", "example"] = "batch"
    """what the norm is computed over"""
    loss_per: Literal["batch", "example"] = "batch"
    """loss that a step follows: mean over the batch, as in the reference code, or per example"""
    encoder: Literal["unrolled", "elbo", "kl"] = "unrolled"
    """encoder's loss: through the steps (SA-VAE), its own ELBO (VAE+SVI), or KL to the refined q"""
    hvp: Literal["difference", "exact"] = "difference"
    """Hessian-vector products of unrolled steps: finite differences, or exact double backward"""
    decoder_terms: Literal["all", "sample", "none"] = "none"
    """the decoder's gradient through the steps: all terms, one sampled term (noisy), or none"""
    max_growth: NonNegativeFloat = 3.0
    """maximum growth of an example's gradient through the unrolled steps; 0 for no limit"""
    token_share: PositiveShare = 1.0
    """fraction of tokens that a refinement step scores, resampled for every step"""

    def __post_init__(self) -> None:
        """Check every option; a misspelled one would mean another method."""
        check_values(_option_types(), vars(self), "inference.")

    @property
    def encoder_has_objective(self) -> bool:
        """Whether the encoder learns from the whole objective, with all that is added to it."""
        unrolled = self.method == "semi_amortized" and self.encoder == "unrolled"
        return self.method == "amortized" or unrolled

    def save(self, path: Path) -> None:
        """Write the options as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Inference:
        """Read what ``save`` wrote.

        Raises:
            UserError: The file is missing or broken, or an option is unknown or out of range.
        """
        if not path.exists():
            raise UserError(f"{path} is missing: it says how q(z|x) is found; restore it")
        found, types = read_record(path), _option_types()
        record = {k: current_value(f"inference.{k}", value) for k, value in found.items()}
        if foreign := [name for name in record if name not in types]:
            raise UserError(f"{path}: this release of textvae does not know {foreign[0]!r}")
        check_values(types, record, f"{path}: ")
        return cls(**record)


@cache
def _option_types() -> dict[str, Any]:
    return get_type_hints(Inference)


AMORTIZED = Inference()


def for_evaluation(options: Inference, batch_size: int) -> Inference:
    """Return options for the same steps on each example, so that no result depends on the batch.

    A step on the mean loss of ``batch_size`` examples equals a step on the loss of each example
    with ``lr / batch_size``. The clipping threshold is scaled to match: the norm of a batch of
    gradients of equal length is sqrt(``batch_size``) times that of each.

    Args:
        options: The options of training.
        batch_size: The batch size of training.
    """
    share = batch_size if options.loss_per == "batch" else 1
    length = math.sqrt(batch_size) if options.clip_per == "batch" else 1
    return replace(
        options,
        lr=options.lr / share,
        clip=options.clip * share / length,
        clip_per="example",
        loss_per="example",
        token_share=1.0,
    )


DEFAULT_INFERENCE = for_evaluation(Inference(), batch_size=32)


def with_steps(options: Inference, steps: int | None, has_encoder: bool) -> Inference:
    """Return the same options with a different number of steps.

    Args:
        options: The options.
        steps: The number of steps; 0 uses only the encoder, None changes nothing.
        has_encoder: Whether the model has an encoder.

    Raises:
        ValueError: The number is negative, or 0 without an encoder.
    """
    if steps is None:
        return options
    if steps < 0 or (steps == 0 and not has_encoder):
        raise ValueError(f"must be at least {0 if has_encoder else 1}")
    if steps == 0:
        return replace(options, method="amortized")
    return replace(options, method="semi_amortized" if has_encoder else "svi", steps=steps)
