"""How good verdicts are on labelled texts: the usual figures, for both readings of `controversial`, and by category.

A figure whose divisor is 0 is undefined, and None: a 0 would be read as a bad one, a 1 as a good one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from guardfleet.domain.verdict import Judgement, Severity, category_names

UNNAMED = "none"  # flagged under no category of the policy
FIGURES = ("precision", "recall", "f1", "false_positive_rate")


@dataclass(frozen=True, slots=True)
class Confusion:
    """Texts by what they are and what was said of them; `unsafe` is the positive class."""

    true_positive: int = 0
    false_positive: int = 0
    true_negative: int = 0
    false_negative: int = 0

    @property
    def precision(self) -> float | None:
        """Of what was called unsafe, how much is."""
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float | None:
        """Of what is unsafe, how much was called so."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        return _share(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def false_positive_rate(self) -> float | None:
        """Of what is safe, how much was called unsafe."""
        return _share(self.false_positive, self.false_positive + self.true_negative)


def confusion(labels: Sequence[bool], severities: Sequence[Severity], *, strict: bool) -> Confusion:
    """Strict counts `controversial` as unsafe, loose as safe. Texts without a verdict are left out: report them apart."""
    from_severity = {Severity.SAFE: False, Severity.CONTROVERSIAL: strict, Severity.UNSAFE: True}
    pairs = [
        (label, from_severity[severity])
        for label, severity in zip(labels, severities, strict=True)
        if severity is not Severity.ERROR
    ]
    return Confusion(pairs.count((True, True)), pairs.count((False, True)), pairs.count((False, False)), pairs.count((True, False)))


def by_category(labels: Sequence[bool], judged: Sequence[Judgement], *, strict: bool) -> dict[str, Confusion]:
    """Of each category that flagged texts were put into, how many of them are unsafe and how many are safe; the largest first.

    Nobody labelled categories, so there is no recall: what a category missed is not known.
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
    """Share of texts of which two runs say the same."""
    return _share(sum(a == b for a, b in zip(one, other, strict=True)), len(one))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
