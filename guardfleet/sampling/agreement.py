"""How far two models agree, counted over texts that both have judged, and what follows for the one that is being tried."""

import math
from dataclasses import dataclass
from enum import Enum

from guardfleet.sampling.estimates import Estimate, share_of

LEAST = 50  # texts before a canary can fail
EXTRA_ERRORS = 0.01  # share of texts that the new model may leave without a verdict besides the old one's
SPARE_ERRORS = 2  # texts; fewer are chance


class Ruling(Enum):
    """What follows for a canary."""

    WAIT = "wait"
    ADVANCE = "advance"
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class Compared:
    """Texts that both models judged: how many got the same severity or label, and how many each left without an answer."""

    texts: int = 0
    agreed: int = 0
    live_errors: int = 0
    errors: int = 0

    @property
    def agreement(self) -> Estimate | None:
        """The share that agrees, with its 95 % interval (Wilson); None of nothing."""
        return share_of(self.agreed, self.texts)


def ruling(found: Compared, *, wanted_texts: int, min_agreement: float) -> tuple[Ruling, str | None]:
    """Return what follows, and the reason for a halt.

    Before `wanted_texts` only what is sure halts: an interval that lies below `min_agreement`, or errors beyond the old model's.
    """
    agreement = found.agreement
    if agreement is None or found.texts < min(LEAST, wanted_texts):
        return Ruling.WAIT, None
    extra = found.errors - found.live_errors
    if extra > max(SPARE_ERRORS, math.ceil(EXTRA_ERRORS * found.texts)):
        said = f"it left {found.errors:,} of {found.texts:,} texts without an answer"
        return Ruling.HALT, f"{said}, the model beside it {found.live_errors:,}"
    is_over = found.texts >= wanted_texts
    if (agreement.value if is_over else agreement.high) < min_agreement:
        return Ruling.HALT, f"it agrees on {agreement.value:.1%} of {found.texts:,} texts, and {min_agreement:.1%} is asked for"
    return (Ruling.ADVANCE if is_over else Ruling.WAIT), None
