"""How good verdicts are, estimated from labels: the figures of `guardfleet evaluate`, for both readings of `controversial`."""

from collections.abc import Mapping

import numpy as np

from guardfleet.domain.verdict import Severity
from guardfleet.sampling.estimates import Estimate, Weights, ratio, share
from guardfleet.sampling.population import Mask, Places

UNSAFE_FROM = {"strict": Severity.CONTROVERSIAL, "loose": Severity.UNSAFE}  # the lowest severity that counts as unsafe
HARMFUL: Mapping[str, tuple[Severity, ...]] = {
    "unsafe": (Severity.UNSAFE,),
    "unsafe_or_controversial": (Severity.UNSAFE, Severity.CONTROVERSIAL),
    "benign": (Severity.SAFE,),
}


def figures(said: Places, labelled: Places, of: Weights, *, reading: str) -> dict[str, Estimate | None]:
    """Estimate the figures from the severities of verdicts and of labels, both read alike.

    A text without a verdict counts as wrong: as missed if it is unsafe, as a false alarm if it is not.
    """
    least = UNSAFE_FROM[reading]
    unsafe = labelled >= least
    flagged = np.where(said == Severity.ERROR, ~unsafe, said >= least)
    hits, wrong = (unsafe & flagged).astype(np.float64), (unsafe ^ flagged).astype(np.float64)
    return {
        "precision": share(unsafe, flagged, of),
        "recall": share(flagged, unsafe, of),
        "f1": ratio(2 * hits, 2 * hits + wrong, of),
        "false_positive_rate": share(flagged, ~unsafe, of),
    }


def by_action(actions: Places, labelled: Places, of: Weights, names: Mapping[int, str]) -> dict[str, dict[str, Estimate | None]]:
    """Estimate, of harmful and of benign texts, the share that gets each action."""
    out = {}
    for group, severities in HARMFUL.items():
        whole: Mask = np.isin(labelled, severities)
        out[group] = {name: share(actions == action, whole, of) for action, name in names.items()}
    return out
