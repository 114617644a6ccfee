"""How far the training of a model got: what a verdict must take into account."""

from __future__ import annotations

from typing import NamedTuple

from textvae.evaluation.metrics.metric import decimals

# Share of the ELBO gained in the last epoch; a converged run gains a thousandth or less
# (recipes/ptb/RESULTS.md: 0.04 of 105 nats).
RISING = 0.01
# Share of the final KL weight from which on it counts as reached: an evaluation at the very end of
# warm-up has seen an update with a weight just below it.
REACHED = 0.99


class Training(NamedTuple):
    """How far the training of the model got.

    Attributes:
        finished: Whether the run is finished.
        epoch: When the model was saved; None if it is not recorded.
        beta: KL weight at that time; None if it is not recorded.
        final_beta: KL weight after warm-up.
        gain: Nats that what models are selected by (``textvae.evaluation.goal``), usually the
            ELBO, gained per epoch on the validation split in the last epoch before the model was
            saved; None if there was only one evaluation, or if it fell afterward.
        elbo: The validation ELBO of the model.
        goal: What models are selected by, as a message names it.
    """

    finished: bool
    epoch: float | None
    beta: float | None
    final_beta: float
    gain: float | None
    elbo: float | None
    goal: str = "ELBO"

    @property
    def only_autoencoded(self) -> bool:
        """Whether the KL never counted, although it was going to."""
        return self.beta == 0 < self.final_beta


def too_early(epoch: float, beta: float, final_beta: float) -> bool:
    """Return whether it is too early to call a model collapsed: its encoder has barely learned."""
    return epoch <= 1 and beta < REACHED * final_beta


def why_too_early(training: Training) -> str | None:
    """Say why it is too early to tell whether z is used; None if it is not too early."""
    epoch, beta = training.epoch, training.beta
    if epoch is None or beta is None or not too_early(epoch, beta, training.final_beta):
        return None
    return (
        f"too early to tell whether z is used: the model is from epoch {epoch:g}, with a KL weight "
        f"of {decimals(beta)}"
    )


def why_under_trained(training: Training) -> str | None:
    """Say why the training should go on; None if nothing shows that it should."""
    if not training.finished:
        at = "" if training.epoch is None else f": the model is from epoch {training.epoch:g}"
        return f"training is not finished{at}"
    if training.only_autoencoded:
        return "training ended before the KL counted: the model has only been an autoencoder"
    if training.gain is None or not training.elbo:
        return None
    share = training.gain / abs(training.elbo)
    if share <= RISING:
        return None
    return (
        f"training ended while {_named(training.goal)} was still rising: by "
        f"{decimals(training.gain)} nats ({share:.1%}) in the last epoch"
    )


def _named(goal: str) -> str:
    return "the ELBO" if goal == "ELBO" else f"the selection criterion ({goal})"
