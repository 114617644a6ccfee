"""Advice: against posterior collapse, diverging training, and refinement that overshoots.

Each function takes into account what an experiment already does, and names only options that apply
to its kind of data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from textvae.config.experiment import Config, options_read
from textvae.config.inference import Inference
from textvae.evaluation.metrics import decimals

UNUSED = 0.1  # nats: a latent variable with a KL or a shuffle gap below this is not used
GENERAL_REMEDIES = "skip connections from z into the decoder, KL annealing, free bits"


def verdict(card: Mapping[str, Any], remedies: str = GENERAL_REMEDIES) -> str | None:
    """Say whether a model ignores its latent variable, and what to try.

    Args:
        card: Its metrics card.
        remedies: What to try.

    Returns:
        One sentence; None if z is used, or if there is no z.
    """
    if not card["latent_dim"]:
        return None
    active = card.get("encoder_au")
    active = card["au"] if active is None else active
    facts = f"KL {decimals(card['kl'])}, {active} of {card['latent_dim']} dimensions active"
    if card["kl"] < UNUSED or active == 0:
        return f"posterior collapse: the decoder ignores z ({facts}); try {remedies}"
    gap = card.get("shuffle_gap")
    if gap is not None and gap < UNUSED:
        return (
            f"the decoder ignores z, although z carries information ({facts}): replacing z by that "
            f"of another example costs only {decimals(gap)} nats; try {remedies}"
        )
    return None


def remedies(config: Config) -> str:
    """Return remedies for posterior collapse that an experiment has not tried yet."""
    model, objective = config.model, config.objective
    options = []
    if model.injection != "skip":
        options.append("--model.injection skip")
    if objective.kl_schedule == "constant":
        options.append("--objective.kl_schedule linear")
    elif objective.kl_schedule != "cyclical":
        options.append("--objective.kl_schedule cyclical")
    options.append(f"--objective.free_bits {2 * objective.free_bits or 4:g}")
    if model.word_dropout == 0:
        options.append("--model.word_dropout 0.3")
    if config.inference.method == "amortised":
        options.append("--inference.method semi_amortised")
    return f"{_one_of(options, config)} (see recipes/methods)"


def steadier(config: Config) -> str:
    """Return options that make training more stable, for the end of a message."""
    optim, inference = config.optim, config.inference
    options = [f"--optim.lr {optim.lr / 3:.1g}"]
    if optim.name == "sgd":
        options.append("--optim.name adam --optim.lr 0.001")
    if inference.method != "amortised":
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
