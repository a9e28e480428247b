"""The cascade: which rows of a shard a second model is asked about, and how its answers are compared.

Pure functions of what the first said, the plan and the rows' digests: whoever takes the shard over asks the same rows. The same
for guards, by severity, and for detectors, by label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from guardfleet.domain.detection import Detection, Outcome
from guardfleet.domain.plan import DetectorCascade, Escalation, Plan
from guardfleet.domain.verdict import ERASED, Judgement, Model, ServedBy, Severity

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
    return _doubts([is_sure(one, plan.sure) for one in first], [not _is_settled(one) for one in first], digests, sample=plan.sample)


def detector_doubts_of(
    plan: Plan, cascade: DetectorCascade | None, first: Sequence[Detection], model: Model, digests: Sequence[bytes]
) -> Doubts:
    """Choose the rows of a first detector's detections for the second one; none if the plan has none for it."""
    if cascade is None:
        return Doubts([], [])
    least = plan.sure_of(cascade)
    return _doubts(
        [is_sure_detection(one, model, least) for one in first],
        [one.outcome is not Outcome.TOO_SHORT and one.error != ERASED for one in first],
        digests,
        sample=plan.sample,
    )


def _doubts(sure: Sequence[bool], may_be_sampled: Sequence[bool], digests: Sequence[bytes], *, sample: float) -> Doubts:
    limit = sample * (1 << DIGEST_BITS)
    unsure = [i for i, is_final in enumerate(sure) if not is_final]
    sampled = [
        i
        for i, is_final in enumerate(sure)
        if is_final and may_be_sampled[i] and int.from_bytes(digests[i][: DIGEST_BITS // 8]) < limit
    ]
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


def is_sure_detection(found: Detection, model: Model, least: float) -> bool:
    """Return whether the first detector's word is final: of its label, or of each one, there or not, that is found apart.

    A row without an answer is not, unless its text was erased; one with too little text to say anything is.
    """
    if found.outcome is Outcome.TOO_SHORT or found.error == ERASED:
        return True
    if found.outcome is Outcome.ERROR or found.scores is None:
        return False
    if model.neutral is None:
        return all(max(score, 1 - score) >= least for score in found.scores)
    return max(found.scores) >= least


def _is_settled(judgement: Judgement) -> bool:
    return judgement.served_by in SETTLED or judgement.error == ERASED


def compare(doubts: Doubts, first: Sequence[Judgement], second: dict[int, Judgement]) -> Escalation:
    """Count one shard's escalations; `second` holds the second model's judgement of every asked row."""
    agreed = sum(first[i].severity is second[i].severity for i in doubts.sampled)
    return Escalation(len(doubts.unsure), len(doubts.sampled), agreed)


def compare_detections(doubts: Doubts, first: Sequence[Detection], second: dict[int, Detection]) -> Escalation:
    """Count one shard's escalations from a detector to its second one, as `compare`."""
    agreed = sum(first[i].word == second[i].word for i in doubts.sampled)
    return Escalation(len(doubts.unsure), len(doubts.sampled), agreed)
