"""How far people agree who say what texts are: Krippendorff's alpha, with an interval from resampled texts.

1 is agreement, 0 what chance would give, below 0 worse than chance. Ordinal: `safe` against `unsafe` weighs more than against
`controversial`. A text with one answer says nothing of agreement, and is left out.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from guardfleet.sampling.estimates import Estimate

Level = Literal["nominal", "ordinal"]
N_RESAMPLED = 1000
BOUNDS = (2.5, 97.5)  # percent


def alpha(units: Sequence[Sequence[int]], *, n_values: int, level: Level, seed: int = 0) -> Estimate | None:
    """Return alpha of the answers to each text, values below `n_values`, with its 95 % interval.

    None where it is undefined: all answers are the same, or no text has two.
    """
    several = [np.bincount(unit, minlength=n_values) for unit in units if len(unit) > 1]
    if not several:
        return None
    counts, n_alike = np.unique(np.array(several, float), axis=0, return_counts=True)  # texts with the same answers are one row
    each = _coincidences(counts)
    value = _alpha(np.tensordot(n_alike[None], each, axes=1), level)[0]
    if np.isnan(value):
        return None
    weights = np.random.default_rng(seed).multinomial(n_alike.sum(), n_alike / n_alike.sum(), N_RESAMPLED)
    drawn = _alpha(np.tensordot(weights, each, axes=1), level)
    low, high = np.nanpercentile(drawn, BOUNDS)
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))


def _coincidences(counts: Any) -> Any:
    """Return each text's pairs of answers by values, weighted so that each answer counts once: (texts, values, values)."""
    pairs = counts[:, :, None] * counts[:, None, :]
    places = np.arange(counts.shape[1])
    pairs[:, places, places] -= counts
    return pairs / (counts.sum(axis=1) - 1)[:, None, None]


def _alpha(coincidences: Any, level: Level) -> Any:
    """Return alpha of each table of coincidences; NaN where one value alone was given."""
    totals = coincidences.sum(axis=2)  # (tables, values)
    n = totals.sum(axis=1)
    distances = _distances(totals, level)
    observed = (coincidences * distances).sum(axis=(1, 2))
    expected = (totals[:, :, None] * totals[:, None, :] * distances).sum(axis=(1, 2)) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def _distances(totals: Any, level: Level) -> Any:
    k = totals.shape[1]
    if level == "nominal":
        return np.broadcast_to(1 - np.eye(k), (len(totals), k, k))
    upto = np.cumsum(totals, axis=1)
    middle = upto - totals / 2  # of the values' ranks
    return (middle[:, :, None] - middle[:, None, :]) ** 2
