"""Advice while a model is trained: against diverging training, and refinement that overshoots.

Each function takes into account what an experiment already does, and names only options that apply
to its kind of data. What helps a trained model is in ``textvae.evaluation.diagnosis.remedies``.
"""

from __future__ import annotations

from collections.abc import Iterable

from textvae.config.experiment import Config, OptimConfig, options_read
from textvae.config.inference import Inference
from textvae.evaluation.metrics.metric import decimals


def steadier(config: Config) -> str:
    """Return options that make training more stable, for the end of a message."""
    optim, inference = config.optim, config.inference
    options = [f"--optim.lr {min(optim.lr / 3, OptimConfig().lr):.1g}"]
    if optim.name == "sgd":
        options.append("--optim.name adam --optim.lr 0.001")
    if inference.method != "amortized":
        options.append(f"--inference.lr {inference.lr / 3:.1g}")
        if inference.encoder == "unrolled" and not inference.max_growth:
            options.append(f"--inference.max_growth {Inference().max_growth:g}")
    if config.train.precision != "fp32":
        options.append("--train.precision fp32")
    return f"try {_one_of(options, config)}"


def overshoot(gap: float, config: Config) -> str:
    """Say that refinement ends below the ELBO it started from, and what to try.

    Args:
        gap: What refinement adds to the ELBO, in nats per example; negative.
        config: The experiment.
    """
    return (
        f"refinement lowers the ELBO by {decimals(-gap)} nats: its steps are too long; "
        f"try --inference.lr {config.inference.lr / 3:.1g}"
    )


def _one_of(options: Iterable[str], config: Config) -> str:
    """Join the options that apply to the experiment's kind of data with "or"."""
    known = {
        f"--{section}.{name}" for section, names in options_read(config).items() for name in names
    }
    return " or ".join(option for option in options if option.split()[0] in known)
