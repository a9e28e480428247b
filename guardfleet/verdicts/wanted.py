"""Which of a tenant's verdicts somebody looks for, over all jobs, and how far the look has come."""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from guardfleet.domain.decision import ACTIONS
from guardfleet.domain.detection import MOST_LABEL
from guardfleet.domain.ids import JOB
from guardfleet.domain.verdict import ERROR_CODES, Category, Severity
from guardfleet.errors import RejectedError
from guardfleet.verdicts.encoding import LABELS, probability_bytes, storable
from guardfleet.verdicts.filters import CATEGORIES, SEVERITIES, known_name

MOST_ROW_ID = 1000  # characters: no row has a longer id
PROBABILITIES: Mapping[str, int] = {severity.label: place for place, severity in enumerate(LABELS)}
FIELDS = (
    "severity", "category", "action", "detector", "label", "of", "least", "most", "error", "job", "since", "until", "row",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The verdicts to find; None: any. All conditions must hold, of the columns as they are stored.

    A severity that this version does not know counts as an error if it is above all others, else as unrated: each row has one.
    """

    severity: Severity | None = None
    category: Category | None = None
    action: str | None = None  # of the policy in force
    detector: str | None = None  # a detector other than the guard that judged the text
    label: str | None = None  # what it said: a label, or how else the text ended with it
    probability: tuple[int, int, int] | None = None  # place of the severity, and the least and greatest byte
    error: str | None = None
    job: uuid.UUID | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None  # exclusive
    row_id: str | None = None
    keeps_texts: bool = False  # only of jobs whose texts are kept

    @classmethod
    def of(cls, given: Mapping[str, str]) -> "Wanted":
        """Make it from words by FIELDS; empty ones ask for nothing. Raises RejectedError."""
        said = {name: given[name] for name in FIELDS if given.get(name)}
        if "label" in said and "detector" not in said:
            raise RejectedError("a label is a detector's: choose the detector too.", param="detector")
        if len(said.get("label", "")) > MOST_LABEL or len(said.get("row", "")) > MOST_ROW_ID:
            raise RejectedError("no label and no row id is as long as that.", param="row")
        if any(storable(value) != value for value in said.values()):
            raise RejectedError("no row has such characters, which cannot be stored.", param="row")
        return cls(
            severity=known_name(said["severity"], SEVERITIES, "severity") if "severity" in said else None,
            category=known_name(said["category"], CATEGORIES, "category") if "category" in said else None,
            action=known_name(said["action"], {name: name for name in ACTIONS}, "action") if "action" in said else None,
            detector=said.get("detector"),
            label=said.get("label"),
            probability=_probability(said),
            error=known_name(said["error"], {code: code for code in ERROR_CODES}, "error") if "error" in said else None,
            job=JOB.parse(said["job"].strip()) if "job" in said else None,
            since=_time(said, "since"),
            until=_time(said, "until"),
            row_id=said.get("row"),
        )


@dataclass(frozen=True, slots=True)
class Place:
    """How far a look has come: everything up to this text of this job, and how many verdicts that were."""

    job: uuid.UUID
    ord: int
    seq: int
    looked: int = 0


def _probability(said: Mapping[str, str]) -> tuple[int, int, int] | None:
    if "least" not in said and "most" not in said:
        return None
    place = known_name(said.get("of", Severity.UNSAFE.label), PROBABILITIES, "of")
    return place, *probability_bytes(_share(said, "least", 0.0), _share(said, "most", 1.0))


def _share(said: Mapping[str, str], name: str, otherwise: float) -> float:
    try:
        value = float(said.get(name, otherwise))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise RejectedError(f"{name} must be a probability from 0 to 1.", param=name)
    return value


def _time(said: Mapping[str, str], name: str) -> dt.datetime | None:
    if name not in said:
        return None
    try:
        found = dt.datetime.fromisoformat(said[name])
        return (found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise RejectedError(f"{name} must be a time, as 2026-01-31T12:00.", param=name) from None
