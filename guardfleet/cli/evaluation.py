"""How good verdicts are on labelled texts: the usual figures, for both readings of `controversial`, and by category.

A figure whose divisor is 0 is undefined and None: 0 would be read as a bad figure, 1 as a good one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from guardfleet.domain.verdict import NO_VERDICT, Judgement, Severity, category_names

UNNAMED = "none"  # flagged without a category of the policy
FIGURES = ("precision", "recall", "f1", "false_positive_rate")


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of texts by label and verdict; `unsafe` is the positive class."""

    true_positive: int = 0
    false_positive: int = 0
    true_negative: int = 0
    false_negative: int = 0

    @property
    def precision(self) -> float | None:
        """Share of unsafe texts among those called unsafe."""
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float | None:
        """Share called unsafe among the unsafe texts."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        return _share(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def false_positive_rate(self) -> float | None:
        """Share called unsafe among the safe texts."""
        return _share(self.false_positive, self.false_positive + self.true_negative)


def confusion(labels: Sequence[bool], severities: Sequence[Severity], *, strict: bool) -> Confusion:
    """Count texts. Strict counts `controversial` as unsafe, loose as safe; texts without a verdict must be reported separately."""
    from_severity = {Severity.SAFE: False, Severity.CONTROVERSIAL: strict, Severity.UNSAFE: True}
    pairs = [
        (label, from_severity[severity]) for label, severity in zip(labels, severities, strict=True) if severity not in NO_VERDICT
    ]
    return Confusion(pairs.count((True, True)), pairs.count((False, True)), pairs.count((False, False)), pairs.count((True, False)))


def by_category(labels: Sequence[bool], judged: Sequence[Judgement], *, strict: bool) -> dict[str, Confusion]:
    """Count the unsafe and the safe texts among those flagged under each category, the largest category first.

    Nobody labelled categories, so there is no recall: what a category missed is unknown.
    """
    flagged = (Severity.CONTROVERSIAL, Severity.UNSAFE) if strict else (Severity.UNSAFE,)
    said = [
        (name, label)
        for label, judgement in zip(labels, judged, strict=True)
        if judgement.severity in flagged
        for name in category_names(judgement.categories) or [UNNAMED]
    ]
    found = {name: Confusion(said.count((name, True)), said.count((name, False))) for name in sorted({name for name, _ in said})}
    return dict(sorted(found.items(), key=lambda item: -(item[1].true_positive + item[1].false_positive)))


def agreement(one: Sequence[object], other: Sequence[object]) -> float | None:
    """Return the share of texts for which two runs agree."""
    return _share(sum(a == b for a, b in zip(one, other, strict=True)), len(one))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
