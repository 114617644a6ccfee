"""How q(z|x) is found. Free of torch, so that the command line shows its help at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_type_hints

from textvae.config.types import (
    ClosedUnitInterval,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    check_values,
)
from textvae.errors import UserError
from textvae.runs.files import read_record, write_json


@dataclass(frozen=True)
class Inference:
    """Inference of z: by the encoder, by gradient steps on the ELBO, or by both in turn."""

    method: Literal["amortised", "svi", "semi_amortised"] = "amortised"
    """the encoder; steps from the prior without an encoder; steps from the encoder's output"""
    steps: PositiveInt = 20
    """gradient steps on (mean, logvar) of every sentence"""
    lr: PositiveFloat = 1.0
    """their step size"""
    momentum: ClosedUnitInterval = 0.5
    """their momentum"""
    clip: NonNegativeFloat = 5.0
    """largest norm of the gradient of the means, and of the log variances; 0 for none"""
    clip_per: Literal["batch", "example"] = "batch"
    """what that norm is taken over"""
    loss_per: Literal["batch", "example"] = "batch"
    """whether a step follows the mean loss of its batch, as the references do, or each own loss"""
    encoder: Literal["unrolled", "elbo", "kl"] = "unrolled"
    """learns through the steps (SA-VAE), by its own ELBO (VAE+SVI), or the KL to the refined q"""
    hvp: Literal["difference", "exact"] = "difference"
    """Hessian-vector products of unrolled steps: by finite differences, or by double backward"""
    decoder_terms: Literal["all", "sample", "none"] = "none"
    """the decoder's gradient through the steps: every term, one drawn (noisy), or none of them"""
    max_growth: NonNegativeFloat = 3.0
    """most that unrolled steps may lengthen a sentence's gradient on its way back; 0 for any"""
    token_share: PositiveShare = 1.0
    """share of the time steps whose softmax a step computes, drawn anew for every step"""

    def save(self, path: Path) -> None:
        """Writes the options as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Inference:
        """Reads what ``save`` wrote; the defaults if there is no such file.

        Raises:
            UserError: The file is broken, or an option is unknown or out of range.
        """
        if not path.exists():
            return DEFAULT_INFERENCE
        record, types = read_record(path), get_type_hints(cls)
        if foreign := [name for name in record if name not in types]:
            raise UserError(f"{path}: this release of textvae does not know {foreign[0]!r}")
        check_values(types, record, f"{path}: ")
        return cls(**record)


AMORTIZED = Inference()


def for_evaluation(options: Inference, batch_size: int) -> Inference:
    """The same steps for each example by itself, so that no result depends on its batch.

    A step on the mean loss of ``batch_size`` examples is one on each own loss with ``lr /
    batch_size``; the clipping moves to where an example alone would meet it.

    Args:
        batch_size: that of the training.
    """
    share = batch_size if options.loss_per == "batch" else 1
    return replace(
        options,
        lr=options.lr / share,
        clip=options.clip * share,
        clip_per="example",
        loss_per="example",
        token_share=1.0,
    )


DEFAULT_INFERENCE = for_evaluation(Inference(), batch_size=32)


def with_steps(options: Inference, steps: int | None, has_encoder: bool) -> Inference:
    """The same with another number of steps: None leaves it, 0 is the encoder alone.

    Raises:
        ValueError: 0 steps without an encoder, or fewer.
    """
    if steps is None:
        return options
    if steps < 0 or (steps == 0 and not has_encoder):
        raise ValueError(f"{steps} refinement steps: at least {0 if has_encoder else 1}")
    if steps == 0:
        return replace(options, method="amortised")
    return replace(options, method="semi_amortised" if has_encoder else "svi", steps=steps)
