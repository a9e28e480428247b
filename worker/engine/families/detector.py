"""What a model is as a detector: its labels, and the one of them that finds nothing."""

from collections.abc import Sequence

from guardfleet.domain.detection import why_no_label
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import ConfigurationError
from worker.engine.families.family import Family

LABELS_SHOWN = 8


def labels_as(name: str, family: Family, detector: str, neutral: str) -> tuple[tuple[str, ...], str | None]:
    """Return the labels of a model as a detector, and the neutral one; none for the guard. Raises ConfigurationError."""
    if family.grammar is None:
        if detector != GUARD:
            raise ConfigurationError(
                f"model {name!r} gives severities and no labels: leave GUARDFLEET_ENGINE__DETECTOR at guard, or use another model."
            )
        return (), None
    listed = _listed(family.grammar.labels)
    if detector == GUARD:
        raise ConfigurationError(
            f"model {name!r} judges by a policy and gives {listed}, no severities: "
            "name it as a detector, for example GUARDFLEET_ENGINE__DETECTOR=policy."
        )
    for label in family.grammar.labels:
        if why := why_no_label(label):
            raise ConfigurationError(f"model {name!r} has a label that {why} ({label[:40]!a}): rename it in its configuration.")
    found = neutral or family.grammar.neutral
    if found not in family.grammar.labels:
        wrong = f"has no label {found!r}" if found else "does not tell which label finds nothing"
        raise ConfigurationError(f"model {name!r} {wrong}: set GUARDFLEET_ENGINE__NEUTRAL_LABEL to one of {listed}.")
    return family.grammar.labels, found


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels[:LABELS_SHOWN]) + (", ..." if len(labels) > LABELS_SHOWN else "")
