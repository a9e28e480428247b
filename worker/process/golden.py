"""Checks an engine against labelled rows before it takes any work."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from guardfleet.domain.detection import SAID, says
from guardfleet.domain.verdict import GUARD, Severity
from guardfleet.errors import ConfigurationError
from worker.engine.interfaces import Answer, Engine
from worker.engine.prompting.prompt import Content, is_blank
from worker.moderation import detecting
from worker.moderation.interpretation import EMPTY, judgement_of

AT_ONCE = 256  # texts


def right(engine: Engine, rows: Sequence[Any], *, window_rule: str) -> int:
    """Return how many labelled rows, as `deployments.Asked` has them, the engine judges rightly. No answer is a wrong one.

    The guard has to judge unsafe texts as unsafe or controversial and the others as safe. A detector has to give each text the
    labels that its row says it has, and none of those that its row says it has not.
    """
    reading = detecting.Reading(engine.model, window_rule)
    is_right: Callable[[Content, Any, Answer], bool] = _is_right if engine.model.detector == GUARD else partial(_is_found, reading)
    out = 0
    for at in range(0, len(rows), AT_ONCE):
        part = rows[at : at + AT_ONCE]
        answers = engine.submit([content for content, _ in part]).result().answers
        out += sum(is_right(content, label, answer) for (content, label), answer in zip(part, answers, strict=True))
    return out


def require(n_right: int, n: int, *, least: float) -> None:
    """Raise ConfigurationError unless the share of rows that were judged rightly is at least this."""
    if n_right < least * n:
        raise ConfigurationError(
            f"it judges {n_right:,} of {n:,} golden texts rightly ({n_right / n:.1%}), and {least:.1%} is asked for."
        )


def _is_right(content: Content, is_unsafe: bool, answer: Answer) -> bool:
    said = EMPTY.severity if is_blank(content) else judgement_of(answer).severity
    return said is not Severity.ERROR and (said is not Severity.SAFE) == is_unsafe


def _is_found(reading: detecting.Reading, content: Content, labels: Mapping[str, bool], answer: Answer) -> bool:
    found = detecting.EMPTY if is_blank(content) else reading.detection_of(answer)
    known = reading.model.labels
    return found.outcome in SAID and all(
        label in known and says(reading.model, found, label) == is_there for label, is_there in labels.items()
    )
