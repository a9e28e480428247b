"""How good verdicts are on labelled texts: the usual figures, for both readings of `controversial`."""

from collections.abc import Sequence
from dataclasses import dataclass

from guardfleet.verdict import Severity


@dataclass(frozen=True, slots=True)
class Confusion:
    """Texts by what they are and what was said of them; `unsafe` is the positive class."""

    true_positive: int = 0
    false_positive: int = 0
    true_negative: int = 0
    false_negative: int = 0

    @property
    def precision(self) -> float:
        """Of what was called unsafe, how much is. 0 where nothing was."""
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Of what is unsafe, how much was called so. 0 where nothing is."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _share(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def false_positive_rate(self) -> float:
        """Of what is safe, how much was called unsafe. 0 where nothing is."""
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


def agreement(one: Sequence[object], other: Sequence[object]) -> float:
    """Share of texts of which two runs say the same; 1 where there are none."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one) if one else 1.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
