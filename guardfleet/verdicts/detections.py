"""What the columns of the table `detection` mean, and how a detection is shown: the only way from a detection to a row, and back.

As in `encoding`, no code has a default: what is unknown or contradicts itself is an error, never a label.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from guardfleet.domain.detection import LEAST_FOUND, Detection, Outcome, failed
from guardfleet.domain.verdict import Model, ServedBy
from guardfleet.verdicts.encoding import storable

SHOWN_DIGITS = 6  # of a score: thresholds for few false alarms lie close to 1
SLACK = 0.01  # by which scores that add up to 1 may miss it: they are stored as four-byte floats, and averaged over windows
OUTCOMES = frozenset(map(int, Outcome))
SERVED = (ServedBy.MODEL, ServedBy.CACHE, ServedBy.DUPLICATE, ServedBy.RULE_EMPTY, ServedBy.NOBODY)


class Codes(NamedTuple):
    """The columns that hold a detection, as stored."""

    outcome: int
    label: int | None  # its place among the model's labels
    scores: list[float] | None
    served_by: int
    input_tokens: int
    output_tokens: int
    error: str | None
    error_detail: str | None
    evidence: Mapping[str, Any] | None
    reason: str | None


def encode(found: Detection, model: Model) -> Codes:
    """Encode a detection for storage. One that contradicts itself, or is none of the model's, is stored as an error."""
    label = None
    if found.label is not None:
        label = model.labels.index(found.label) if found.label in model.labels else -1
    codes = Codes(
        int(found.outcome), label, None if found.scores is None else list(found.scores), int(found.served_by), found.input_tokens,
        found.output_tokens, found.error, _or_none(found.error_detail), found.evidence, _or_none(found.reason),
    )  # fmt: skip
    reason = _wrong(codes, model)
    if reason is None:
        return codes
    wrong = failed("unreadable", reason, input_tokens=found.input_tokens, output_tokens=found.output_tokens)
    return encode(wrong, model)


def decode(stored: Sequence[Any], model: Model) -> Detection:
    """Decode stored codes. Codes that this version does not know, or that contradict each other, become an error."""
    codes = Codes._make(stored)
    reason = _wrong(codes, model)
    if reason is not None:
        return failed("unreadable", reason)
    return Detection(
        Outcome(codes.outcome),
        None if codes.label is None else model.labels[codes.label],
        None if codes.scores is None else tuple(codes.scores),
        ServedBy(codes.served_by),
        *codes[4:],
    )


def _wrong(codes: Codes, model: Model) -> str | None:
    """Return why the codes are invalid, or None."""
    if codes.outcome not in OUTCOMES:
        return f"outcome {codes.outcome}"
    if codes.served_by not in SERVED:
        return f"served by {codes.served_by}"
    if codes.label is not None and not 0 <= codes.label < len(model.labels):
        return "a label that the model does not have"
    if codes.scores is not None and not _are_scores(codes.scores, model):
        return "its scores are none"
    return _contradiction(codes, model)


def _contradiction(codes: Codes, model: Model) -> str | None:
    is_judged = codes.outcome in (Outcome.LABELLED, Outcome.UNLABELLED)
    if (codes.outcome == Outcome.LABELLED) != (codes.label is not None):
        return "a label without its outcome, or an outcome without its label"
    if (codes.outcome == Outcome.ERROR) != (codes.error is not None):
        return "an error without a code, or a code without an error"
    if is_judged and (codes.scores is None or codes.served_by in (ServedBy.NOBODY, ServedBy.RULE_EMPTY)):
        return "a finding that no model made"
    if codes.outcome == Outcome.UNLABELLED and model.neutral is not None:
        return "no label, where the model always has one"
    return _unlike(codes.label, codes.scores, model) if is_judged and codes.scores is not None else None


def _unlike(label: int | None, scores: Sequence[float], model: Model) -> str | None:
    """Return how the scores contradict the label, or each other; None if they do not."""
    if model.neutral is not None and abs(sum(scores) - 1) > SLACK:
        return "its scores do not add up to 1"
    if label is not None and scores[label] < max(scores):
        return "a label whose score is not the highest"
    if model.neutral is None and (scores[label] < LEAST_FOUND if label is not None else max(scores) > LEAST_FOUND):
        return "a label that was not found, or one that was found and is not there"
    return None


def _are_scores(scores: Sequence[float], model: Model) -> bool:
    return len(scores) == len(model.labels) and all(math.isfinite(score) and 0 <= score <= 1 for score in scores)


def to_plain(found: Detection) -> list[Any]:
    """Return a detection as JSON for an encrypted blob."""
    return [
        int(found.outcome), found.label, found.scores, int(found.served_by), found.input_tokens, found.output_tokens, found.error,
        found.error_detail, found.evidence, found.reason,
    ]  # fmt: skip


def of_plain(values: Sequence[Any]) -> Detection:
    """Return the detection from `to_plain`'s JSON; an error if this version does not know its form."""
    try:
        outcome, label, scores, served_by, *rest = values
        return Detection(Outcome(outcome), label, None if scores is None else tuple(scores), ServedBy(served_by), *rest)
    except (TypeError, ValueError):
        return failed("unreadable", "a provisional detection of another form")


def reused(found: Detection, served_by: ServedBy) -> Detection:
    """Return the detection as that of another, equal text; an error stays what it is."""
    return found if found.outcome is Outcome.ERROR else replace(found, served_by=served_by)


def shown(found: Detection, model: Model) -> dict[str, Any]:
    """Return a detection as a JSON object."""
    scores = None
    if found.scores is not None:
        scores = {name: round(score, SHOWN_DIGITS) for name, score in zip(model.labels, found.scores, strict=True)}
    said = {
        "outcome": found.outcome.label,
        "label": found.label,
        "scores": scores,
        "served_by": found.served_by.label,
        "model": model.name,
        "revision": model.revision,
        "policy": model.policy,
        "is_demo": model.is_demo,
        "evidence": found.evidence,
        "error": None if found.error is None else {"code": found.error, "detail": found.error_detail},
    }
    return said if found.reason is None else said | {"models_words": found.reason}


def _or_none(value: str | None) -> str | None:
    return None if value is None else storable(value)
