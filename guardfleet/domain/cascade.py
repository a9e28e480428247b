"""The cascade: which rows of a shard a second model is asked about, and how its answers are compared.

A pure function of the first model's judgements, the plan and the rows' digests: whoever takes the shard over asks the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from guardfleet.domain.plan import Escalation, Plan
from guardfleet.domain.verdict import ERASED, Judgement, ServedBy, Severity

SETTLED = (ServedBy.RULE_EMPTY, ServedBy.LIST)  # no model was asked, so none has a doubt
DIGEST_BITS = 32  # of a row's digest, an HMAC: as good as random, and equal for equal texts


@dataclass(frozen=True, slots=True)
class Doubts:
    """Rows for the second model: those the first was `unsure` of, and others, `sampled`, for comparison only."""

    unsure: list[int]
    sampled: list[int]

    @property
    def asked(self) -> list[int]:
        """All of these rows, in order."""
        return sorted([*self.unsure, *self.sampled])


def doubts_of(plan: Plan, first: Sequence[Judgement], digests: Sequence[bytes]) -> Doubts:
    """Choose the rows of a first model's judgements for the second; none if the plan has no second model."""
    if plan.second_model is None:
        return Doubts([], [])
    unsure = [i for i, judgement in enumerate(first) if not is_sure(judgement, plan.sure)]
    rest = set(range(len(first))) - set(unsure)
    limit = plan.sample * (1 << DIGEST_BITS)
    sampled = [i for i in sorted(rest) if not _is_settled(first[i]) and int.from_bytes(digests[i][: DIGEST_BITS // 8]) < limit]
    return Doubts(unsure, sampled)


def is_sure(judgement: Judgement, least: float) -> bool:
    """Return whether the first model's answer is final. A row without a verdict or without probabilities is not.

    Unless there is no text: an empty one, or one that was erased; or no model was asked.
    """
    if _is_settled(judgement):
        return True
    if judgement.severity is Severity.ERROR or judgement.probabilities is None:
        return False
    return judgement.probabilities[judgement.severity] >= least


def _is_settled(judgement: Judgement) -> bool:
    return judgement.served_by in SETTLED or judgement.error == ERASED


def compare(doubts: Doubts, first: Sequence[Judgement], second: dict[int, Judgement]) -> Escalation:
    """Count one shard's escalations; `second` holds the second model's judgement of every asked row."""
    agreed = sum(first[i].severity is second[i].severity for i in doubts.sampled)
    return Escalation(len(doubts.unsure), len(doubts.sampled), agreed)
