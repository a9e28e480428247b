"""The texts that a sample is drawn from, as columns: a dozen bytes a text, so that millions fit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guardfleet.domain.verdict import ServedBy, Severity
from guardfleet.verdicts.encoding import CERTAIN

LEAST_DOUBT = 0.1  # so that no text is drawn with less than a tenth of the chance of the most doubtful one
Numbers = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Strata:
    """Which stratum each text is in, and the strata's names."""

    codes: Places
    names: tuple[str | None, ...]


@dataclass(frozen=True)
class Population:
    """All texts of a job that have a verdict row and were not erased, errors included, in input order.

    `doubt`: from LEAST_DOUBT to 1, how near the two likeliest severities are. `disagreement`, `slices`: None where not asked for.
    """

    seqs: Places
    doubt: Numbers
    disagreement: Strata | None = None
    slices: Strata | None = None

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.seqs)


def doubts(facts: Any) -> Numbers:
    """Return the doubt about each text of `policy.facts.Facts`: NaN where it is not known, as for texts without a verdict."""
    ordered = np.sort(facts["p"], axis=1).astype(np.float32)
    found: Numbers = 1 - (ordered[:, 2] - ordered[:, 1]) / np.float32(CERTAIN)
    found = np.maximum(found, np.float32(LEAST_DOUBT))
    found[~facts["has_p"] | (facts["severity"] == Severity.ERROR)] = np.nan
    found[facts["served_by"] == ServedBy.RULE_EMPTY] = LEAST_DOUBT
    return found


def completed(doubt: Numbers) -> Numbers:
    """Return the doubts with the mean of the others for those not known: they are drawn as often as their number suggests."""
    unknown = np.isnan(doubt)
    if not unknown.any():
        return doubt
    return np.where(unknown, 1.0 if unknown.all() else doubt[~unknown].mean(dtype=np.float64), doubt)
