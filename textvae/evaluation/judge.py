"""What the figures of a latent variable mean: the one place that judges.

A figure counts as below a threshold if its whole interval is, and as above it likewise. If the
interval covers the threshold, there are too few examples to tell, and there is no verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from textvae.evaluation.intervals import Interval
from textvae.evaluation.metrics import decimals
from textvae.evaluation.symptoms import READ_SHARE, Symptoms

HEALTHY, UNDER_TRAINED, HOLES = "healthy", "under-trained", "holes"
PARTIAL, UNREAD, OVER_REFINED = "partly collapsed", "unread", "over-refined"
COLLAPSED, UNCLEAR = "collapsed", "too few examples to tell"
# From good to bad; a model with several of them has the verdict of the worst one.
SEVERITY = (HEALTHY, UNDER_TRAINED, HOLES, PARTIAL, UNREAD, OVER_REFINED, COLLAPSED)

# Nats per example. The latent variables of trained text VAEs carry either a few hundredths of a nat
# or more than half a nat (recipes/toy/REMEDIES.md, recipes/ptb/RESULTS.md).
UNUSED = 0.1
# Nats per example that one dimension is worth to the decoder; one that it reads is worth more.
UNREAD_DIMENSION = 0.01
# Share of dead dimensions. VAEs leave out dimensions that they do not need (Burda et al. 2016), and
# one in ten is no reason to train again.
DEAD_SHARE = 0.1
# Share of the prior's draws in holes: 0.01 without any. From a tenth on, it shows in samples.
HOLE_SHARE = 0.1
# Nats per example that refinement loses after its best step; its own noise is smaller.
OVERSHOOT = 0.1
# Share of the ELBO gained in the last epoch; a converged run gains a thousandth or less.
RISING = 0.01
# Resamples of fewer different examples say nothing about others.
MIN_EXAMPLES = 10


class Finding(NamedTuple):
    """Something that is wrong with a model, or that nothing is."""

    verdict: str
    summary: str


class Training(NamedTuple):
    """How far the training of the model got.

    Attributes:
        finished: Whether the run is finished.
        epoch: When the model was saved; None if it is not recorded.
        beta: KL weight at that time; None if it is not recorded.
        final_beta: KL weight after warm-up.
        gain: Nats of validation ELBO gained per epoch in the last epoch before the model was
            saved; None if there was only one evaluation, or the ELBO fell afterward.
        elbo: The validation ELBO of the model.
    """

    finished: bool
    epoch: float | None
    beta: float | None
    final_beta: float
    gain: float | None
    elbo: float | None


def judge(symptoms: Symptoms, training: Training | None = None) -> list[Finding]:
    """Find what is wrong with a model.

    Args:
        symptoms: Its figures; those that were not measured are not judged.
        training: How far its training got, if that is known.

    Returns:
        All findings, the worst first: the verdict is the first one's.
    """
    if symptoms.distinct < MIN_EXAMPLES:
        return [Finding(UNCLEAR, _few(symptoms))]
    tests: dict[str, Callable[[Symptoms], tuple[bool | None, str]]] = {
        COLLAPSED: _is_collapsed,
        OVER_REFINED: _is_over_refined,
        UNREAD: _is_unread,
        PARTIAL: _is_partly_collapsed,
        HOLES: _has_holes,
    }
    found = []
    for verdict, test in tests.items():
        answer, summary = test(symptoms)
        if verdict == COLLAPSED and answer and training and _is_too_early(training):
            return [Finding(UNDER_TRAINED, _early(training))]
        if answer is None:
            found.append(Finding(UNCLEAR, f"{UNCLEAR} {summary}"))
        elif answer:
            found.append(Finding(verdict, summary))
        if verdict == COLLAPSED and answer:
            break  # the rest follows from it
    if training and (summary := _is_under_trained(training)):
        found.append(Finding(UNDER_TRAINED, summary))
    return found or [Finding(HEALTHY, _fine(symptoms))]


def too_early(epoch: float, beta: float, final_beta: float) -> bool:
    """Return whether it is too early to call a model collapsed: its encoder has barely learned."""
    return epoch <= 1 and beta < final_beta


def dimension_states(symptoms: Symptoms) -> list[str]:
    """Say for every dimension whether it is alive, dead, unread, or unclear."""
    gaps = symptoms.dimension_gaps or [None] * symptoms.latent_dim
    pairs = zip(symptoms.variances, gaps, strict=True)
    return [_state(variance, gap, symptoms.au_threshold) for variance, gap in pairs]


def _state(variance: Interval, gap: Interval | None, au_threshold: float) -> str:
    still = variance.below(au_threshold)
    unread = None if gap is None else gap.below(UNREAD_DIMENSION)
    if gap is not None and unread is False:
        return "alive"  # the decoder reads it, however little it moves
    if still:
        return "dead" if gap is None or unread else "unclear"
    if still is None:
        return "unclear"
    return "unread" if unread else "alive"


def _is_collapsed(symptoms: Symptoms) -> tuple[bool | None, str]:
    kl, mi = (symptoms.before_refinement(key) for key in ("kl", "mi"))
    active = symptoms.before_refinement("au")
    facts = (
        f"KL {decimals(kl.value)} nats, MI {decimals(mi.value)} nats, {active.value:.0f} of "
        f"{symptoms.latent_dim} dimensions active"
    )
    no_kl, no_mi = kl.below(UNUSED), mi.below(UNUSED)  # the KL is at least the MI
    if no_kl or no_mi:
        return True, f"posterior collapse: {_how(symptoms, bool(no_kl))} ({facts})"
    if no_kl is None or no_mi is None:
        return None, f"whether z is used: MI {_between(mi)} nats"
    return False, ""


def _how(symptoms: Symptoms, no_kl: bool) -> str:
    if "encoder_mi" in symptoms.figures and not symptoms.figures["mi"].below(UNUSED):
        after = decimals(symptoms.figures["mi"].value)
        return f"all of the information in z, {after} nats, comes from the refinement steps"
    if no_kl:
        return "the decoder ignores z"
    return "q(z|x) left the prior, but for the same place whatever x is"


def _is_over_refined(symptoms: Symptoms) -> tuple[bool | None, str]:
    change = symptoms.figures.get("overshoot")
    if change is None:
        return False, ""
    lost = decimals(-change.value)
    summary = f"refinement goes too far: the last steps lower the ELBO by {lost} nats"
    answer = change.below(-OVERSHOOT)
    return (
        answer,
        f"whether refinement goes too far: it loses {lost} nats" if answer is None else summary,
    )


def _is_unread(symptoms: Symptoms) -> tuple[bool | None, str]:
    gap, read = symptoms.figures.get("shuffle_gap"), symptoms.figures.get("read")
    if gap is None or read is None:
        return False, ""
    mi, cost = decimals(symptoms.figures["mi"].value), decimals(gap.value)
    swap = f"replacing z by that of another example costs only {cost} nats"
    if gap.below(UNUSED):
        return True, f"the decoder ignores z, although z carries information (MI {mi} nats): {swap}"
    if read.below(0.0):
        return True, (
            f"the decoder reads less than {READ_SHARE:.0%} of what the encoder writes into z: "
            f"MI is {mi} nats, but {swap}"
        )
    if gap.below(UNUSED) is None or read.below(0.0) is None:
        return None, f"whether the decoder reads z: the shuffle gap is {_between(gap)} nats"
    return False, ""


def _is_partly_collapsed(symptoms: Symptoms) -> tuple[bool | None, str]:
    states = dimension_states(symptoms)
    dead = [d for d, state in enumerate(states) if state == "dead"]
    most = DEAD_SHARE * len(states)
    possible = len(dead) + states.count("unclear")
    if len(dead) > most:
        return True, (
            f"{len(dead)} of {len(states)} dimensions are dead ({_listed(dead)}); the others carry "
            f"{decimals(symptoms.before_refinement('mi').value)} nats of MI"
        )
    if possible > most:
        return (
            None,
            f"which dimensions are dead: between {len(dead)} and {possible} of {len(states)}",
        )
    return False, ""


def _has_holes(symptoms: Symptoms) -> tuple[bool | None, str]:
    share = symptoms.figures.get("hole_share")
    if share is None:
        return False, ""
    answer = share.below(HOLE_SHARE)
    if answer is None:
        return (
            None,
            f"whether the prior has holes: {share.low:.0%} to {share.high:.0%} of its draws",
        )
    return not answer, (
        f"{share.value:.0%} of the prior's draws fall into holes, where no example has its "
        "posterior and the decoder learned nothing"
    )


def _is_too_early(training: Training) -> bool:
    epoch, beta = training.epoch, training.beta
    return None not in (epoch, beta) and too_early(epoch or 0.0, beta or 0.0, training.final_beta)


def _is_under_trained(training: Training) -> str | None:
    if not training.finished:
        at = "" if training.epoch is None else f": the model is from epoch {training.epoch:g}"
        return f"the training is not finished{at}"
    if training.gain is None or not training.elbo:
        return None
    share = training.gain / abs(training.elbo)
    if share <= RISING:
        return None
    return (
        f"the training ended while the ELBO was still rising: by {decimals(training.gain)} nats "
        f"({share:.1%}) in the last epoch"
    )


def _early(training: Training) -> str:
    return (
        f"too early to tell whether z is used: the model is from epoch {training.epoch:g}, with a "
        f"KL weight of {decimals(training.beta or 0.0)}"
    )


def _fine(symptoms: Symptoms) -> str:
    mi, active = (symptoms.before_refinement(key) for key in ("mi", "au"))
    text = (
        f"z is used: MI {decimals(mi.value)} nats, {active.value:.0f} of {symptoms.latent_dim} "
        "dimensions active"
    )
    if gap := symptoms.figures.get("shuffle_gap"):
        text += f", shuffle gap {decimals(gap.value)} nats"
    return text


def _few(symptoms: Symptoms) -> str:
    if symptoms.distinct == symptoms.count:
        held = f"{symptoms.count} example{'s' if symptoms.count > 1 else ''}"
    else:
        held = f"{symptoms.count} examples, of which {symptoms.distinct} differ"
    return f"{UNCLEAR}: {held}, and at least {MIN_EXAMPLES} different ones are needed"


def _between(interval: Interval) -> str:
    return f"between {decimals(interval.low)} and {decimals(interval.high)}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
