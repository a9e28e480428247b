"""From a detector's answers to detections: what they mean, and how the windows of a long text become one."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from guardfleet.domain.detection import Detection, Outcome, combined, failed, label_of
from guardfleet.domain.verdict import ERASED, Model, ServedBy
from worker.engine.interfaces import Answer
from worker.engine.prompting.prompt_policy import PromptPolicy

GONE = failed(ERASED)
POLICY_DIGITS = 32  # hexadecimal, of a model under a policy: nobody may find two policies with the same
EMPTY = Detection(Outcome.TOO_SHORT, served_by=ServedBy.RULE_EMPTY)


def under(model: Model, policy: PromptPolicy) -> Model:
    """Return the identity of the model that judges by a policy: verdicts by another policy are another model's."""
    return replace(model, policy=hashlib.sha256(f"{model.policy} {policy.digest}".encode()).hexdigest()[:POLICY_DIGITS])


def refused(reason: str) -> Detection:
    """Return what is said of a text whose policy the model does not take, or that comes without one where it needs one."""
    return failed("policy_refused", reason)


@dataclass(frozen=True, slots=True)
class Reading:
    """How answers of a model are read; `rule`: one of `detection.RULES`."""

    model: Model
    rule: str

    def detection_of(self, answer: Answer) -> Detection:
        """Return what an answer means. One without scores is an error, unless the text was too short to say."""
        seen: dict[str, Any] = {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}
        if answer.windows:
            return self._of_windows(answer, seen)
        if answer.failure is not None:
            return failed(answer.failure.code, answer.failure.detail, **seen)
        evidence = dict(answer.notes) or None
        if answer.is_too_short:
            return Detection(Outcome.TOO_SHORT, evidence=evidence, **seen)
        return self._found(answer.scores, answer.flaw, evidence=evidence, reason=answer.reason, **seen)

    def _of_windows(self, answer: Answer, seen: dict[str, Any]) -> Detection:
        """Return the detection of a long text; one window without an answer leaves the text without one."""
        windows = [(start, end, window) for start, end, window in answer.windows if not window.is_too_short]
        wrong = next((window for _, _, window in windows if window.failure is not None or window.scores is None), None)
        if wrong is not None:
            known = wrong.failure
            return failed(known.code, known.detail, **seen) if known else failed("unparsed", wrong.flaw, **seen)
        if not windows:
            return Detection(Outcome.TOO_SHORT, evidence=dict(answer.notes) or None, **seen)
        scored = [(start, end, window.scores) for start, end, window in windows if window.scores is not None]
        scores = combined(self.rule, self.model, [(end - start, said) for start, end, said in scored])
        shown = [[start, end, label_of(self.model, said)] for start, end, said in scored]
        evidence = {"windows": shown, "rule": self.rule, **answer.notes}
        reason = next((window.reason for _, _, window in windows if window.reason is not None), None)
        return self._found(scores, None, evidence=evidence, reason=reason, **seen)

    def _found(self, scores: tuple[float, ...] | None, flaw: str | None, *, reason: str | None, **seen: Any) -> Detection:
        if scores is None or flaw is not None or len(scores) != len(self.model.labels):
            return failed("unparsed", flaw, served_by=ServedBy.MODEL, **seen)
        label = label_of(self.model, scores)
        outcome = Outcome.UNLABELLED if label is None else Outcome.LABELLED
        return Detection(outcome, label, scores, reason=reason, **seen)
