"""How good a detector's labels and scores are on labelled texts: figures by label, thresholds, and both by slice of the texts.

A text that the detector said nothing of, for it was too short or failed, is counted apart, and as wrong in every figure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guardfleet.cli.evaluation import Confusion
from guardfleet.domain.detection import Detection, Outcome, says
from guardfleet.domain.verdict import Model
from guardfleet.sampling.population import Mask, Numbers
from guardfleet.sampling.thresholds import Cut, auroc, cut_at, threshold_at

BANDS = (200, 500, 1000, 2000)  # characters; where a band of lengths ends
LEAST_SLICE = 30  # texts of a slice; of fewer, an interval says nothing


@dataclass(frozen=True)
class Labelled:
    """The texts as columns: which labels each has, what the detector said of it, and its value in each kind of slice."""

    model: Model
    truths: Sequence[frozenset[str]]
    found: Sequence[Detection]
    slices: Mapping[str, Sequence[str | None]]

    def count(self, outcome: Outcome) -> int:
        """Return how many texts ended so."""
        return sum(detection.outcome is outcome for detection in self.found)

    def scores(self, label: str) -> Numbers:
        """Return each text's score of a label, NaN where it has none."""
        at = self.model.labels.index(label)
        return np.array([np.nan if one.scores is None else one.scores[at] for one in self.found], np.float64)

    def has(self, label: str) -> Mask:
        """Return whether each text is labelled so."""
        return np.array([label in truth for truth in self.truths], bool)


@dataclass(frozen=True)
class Figures:
    """What a detector does with one label: counts at its own decision, and how well its score orders the texts."""

    counts: Confusion
    auroc: float | None


@dataclass(frozen=True)
class Slice:
    """What one threshold does in a slice of the texts; `own`: what the slice's own would be."""

    kind: str
    value: str
    cut: Cut
    own: float | None


@dataclass(frozen=True)
class Chosen:
    """A threshold for a false-positive rate, over all texts and by slice; `small`: slices with too few texts to be listed."""

    cut: Cut
    slices: list[Slice]
    small: int


def figures_of(texts: Labelled, label: str) -> Figures:
    """Compute a label's figures."""
    truths, scores = texts.has(label), texts.scores(label)
    said = [says(texts.model, detection, label) for detection in texts.found]
    pairs = [(bool(truth), not truth if one is None else one) for truth, one in zip(truths, said, strict=True)]
    counts = Confusion(
        pairs.count((True, True)), pairs.count((False, True)), pairs.count((False, False)), pairs.count((True, False))
    )
    return Figures(counts, auroc(scores[truths], scores[~truths]))


def chosen(texts: Labelled, label: str, rate: float) -> Chosen:
    """Choose the threshold on a label's score by the texts without it, and say what it does with all texts and with each slice."""
    truths, scores = texts.has(label), texts.scores(label)
    threshold = threshold_at(scores[~truths], rate)
    slices, small = [], 0
    for kind, values in texts.slices.items():
        for value in sorted({value for value in values if value is not None}, key=_order_of(kind)):
            here = np.array([one == value for one in values], bool)
            positives, negatives = scores[here & truths], scores[here & ~truths]
            if max(len(positives), len(negatives)) < LEAST_SLICE:
                small += 1
                continue
            cut = cut_at(threshold, rate, positives, negatives)
            slices.append(Slice(kind, value, cut, threshold_at(negatives, rate) if cut.is_telling else None))
    return Chosen(cut_at(threshold, rate, scores[truths], scores[~truths]), slices, small)


def band_of(n_chars: int) -> str:
    """Return the band of lengths, in characters, as a slice is called."""
    start = 0
    for end in BANDS:
        if n_chars < end:
            return f"{start}-{end - 1}"
        start = end
    return f"{start} and more"


def _order_of(kind: str) -> Callable[[str], Any]:
    """Return what to sort a kind's values by: lengths as numbers."""
    return (lambda value: int(value.split("-")[0].split(" ")[0])) if kind == "length" else str
