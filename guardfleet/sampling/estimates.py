"""What the labels of drawn texts say of all texts: ratios of weighted totals, with 95 % intervals.

A text that was drawn with probability p stands for 1/p texts. In a job with several samples, each sample estimates the same totals,
and their mean is taken, a sample counting as its number of labelled texts. Within a sample the weights are scaled so that they add
up to the number of all texts (Hajek), which also covers texts that nobody has labelled yet: samples are written in random order, so
that they are missing at random.

Intervals: the variance by linearisation, as if the draws were independent, which overstates it a little for stratified ones; from
it the number of simply drawn texts that would be as telling, and Wilson's interval for that number, which stays within 0 and 1.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from guardfleet.sampling.population import Mask, Numbers, Places

Z95 = 1.959963984540054
UNSEEN = 0.5  # texts of each outcome


class Estimate(NamedTuple):
    """A share, and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return it as faces show it."""
        return {name: round(value, 4) for name, value in self._asdict().items()}


@dataclass(frozen=True)
class Weights:
    """Of each label that a sample asked for: for how many texts it stands, and how much of that is left to chance (0: nothing)."""

    each: Numbers
    chance: Numbers

    def __len__(self) -> int:
        """Return the number of labels."""
        return len(self.each)


NONE = Weights(np.zeros(0), np.zeros(0))


def weights(samples: Places, probability: Numbers, *, drawn: dict[int, int], n_texts: int) -> Weights:
    """Weigh the labels of one job, whose sample and probability are given; `drawn`: texts that each sample has."""
    each, chance = np.zeros(len(samples)), np.zeros(len(samples))
    for sample in np.unique(samples):
        here = samples == sample
        inverse = 1 / probability[here]
        each[here] = here.sum() / len(samples) * n_texts * inverse / inverse.sum()
        answered = min(1.0, here.sum() / max(1, drawn[int(sample)]))
        chance[here] = 1 - probability[here] * answered
    return Weights(each, chance)


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any], of: Weights) -> Estimate | None:
    """Estimate the total of `part` by that of `whole`, where 0 <= part <= whole in every text; None if nothing speaks of it."""
    base = of.each * whole
    total = float(base.sum())
    if total <= 0:
        return None
    value = min(1.0, float((of.each * part).sum() / total))
    n = int(np.count_nonzero(base))
    if not (of.chance[base > 0] > 0).any():  # all texts are labelled
        return Estimate(value, value, value)
    if n == 1:
        return Estimate(value, 0.0, 1.0)
    if 0 < value < 1:
        residual = of.each * (part - value * whole)
        unseen = UNSEEN * float(base.max()) ** 2 * (value**2 + (1 - value) ** 2)
        variance = (n / (n - 1) * float((of.chance * residual**2).sum()) + unseen) / total**2
        alike = value * (1 - value) / variance
    else:
        alike = total**2 / float((of.chance * base**2).sum())
    return Estimate(value, *wilson(value, alike))


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the bounds of Wilson's 95 % interval for a share of `n` simply drawn texts; `n` need not be whole."""
    middle = share + Z95**2 / (2 * n)
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    return max(0.0, min(share, (middle - spread) / scale)), min(1.0, max(share, (middle + spread) / scale))


def share_of(part: int, whole: int) -> Estimate | None:
    """Return a share of simply drawn texts with its 95 % interval (Wilson); None of nothing."""
    return Estimate(part / whole, *wilson(part / whole, whole)) if whole else None


def share(part: Mask, whole: Mask, of: Weights) -> Estimate | None:
    """Estimate the share of texts in `part` among those in `whole`."""
    return ratio((part & whole).astype(np.float64), whole.astype(np.float64), of)
