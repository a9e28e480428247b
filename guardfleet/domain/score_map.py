"""A map from one service's scores to another's that keeps the flag rate of every threshold, on texts that both have scored.

It matches ranks: the score at a place in one order becomes the score at the same place in the other (equipercentile linking, as
tests of different difficulty are put on one scale). Texts with equal scores get the score at their middle, so that the flag rate is
off by at most half of their share.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

FOLDS = 5
SURE = 1.96  # standard errors on either side of a 95 % interval


@dataclass(frozen=True)
class ScoreMap:
    """A monotone function through `knots`, straight between them and level outside: (score, mapped score), both 0 to 1."""

    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.knots:
            raise ValueError("a score map has at least one knot")
        if not all(0 <= value <= 1 for knot in self.knots for value in knot):
            raise ValueError("a score map's knots are from 0 to 1")
        if any(a[0] >= b[0] or a[1] > b[1] for a, b in pairwise(self.knots)):
            raise ValueError("a score map's knots rise")

    @classmethod
    def fit(cls, scores: Sequence[float], others: Sequence[float]) -> "ScoreMap":
        """Return the map from `scores` to `others`, of the same texts. Raises ValueError for none."""
        ordered, ranked, knots, at = sorted(scores), sorted(others), [], 0
        while at < len(ordered):
            end = at
            while end < len(ordered) and ordered[end] == ordered[at]:
                end += 1
            knots.append((ordered[at], ranked[(at + end - 1) // 2]))
            at = end
        return cls(tuple(knots))

    def __call__(self, score: float) -> float:
        """Return the mapped score."""
        at = bisect_left(self.knots, (score,))
        if at == len(self.knots):
            return self.knots[-1][1]
        x, y = self.knots[at]
        if at == 0 or x == score:
            return y
        before_x, before_y = self.knots[at - 1]
        return before_y + (y - before_y) * (score - before_x) / (x - before_x)


@dataclass(frozen=True)
class Kept:
    """What becomes of a threshold: the share of texts flagged before and after, as shares of 1, and what they have in common.

    `after` and `same` are of texts that the map has not seen (cross-validation). `error`: half of the difference's 95 % interval.
    """

    threshold: float
    before: float
    after: float
    same: float
    error: float

    @property
    def difference(self) -> float:
        """The change of the flag rate."""
        return self.after - self.before


def kept(scores: Sequence[float], others: Sequence[float], threshold: float) -> Kept:
    """Return how a threshold fares, each text mapped by a map of the other folds. Raises ValueError for fewer texts than folds."""
    if len(scores) < FOLDS:
        raise ValueError(f"{FOLDS} texts at least are needed")
    before, after = [other >= threshold for other in others], [False] * len(scores)
    for fold in range(FOLDS):
        rest = [i for i in range(len(scores)) if i % FOLDS != fold]
        mapped = ScoreMap.fit([scores[i] for i in rest], [others[i] for i in rest])
        for i in range(fold, len(scores), FOLDS):
            after[i] = mapped(scores[i]) >= threshold
    n = len(scores)
    changes = [int(b) - int(a) for a, b in zip(before, after, strict=True)]
    mean = sum(changes) / n
    variance = sum((change - mean) ** 2 for change in changes) / (n - 1)
    same = sum(change == 0 for change in changes) / n
    return Kept(threshold, sum(before) / n, sum(after) / n, same, SURE * math.sqrt(variance / n))
