"""Checks an engine against labelled rows before it takes any work."""

from collections.abc import Sequence
from typing import Any

from guardfleet.domain.verdict import Severity
from guardfleet.errors import ConfigurationError
from worker.engine.interfaces import Engine
from worker.engine.prompting.prompt import is_blank
from worker.moderation.interpretation import EMPTY, judgement_of

AT_ONCE = 256  # texts


def right(engine: Engine, rows: Sequence[Any]) -> int:
    """Return how many rows, [content, is_unsafe] each, the engine judges rightly: unsafe or controversial ones as not safe.

    A text without a verdict is wrong, whatever its label.
    """
    out = 0
    for at in range(0, len(rows), AT_ONCE):
        part = rows[at : at + AT_ONCE]
        answers = engine.submit([content for content, _ in part]).result().answers
        for (content, is_unsafe), answer in zip(part, answers, strict=True):
            said = EMPTY.severity if is_blank(content) else judgement_of(answer).severity
            out += said is not Severity.ERROR and (said is not Severity.SAFE) == is_unsafe
    return out


def require(n_right: int, n: int, *, least: float) -> None:
    """Raise ConfigurationError unless the share of rows that were judged rightly is at least this."""
    if n_right < least * n:
        raise ConfigurationError(
            f"it judges {n_right:,} of {n:,} golden texts rightly ({n_right / n:.1%}), and {least:.1%} is asked for."
        )
