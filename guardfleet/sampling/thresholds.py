"""Where to cut a detector's score, by labelled texts: the threshold that keeps to a false-positive rate, and what it then finds.

Scores are arrays, NaN for a text that has none (too short, or an error). Such a text counts as wrong wherever that is possible: as
missed among positives, and on the wrong side in the AUROC. A threshold is chosen by the negatives that have a score, since no
threshold flags the others; how many these are has to be said beside it.
"""

import math
from dataclasses import dataclass

import numpy as np

from guardfleet.sampling.estimates import Estimate, share_of
from guardfleet.sampling.population import Numbers

DIGITS = 6  # of a score as policies compare it
FEWEST = 3  # digits of a threshold, if so many tell the texts apart
TELLING = 3.0  # expected false positives: if there are none among 3/rate texts, the rate is below with 95 % (rule of three)


@dataclass(frozen=True)
class Cut:
    """A false-positive rate that was asked for, and what keeps to it.

    `threshold`: None if no number up to 1 does. `negatives`, `positives`: texts with a score, and all. `false_positive_rate`: of
    the former, `true_positive_rate`: of the latter, each with its 95 % interval; None without texts, or without a threshold.
    """

    rate: float
    threshold: float | None
    negatives: int
    positives: int
    false_positive_rate: Estimate | None
    true_positive_rate: Estimate | None

    @property
    def is_telling(self) -> bool:
        """Whether there were enough negatives to say anything of such a rate."""
        return self.negatives >= needed(self.rate)


def needed(rate: float) -> int:
    """Return how many negatives a false-positive rate takes to be told from a greater one."""
    return math.ceil(round(TELLING / rate, 6))


def threshold_at(negatives: Numbers, rate: float) -> float | None:
    """Return a threshold that at most this share of the negatives' scores reaches: as many of them as can.

    Of the numbers that flag these it has the fewest digits, `FEWEST` or more. None without a score, or if more than this share of
    them is 1. Raises ValueError for a rate not between 0 and 1.
    """
    if not 0 < rate < 1:
        raise ValueError(f"a false-positive rate of {rate:g} is not between 0 and 1")
    scores = np.sort(_shown(negatives[~np.isnan(negatives)]))[::-1]
    if not len(scores):
        return None
    allowed = math.floor(round(rate * len(scores), 9))
    least = round(float(scores[allowed]) + 10**-DIGITS, DIGITS)
    if least > 1:
        return None
    flagged = scores[:allowed][scores[:allowed] >= least]
    return _shortest(least, float(flagged[-1]) if len(flagged) else (least + 1) / 2)


def written(threshold: float) -> str:
    """Return a threshold as people and YAML read it, without an exponent."""
    return f"{threshold:.{DIGITS}f}".rstrip("0").rstrip(".")


def cut_at(threshold: float | None, rate: float, positives: Numbers, negatives: Numbers) -> Cut:
    """Return what a threshold, chosen for this rate, does with these texts."""
    scored = negatives[~np.isnan(negatives)]
    false_rate = true_rate = None
    if threshold is not None:
        false_rate, true_rate = (share_of(reaching(group, threshold), len(group)) for group in (scored, positives))
    return Cut(rate, threshold, len(scored), len(positives), false_rate, true_rate)


def reaching(scores: Numbers, threshold: float) -> int:
    """Return how many scores are at least the threshold, as a policy compares them."""
    return int(np.count_nonzero(_shown(scores) >= threshold))


def auroc(positives: Numbers, negatives: Numbers) -> float | None:
    """Return the chance that a positive's score is above a negative's, ties being half; None if a group is empty.

    A positive without a score is below all, a negative without one above all.
    """
    if not len(positives) or not len(negatives):
        return None
    low = np.nan_to_num(positives, nan=-np.inf, neginf=-np.inf, posinf=np.inf)
    high = np.sort(np.nan_to_num(negatives, nan=np.inf, neginf=-np.inf, posinf=np.inf))
    below, up_to = np.searchsorted(high, low, "left"), np.searchsorted(high, low, "right")
    return float((below + up_to).sum()) / (2 * len(positives) * len(negatives))


def _shortest(least: float, most: float) -> float:
    """Return the number between these, both included, that has the fewest digits, `FEWEST` or more."""
    for digits in range(FEWEST, DIGITS):
        above = round(math.ceil(round(least * 10.0**digits, DIGITS)) / 10.0**digits, digits)
        if above <= most:
            return above
    return least


def _shown(scores: Numbers) -> Numbers:
    """Round as `policy.evaluation` does: numpy's own rounding is another where a score lies halfway."""
    return np.array([round(score, DIGITS) for score in scores.tolist()], np.float64)
