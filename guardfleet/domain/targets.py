"""Whose data an erasure or a legal hold is about: texts by their caller's id, or by a member of their metadata (a subject)."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from guardfleet.errors import RejectedError

MOST = 1_000  # targets of one request
EXACT = 2**53  # up to here a float is the integer that it equals
INVENTED = re.compile(r"line:\d+")  # the id of a row that had none: each job has its own
Scalar = str | int | float | bool
Subject = tuple[str, str]  # a key, and its value as JSON in one spelling


class Kind(StrEnum):
    """What a target names."""

    ID = "id"
    SUBJECT = "subject"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Targets:
    """Texts with any of these ids, or with any of these members in their metadata."""

    ids: frozenset[str] = frozenset()
    subjects: frozenset[Subject] = frozenset()

    @classmethod
    def of(cls, ids: Iterable[str] = (), subjects: Iterable[tuple[str, Scalar]] = ()) -> "Targets":
        """Build from values as a caller gives them. Raises RejectedError for too many, empty or unstorable ones; it says which."""
        row_ids, pairs = list(ids), list(subjects)
        wrong = [("ids", at) for at, one in enumerate(row_ids) if not _is_usable(one)]
        wrong += [("subjects", at) for at, pair in enumerate(pairs) if not all(map(_is_usable, pair))]
        for name, at in wrong:
            raise RejectedError(f"{name}[{at}] is empty, no finite number, or holds what no text can.", param=name)
        made = cls(frozenset(row_ids), frozenset((key, spelled(value)) for key, value in pairs))
        if len(made) > MOST:
            raise RejectedError(f"{len(made):,} ids and subjects, at most {MOST:,} are taken at once.")
        return made

    def __len__(self) -> int:
        """Return the number of targets."""
        return len(self.ids) + len(self.subjects)

    def __or__(self, other: "Targets") -> "Targets":
        """Return the targets of both."""
        return Targets(self.ids | other.ids, self.subjects | other.subjects)

    def pieces(self) -> Iterator["Targets"]:
        """Yield parts that one search can take; holds may cover more than a request may name."""
        ids, subjects = sorted(self.ids), sorted(self.subjects)
        yield from (Targets(frozenset(ids[at : at + MOST])) for at in range(0, len(ids), MOST))
        yield from (Targets(subjects=frozenset(subjects[at : at + MOST])) for at in range(0, len(subjects), MOST))

    def covers(self, row_id: str | None, metadata: Mapping[str, Any] | None) -> bool:
        """Return whether a text with this id and metadata is meant. As policies compare: 7 is not "7", and `true` is not 1."""
        if row_id in self.ids:
            return True
        if not self.subjects or not isinstance(metadata, dict):
            return False
        return any(key in metadata and is_scalar(metadata[key]) and spelled(metadata[key]) == value for key, value in self.subjects)

    def require_job(self) -> None:
        """Raise RejectedError for ids that mean nothing without a job."""
        if any(INVENTED.fullmatch(one) for one in self.ids):
            raise RejectedError(
                "ids like line:1 are those of rows without an id, other ones in each job: name the job too.", param="ids"
            )

    def kinds_and_values(self) -> list[tuple[Kind, str]]:
        """Return each target, in one order: its kind, and its value as receipts digest it and holds encrypt it."""
        found = [(Kind.ID, one) for one in self.ids] + [(Kind.SUBJECT, json.dumps(subject)) for subject in self.subjects]
        return sorted(found)


def of_value(kind: str, value: str) -> Targets:
    """Return the one target, the inverse of `kinds_and_values`."""
    if kind == Kind.ID:
        return Targets(frozenset([value]))
    key, spelling = json.loads(value)
    return Targets(subjects=frozenset([(key, spelling)]))


def subjects_of(text: str) -> list[tuple[str, Scalar]]:
    """Return what KEY=VALUE means: the text VALUE and, if it reads as one, the number or the boolean. Raises RejectedError.

    Who erases `customer=7` means the customer, whether a CSV (a text) or JSON (a number) brought the row.
    """
    key, separator, value = text.partition("=")
    if not (key and separator and value):
        raise RejectedError("a subject must be KEY=VALUE: a member of the texts' metadata.")
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return [(key, value)]
    return [(key, value), (key, found)] if is_scalar(found) and not isinstance(found, str) else [(key, value)]


def is_scalar(value: object) -> bool:
    """Return whether a subject can have the value."""
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))  # a bool is an int


def _is_usable(value: Scalar) -> bool:
    """Return whether a text can have the value: as an id, or as a key or a value in its metadata."""
    if not isinstance(value, str):
        return is_scalar(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return bool(value) and "\0" not in value


def spelled(value: Scalar) -> str:
    """Return a value as JSON, equal values in one spelling: 7 for 7.0. Empty for what is no value."""
    if not is_scalar(value):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        value = int(value)
    return json.dumps(value, ensure_ascii=False)
