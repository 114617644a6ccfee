"""How well scores tell the examples of one class from the rest: anomaly detection.

A score is used in the direction in which an anomaly is expected: a low bound on log p(x), but a
high perplexity, KL, or likelihood regret. AUROC is the probability that an example of the class has
a more anomalous score than one of the rest (ties count half); below 0.5, the opposite direction
works better. Its standard error is that of DeLong et al. 1988. The average precision of scores
without information is the share of the class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from textvae.errors import UserError, quantity
from textvae.evaluation.labels import find_label, label_names
from textvae.evaluation.metrics.metric import decimals
from textvae.evaluation.metrics.table import BY_KEY
from textvae.evaluation.printed import Printed
from textvae.vae.batch import Split

# Scores that are low for an anomaly; the others are high. The length is there for comparison:
# where it alone tells the classes apart, a likelihood that does so shows little.
LOW = ("elbo", "iw", "rec")
COUNTS = ("units", "tokens")
HIGH = ("ppl_iw", "bits_per_byte_iw", "bits_per_dim_iw", "kl", "regret", *COUNTS)
DIGITS = 3


class Detection(Printed, dict[str, Any]):
    """AUROC and average precision of each score by key; ``print`` shows them as a table."""

    def __str__(self) -> str:
        """Return the table."""
        count = self["positives"] + self["negatives"]
        among = f"{self['positives']} of {quantity(count, 'example')}"
        lines = [
            f"{self['positive']} ({among}) against the rest",
            "",
            f"{'anomalous if':<22}{'AUROC':>15}{'average precision':>20}",
        ]
        for key, found in self["scores"].items():
            how = "many" if key in COUNTS else found["direction"]
            name = f"{how} {BY_KEY[key].header}"
            auroc = decimals(found["auroc"], DIGITS)
            if found["auroc_se"] is not None:
                auroc += f" ± {decimals(found['auroc_se'], DIGITS)}"
            precision = decimals(found["average_precision"], DIGITS)
            lines.append(f"{name:<22}{auroc:>15}{precision:>20}")
        chance = decimals(self["positives"] / count, DIGITS)
        return "\n".join([*lines, f"{'(chance)':<22}{decimals(0.5, DIGITS):>15}{chance:>20}"])


def detect(rows: Iterable[Mapping[str, Any]], positive: str) -> Detection:
    """Measure how well each score tells the examples with one label from the others.

    Args:
        rows: Scored examples, as ``textvae.score_file`` gives them; those without a label are left
            out.
        positive: The label of the anomalies.

    Returns:
        The label (``positive``), the numbers of examples with it and with other labels
        (``positives``, ``negatives``), and ``scores``: for each key of a score, its ``direction``
        (low or high), ``auroc``, ``auroc_se``, and ``average_precision``.

    Raises:
        UserError: All examples have the label, or none; or a score is not a number.
    """
    rows = list(rows)
    if wrong := [row for row in rows if not isinstance(row, Mapping)]:
        raise TypeError(f"rows must be mappings, as textvae.score_file gives, not {wrong[0]!r:.50}")
    labeled = [row for row in rows if row.get("label") is not None]
    anomalous = np.array([row["label"] == positive for row in labeled], dtype=bool)
    positives, negatives = int(anomalous.sum()), int((~anomalous).sum())
    if not positives or not negatives:
        raise UserError(
            f"{quantity(positives, 'example')} with the label {positive!r} and {negatives} with "
            "another one: both kinds are needed"
        )
    scores = {}
    for key in (key for key in (*LOW, *HIGH) if key in labeled[0]):
        values = np.array([row[key] for row in labeled], dtype=float)
        if np.isnan(values).any():
            raise UserError(f"the {BY_KEY[key].header} of some examples is not a number")
        scores[key] = _measured(-values if key in LOW else values, anomalous)
        scores[key]["direction"] = "low" if key in LOW else "high"
    counts = {"positives": positives, "negatives": negatives}
    return Detection(positive=positive, **counts, scores=scores)


def _measured(anomaly: np.ndarray, positive: np.ndarray) -> dict[str, Any]:
    """Measure a score (N,) that is high for an anomaly."""
    from scipy.stats import rankdata
    from sklearn.metrics import average_precision_score, roc_auc_score

    ranks = rankdata(anomaly)  # which sklearn accepts where scores are infinite
    return {
        "auroc": float(roc_auc_score(positive, ranks)),
        "auroc_se": _auroc_error(ranks, positive),
        "average_precision": float(average_precision_score(positive, ranks)),
    }


def _auroc_error(ranks: np.ndarray, positive: np.ndarray) -> float | None:
    """Return the standard error of the AUROC (DeLong et al. 1988).

    None for a class of one, and if it would be 0: with classes that a few examples separate
    perfectly, or scores that are all the same, the estimate says nothing.

    The AUROC is the mean over the examples of one class of the share of the other class that has a
    lower score. Its variance is that of these shares, divided by the number of examples, summed
    over both classes.
    """
    from scipy.stats import rankdata

    variance = 0.0
    for members in (positive, ~positive):
        count, others = int(members.sum()), int((~members).sum())
        if count < 2:
            return None
        shares = (ranks[members] - rankdata(ranks[members])) / others
        variance += float(shares.var(ddof=1)) / count
    return math.sqrt(variance) or None


def positive_label(split: Split, label: str | int | None = None) -> str:
    """Return the name of the label of the anomalies.

    Args:
        split: Labeled examples.
        label: Its name or number; None: the second of two labels.

    Raises:
        UserError: There are no labels, there is no such label, all examples have the same one, or
            there are more than two and none was chosen.
    """
    names = label_names(split)
    if label is not None:
        return names[find_label(split, label)]
    assert split.labels is not None
    present = [names[number] for number in np.unique(split.labels) if number >= 0]
    if len(present) < 2:
        raise UserError(f"all examples have the label {present[0]!r}: there is no other to compare")
    if len(present) > 2:
        raise UserError(f"choose the label of the anomalies with --positive: {', '.join(present)}")
    return present[1]
