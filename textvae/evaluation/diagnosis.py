"""What to try against posterior collapse, training that runs away and refinement that
overshoots, given what an experiment does already."""

from __future__ import annotations

from textvae.config.experiment import Config
from textvae.config.inference import Inference


def remedies(config: Config) -> str:
    """Options to set, separated by commas; none of them is what the config has already."""
    model, objective = config.model, config.objective
    tried = []
    if model.injection != "skip":
        tried.append("model.injection=skip")
    if objective.kl_schedule == "constant":
        tried.append("objective.kl_schedule=linear")
    elif objective.kl_schedule == "linear":
        tried.append("objective.kl_schedule=cyclical")
    tried.append(f"objective.free_bits={2 * objective.free_bits or 4:g}")
    if config.data.kind == "text" and model.word_dropout == 0:
        tried.append("model.word_dropout=0.3")
    if config.inference.method == "amortised":
        tried.append("inference.method=semi_amortised")
    return ", ".join(tried)


def steadier(config: Config) -> str:
    """Options that make smaller steps, as the end of a sentence."""
    optim, inference = config.optim, config.inference
    tried = [f"--optim.lr {optim.lr / 3:.1g}"]
    if optim.name == "sgd":
        tried.append("--optim.name adam --optim.lr 0.001")
    if inference.method != "amortised":
        tried.append(f"--inference.lr {inference.lr / 3:.1g}")
        if inference.encoder == "unrolled" and not inference.max_growth:
            tried.append(f"--inference.max_growth {Inference().max_growth:g}")
    if config.train.precision != "fp32":
        tried.append("--train.precision fp32")
    return f"try {' or '.join(tried)}"


def overshoot(gap: float, config: Config) -> str:
    """What to say where refinement ends below the ELBO (nats per example) it began with."""
    return (
        f"refinement lowers the elbo by {-gap:.2f}: its steps are too long, "
        f"try --inference.lr {config.inference.lr / 3:.1g}"
    )
