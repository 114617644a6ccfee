"""How q(z|x) is found. Free of torch, so that the command line shows its help at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints


@dataclass(frozen=True)
class Inference:
    """Inference of z: by the encoder, by gradient steps on the ELBO, or by both in turn."""

    method: Literal["amortised", "svi", "semi_amortised"] = "amortised"
    """the encoder; steps from the prior without an encoder; steps from the encoder's output"""
    steps: int = 20
    """gradient steps on (mean, logvar) of every sentence"""
    lr: float = 1.0
    """their step size"""
    momentum: float = 0.5
    """their momentum"""
    clip: float = 5.0
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
    max_growth: float = 3.0
    """most that unrolled steps may lengthen a sentence's gradient on its way back; 0 for any"""
    token_share: float = 1.0
    """share of the time steps whose softmax a step computes, drawn anew for every step"""


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


def from_record(record: Mapping[str, Any]) -> Inference:
    """The options out of a file, where anything may stand.

    Raises:
        ValueError, TypeError: an unknown name, or a value of the wrong kind.
    """
    options, kinds = Inference(**record), get_type_hints(Inference)
    for name in (field.name for field in fields(Inference)):
        value, choices = getattr(options, name), get_args(kinds[name])
        if choices:
            fits = value in choices
        else:
            whole = kinds[name] is int
            fits = type(value) in ((int,) if whole else (int, float)) and 0 <= value < math.inf
        if not fits:
            raise ValueError(f"{name} is {value!r}")
    return options
