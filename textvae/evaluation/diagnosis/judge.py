"""What the metrics of a latent variable mean: the one place that judges.

A metric counts as below a threshold if its whole interval is, and as above it likewise. If the
interval covers the threshold, there are too few examples to tell, unless the interval is narrow:
then the metric is close to the threshold, however many examples there are. What is certain comes
before what is unclear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from textvae.errors import quantity
from textvae.evaluation.diagnosis.training_state import (
    Training,
    why_too_early,
    why_under_trained,
)
from textvae.evaluation.intervals import Interval
from textvae.evaluation.metrics.metric import decimals
from textvae.evaluation.symptoms import READ_SHARE, Symptoms

HEALTHY, UNDER_TRAINED, HOLES = "healthy", "under-trained", "holes"
PARTIAL, UNREAD, OVER_REFINED = "partly collapsed", "unread", "over-refined"
COLLAPSED, UNCLEAR = "collapsed", "too few examples to tell"
# From good to bad; a model with several of them has the verdict of the worst one.
SEVERITY = (HEALTHY, UNDER_TRAINED, HOLES, PARTIAL, UNREAD, OVER_REFINED, COLLAPSED)
_OF_USE = (COLLAPSED, UNREAD)  # whether z is used at all

# Nats per example: z then changes the probability of an example by about a tenth.
UNUSED = 0.1
# Nats per example that one dimension is worth to the decoder: a tenth of what z has to be.
UNREAD_DIMENSION = 0.01
# Share of dead dimensions. VAEs leave out dimensions that they do not need (Burda et al. 2016), and
# one in ten is no reason to train again.
DEAD_SHARE = 0.1
# Share of the prior's draws in holes, 0.01 without any: one sample in ten starts from a place where
# the decoder learned nothing.
HOLE_SHARE = 0.1
# Nats per example that refinement loses after its best step, or UNUSED compared with the encoder.
# It adds 0.3 to 1 where it helps (recipes/ptb/RESULTS.md), and the best step owes a part to luck.
OVERSHOOT = 0.5
# Nats between the MI and its upper bound; beyond this, the MI is reported as a minimum.
WIDE = 0.5
# Resamples of fewer different examples say little about others.
MIN_EXAMPLES = 10

# Whether something is wrong (None: too few examples to tell), and what to say in both cases.
Test = Callable[[Symptoms], tuple[bool | None, str]]


class Finding(NamedTuple):
    """Something that is wrong with a model, or that nothing is.

    Attributes:
        verdict: What is wrong.
        summary: One sentence.
        about: The same as ``verdict``; if that is unclear, what may be wrong.
    """

    verdict: str
    summary: str
    about: str


def judge(symptoms: Symptoms, training: Training | None = None) -> list[Finding]:
    """Find what is wrong with a model.

    Args:
        symptoms: Its metrics; those that were not measured are not judged.
        training: How far its training got, if that is known.

    Returns:
        All findings, those that are certain before the others, and the worst of each first. The
        verdict is the first one's.
    """
    found = _answers(symptoms, _TESTS)
    rising = None if training is None else why_under_trained(training)
    further = [] if rising is None else [Finding(UNDER_TRAINED, rising, UNDER_TRAINED)]
    if found and found[0].verdict == COLLAPSED:
        return _of_collapsed(found, further, training)
    if further and training is not None and training.only_autoencoded:
        return further  # the rest follows from it
    found = _certain_first([*found, *further])
    if not found:
        return [Finding(HEALTHY, _fine(symptoms), HEALTHY)]
    first = found[0]
    if first.verdict in (UNDER_TRAINED, UNCLEAR) and not any(f.about in _OF_USE for f in found):
        found[0] = first._replace(summary=f"{_fine(symptoms)}; but {first.summary}")
    return found


def _certain_first(found: list[Finding]) -> list[Finding]:
    return sorted(found, key=lambda finding: finding.verdict == UNCLEAR)


def judge_use(symptoms: Symptoms, training: Training | None = None) -> list[Finding]:
    """Find out whether z is used at all: whether it is encoded, and whether it is read.

    Args:
        symptoms: The metrics of a model.
        training: How far its training got, if that is known.

    Returns:
        Why it is not, or that it is too early or that there are too few examples to tell; empty if
        it is used.
    """
    found = _answers(symptoms, {name: _TESTS[name] for name in _OF_USE})
    if found and found[0].verdict == COLLAPSED:
        return _of_collapsed(found, [], training)
    return _certain_first(found)


def _of_collapsed(
    found: list[Finding], further: list[Finding], training: Training | None
) -> list[Finding]:
    """Return what counts if a model is collapsed, unless it is too early to call it that.

    All other findings follow from the collapse, except that training should go on (``further``). If
    it is too early, only refinement steps that are too long count as well.
    """
    early = None if training is None else why_too_early(training)
    if early is None:
        return [*found[:1], *further]
    others = [finding for finding in found if finding.verdict == OVER_REFINED]
    return [*others, Finding(UNDER_TRAINED, early, COLLAPSED)]


def _answers(symptoms: Symptoms, tests: Mapping[str, Test]) -> list[Finding]:
    if too_few(symptoms):
        return [Finding(UNCLEAR, _few(symptoms), COLLAPSED)]
    if not math.isfinite(symptoms.figures["elbo"].value):
        return []  # training has failed, which is not for this module to say
    found = []
    for verdict, test in tests.items():
        answer, summary = test(symptoms)
        if answer is None:
            found.append(Finding(UNCLEAR, f"it is unclear {summary}", verdict))
        elif answer:
            found.append(Finding(verdict, summary, verdict))
    return found


def too_few(symptoms: Symptoms) -> bool:
    """Return whether there are too few different examples for any statement, or any interval."""
    return symptoms.distinct < MIN_EXAMPLES


def dimension_states(symptoms: Symptoms) -> list[str]:
    """Say for every dimension whether it is alive, dead, unread, or unclear."""
    if too_few(symptoms):
        return ["unclear"] * symptoms.latent_dim
    gaps: Sequence[Interval | None] = symptoms.dimension_gaps or [None] * symptoms.latent_dim
    pairs = zip(symptoms.variances, gaps, strict=True)
    return [_state(variance, gap, symptoms.au_threshold) for variance, gap in pairs]


def _state(variance: Interval, gap: Interval | None, au_threshold: float) -> str:
    unread = None if gap is None else gap.below(UNREAD_DIMENSION)
    if unread is False:
        return "alive"  # the decoder reads it, however little it moves
    match variance.below(au_threshold):
        case True:
            return "dead"
        case False:
            return "unread" if unread else "alive"
    return "unclear"


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
    return "q(z|x) moved away from the prior, to the same place for every x"


def _is_over_refined(symptoms: Symptoms) -> tuple[bool | None, str]:
    change, gap = symptoms.figures.get("overshoot"), symptoms.figures.get("gap")
    if change is None:
        return False, ""
    lost = decimals(-change.value)
    answer = change.below(-OVERSHOOT)
    if answer or (gap is not None and gap.below(-UNUSED)):
        return True, f"refinement goes too far: the ELBO ends {lost} nats below its best step"
    return answer, f"whether refinement goes too far: it loses {lost} nats after its best step"


def _is_unread(symptoms: Symptoms) -> tuple[bool | None, str]:
    gap, read = symptoms.figures.get("shuffle_gap"), symptoms.figures.get("read")
    if gap is None or read is None or symptoms.figures["mi"].below(UNUSED) is not False:
        return False, ""  # what is not in z cannot be read; whether it is in z is another test
    mi, cost = decimals(symptoms.figures["mi"].value), decimals(gap.value)
    swap = f"replacing z with that of another example costs only {cost} nats"
    if gap.below(UNUSED):
        return True, f"the decoder ignores z, although z carries information (MI {mi} nats): {swap}"
    little = read.below(0.0, margin=READ_SHARE / 2 * symptoms.figures["mi"].value)
    if little:
        return True, (
            f"the decoder reads less than {READ_SHARE:.0%} of what the encoder writes into z: "
            f"MI is {mi} nats, but {swap}"
        )
    if gap.below(UNUSED) is None or little is None:
        return None, f"whether the decoder reads z: the shuffle gap is {_between(gap)} nats"
    return False, ""


def _is_partly_collapsed(symptoms: Symptoms) -> tuple[bool | None, str]:
    states = dimension_states(symptoms)
    dead = [d for d, state in enumerate(states) if state == "dead"]
    most = DEAD_SHARE * len(states)
    possible = len(dead) + states.count("unclear")
    if len(dead) > most:
        if len(dead) == len(states):
            return True, f"all {len(states)} dimensions are dead"
        verb = "is" if len(dead) == 1 else "are"
        numbers = ", ".join(map(str, dead))
        return True, (
            f"{len(dead)} of {len(states)} dimensions {verb} dead ({numbers}); the others carry "
            f"an MI of {_information(symptoms)} nats"
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
        f"{share.value:.0%} of the prior's draws fall into holes: regions that the posteriors of "
        "the examples hardly cover, so the decoder was hardly trained there"
    )


# The worst first.
_TESTS: dict[str, Test] = {
    COLLAPSED: _is_collapsed,
    OVER_REFINED: _is_over_refined,
    UNREAD: _is_unread,
    PARTIAL: _is_partly_collapsed,
    HOLES: _has_holes,
}


def _fine(symptoms: Symptoms) -> str:
    active = symptoms.before_refinement("au").value
    text = (
        f"z is used: MI {_information(symptoms)} nats, {active:.0f} of {symptoms.latent_dim} "
        "dimensions active"
    )
    if gap := symptoms.figures.get("shuffle_gap"):
        text += f", shuffle gap {decimals(gap.value)} nats"
    if gain := symptoms.figures.get("elbo_gain"):
        side = "below" if gain.value < 0 else "above"
        text += f"; its ELBO is {decimals(abs(gain.value))} nats {side} that of the language model"
    return text


def _information(symptoms: Symptoms) -> str:
    """Return the MI; "at least" if these examples may show only a part of it."""
    mi, upper = (symptoms.before_refinement(key).value for key in ("mi", "mi_upper"))
    return f"{'at least ' if upper - mi > WIDE else ''}{decimals(mi)}"


def _few(symptoms: Symptoms) -> str:
    if symptoms.distinct == symptoms.count:
        held = quantity(symptoms.count, "example")
    elif symptoms.distinct == 1:
        held = f"{symptoms.count:,} examples that are all the same"
    else:
        held = f"{symptoms.count:,} examples, only {symptoms.distinct} of them different"
    return f"{held}: at least {MIN_EXAMPLES} different ones are needed to tell whether z is used"


def _between(interval: Interval) -> str:
    return f"between {decimals(interval.low)} and {decimals(interval.high)}"
