"""How a job is judged: by which models and detectors, by which second ones if the first are unsure, and how much of long texts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from guardfleet.domain.detection import DETECTOR_NAME, ENTRY, detector_of, policy_of, route_of
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import RejectedError

COVERAGES = ("windows", "head", "tail", "ends")
NAME_CHARS = 200
MOST_DETECTORS = 8


@dataclass(frozen=True, slots=True)
class DetectorCascade:
    """Which second detector is asked about the texts that a detector, `first`, is unsure of.

    `sure`: the probability from which the first one's word is final; None: the plan's.
    """

    first: str
    second: str
    sure: float | None = None

    @classmethod
    def of(cls, written: str) -> "DetectorCascade":
        """Read `ai-text=ai-text-large@0.8`, or without the probability. Raises ValueError."""
        first, _, rest = written.partition("=")
        second, at, least = rest.partition("@")
        for name in (first, second):
            if not DETECTOR_NAME.fullmatch(name):
                raise ValueError(
                    f"{written[:80]!r} names no two detectors: write ai-text=ai-text-large, or ai-text=ai-text-large@0.8 "
                    "to ask the second one where the first is less sure than that"
                )
        if GUARD in (first, second):
            raise ValueError("the guard's second model is named by escalate_to")
        if first == second:
            raise ValueError(f"{first} cannot be its own second detector")
        return cls(first, second, _probability(least) if at else None)

    def __str__(self) -> str:
        least = "" if self.sure is None else f"@{self.sure!r}"
        return f"{self.first}={self.second}{least}"


def _probability(written: str) -> float:
    try:
        found = float(written)
    except ValueError:
        found = math.nan
    if not 0 < found <= 1:
        raise ValueError(f"{written[:40]!r} is no probability: write a number that is more than 0 and at most 1")
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """How a caller wants a job judged; None leaves it to the workers.

    `model`: only workers with this model take the job. `second_model`: judges again the texts whose severity got a probability
    below `sure` from the first, and a random share `sample` of the rest. The latter is only compared: the first answer stands.
    `long_texts`: as the setting of the same name. `detectors`: who judges, one after the other, the guard first if it does; a
    detector that takes policies is there once for each, as `custom/no-refunds@2`, and judges by all of them in one go.
    `detector_cascades`: second detectors, as `DetectorCascade.of` reads them; `sample` is of their first ones' texts too.
    """

    model: str | None = None
    second_model: str | None = None
    sure: float = 0.9
    sample: float = 0.01
    long_texts: str | None = None
    detectors: tuple[str, ...] = (GUARD,)
    detector_cascades: tuple[str, ...] = ()

    def check(self) -> "Plan":
        """Validate the plan and return it. Raises RejectedError."""
        for name in (self.model, self.second_model):
            if name is not None and not (0 < len(name) <= NAME_CHARS and name.isprintable()):
                raise RejectedError("a model's name must have 1 to 200 characters, all printable.")
        if self.second_model is not None and self.second_model == self.model:
            raise RejectedError("the second model must differ from the first.")
        if not 0 < self.sure <= 1:
            raise RejectedError("confidence_threshold must be a probability: more than 0, at most 1.")
        if not 0 <= self.sample <= 1:
            raise RejectedError("audit_fraction must be a share: 0 to 1.")
        if self.long_texts is not None and self.long_texts not in COVERAGES:
            raise RejectedError(f"long_texts must be one of {', '.join(COVERAGES)}.")
        if not self.asks_guard and (self.model is not None or self.second_model is not None):
            raise RejectedError("model and escalate_to are about the guard, which is not among the detectors.")
        asked = set(map(detector_of, self.detectors))
        for one in map(DetectorCascade.of, self.detector_cascades):
            if one.first not in asked:
                raise RejectedError(
                    f"detector_cascades has a second detector for {one.first}, which is not among the job's detectors.",
                    param="detector_cascades",
                )
        return self

    def cascade_of(self, entry: str) -> DetectorCascade | None:
        """Return the cascade of an entry's detector; None if no second one is asked."""
        mine = (one for one in map(DetectorCascade.of, self.detector_cascades) if one.first == detector_of(entry))
        return next(mine, None)

    def sure_of(self, cascade: DetectorCascade) -> float:
        """Return the probability from which the first detector's word is final."""
        return self.sure if cascade.sure is None else cascade.sure

    def second_of(self, entry: str) -> str | None:
        """Return the entry of the second detector, by the same policy: `custom-large/no-refunds@2`; None without one."""
        cascade, policy = self.cascade_of(entry), policy_of(entry)
        if cascade is None:
            return None
        return cascade.second if policy is None else f"{cascade.second}/{policy}"

    @property
    def second_entries(self) -> Sequence[str]:
        """The entries of all second detectors."""
        return [second for entry in self.detectors if (second := self.second_of(entry)) is not None]

    @property
    def asks_guard(self) -> bool:
        """Whether the guard judges: otherwise texts get no severity."""
        return GUARD in self.detectors

    @property
    def others(self) -> Sequence[tuple[int, str]]:
        """The entries other than the guard, each with its place among all."""
        return [(place, name) for place, name in enumerate(self.detectors) if name != GUARD]

    @property
    def first_route(self) -> str | None:
        """What a new shard waits for: the model that the caller names, or the first detector; None: any guard."""
        return self.model if self.asks_guard else route_of(self.detectors[0])


def detectors_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the entries in the order in which they judge: the guard first, then each detector with all its policies.

    Raises ValueError for names that make no plan.
    """
    if not 0 < len(names) <= MOST_DETECTORS:
        raise ValueError(f"name 1 to {MOST_DETECTORS} detectors")
    for name in names:
        if not ENTRY.fullmatch(name):
            raise ValueError(
                f"{name[:60]!r} is no detector's name: lower-case letters, digits, - and _, such as ai-text, "
                "or custom/no-refunds@2 for a version of a policy"
            )
        if detector_of(name) == GUARD and policy_of(name) is not None:
            raise ValueError("the guard takes no policy: choose a detector that does")
    if len(set(names)) < len(names):
        raise ValueError("a detector is named twice")
    first = {detector: place for place, detector in reversed(list(enumerate(map(detector_of, names))))}
    return tuple(sorted(names, key=lambda name: (name != GUARD, first[detector_of(name)])))


def cascades_of(written: Sequence[str]) -> tuple[str, ...]:
    """Return the second detectors in one spelling and order. Raises ValueError for what names none."""
    if len(written) > MOST_DETECTORS:
        raise ValueError(f"name at most {MOST_DETECTORS} second detectors")
    cascades = sorted(map(DetectorCascade.of, written), key=lambda one: one.first)
    for one, other in pairwise(cascades):
        if one.first == other.first:
            raise ValueError(f"{one.first} has two second detectors: name one")
    return tuple(map(str, cascades))


DEFAULT_PLAN = Plan()


@dataclass(frozen=True, slots=True)
class Escalation:
    """How many texts a second model judged: `escalated`, which the first was unsure of, and `sampled`, which it was sure of.

    Of the sampled texts, `agreed` got the same severity, or of detectors the same label, from both.
    """

    escalated: int = 0
    sampled: int = 0
    agreed: int = 0


NONE_ESCALATED = Escalation()
