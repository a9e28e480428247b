"""Labels from files and requests: each is checked, its text is found, and it is stored once; or it is refused with a reason."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guardfleet.domain import ids
from guardfleet.domain.labels import MOST_AUTHOR, Source
from guardfleet.domain.verdict import CATEGORY_NAMES, Category, Severity, categories_of
from guardfleet.errors import NotFoundError
from guardfleet.store.labels import labels, samples
from guardfleet.store.labels.labels import Given
from guardfleet.store.postgres.database import Database

AT_ONCE = 1000  # labels that one transaction stores
MOST_SEQ = 2**31 - 1
JUDGED = {severity.label: severity for severity in (Severity.SAFE, Severity.CONTROVERSIAL, Severity.UNSAFE)}
SOURCES = {source.label: source for source in Source}
NOTHING = ("", "none", None, ())  # of categories


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a label was not taken; `code` is for programs. Neither quotes what was given: it could be anything."""

    code: str
    detail: str


NO_SUCH_TEXT = Refused("no_such_text", "the batch has no verdict for this text")
NOT_FOUND = Refused("not_found", "there is no such batch, or no such sample")
UNLABELLED = Refused("unlabelled", "it has no label")


@dataclass(frozen=True, slots=True)
class Asked:
    """A label as it was given."""

    job: uuid.UUID
    seq: int | None
    row_id: str | None
    sample: uuid.UUID | None
    source: Source
    author: str
    severity: Severity
    categories: Category


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the members of a label are that does not say them itself."""

    job: str | None = None
    source: str | None = None
    author: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of labels: how many are new, how many were there already, and why others were refused, by their place."""

    new: int
    known: int
    refused: Mapping[int, Refused]


def read(given: Mapping[str, Any], defaults: Defaults) -> Asked | Refused:
    """Return the label that a row or an object is."""
    label = given.get("label")
    if label is None or (isinstance(label, str) and not label.strip()):
        return UNLABELLED
    said, place = _said(label, given), _place(given, defaults)
    whose = _whose(given, defaults)
    wrong = next((one for one in (said, whose, place) if isinstance(one, Refused)), None)
    return wrong or Asked(*place, *whose, *said)  # type: ignore[misc]


def _said(label: object, given: Mapping[str, Any]) -> Refused | tuple[Severity, Category]:
    severity = JUDGED.get(label.strip().lower()) if isinstance(label, str) else None
    if severity is None:
        return Refused("unknown_label", f"label is none of {', '.join(JUDGED)}")
    categories = _categories(given.get("categories"))
    if categories is None:
        return Refused("unknown_category", f"a category is none of {', '.join(CATEGORY_NAMES.values())}")
    if categories and severity is Severity.SAFE:
        return Refused("safe_with_categories", "a safe text has no categories")
    return severity, categories


def _whose(given: Mapping[str, Any], defaults: Defaults) -> Refused | tuple[Source, str]:
    source = SOURCES.get(str(given.get("source") or defaults.source))
    if source is None:
        return Refused("unknown_source", f"source is none of {', '.join(SOURCES)}")
    author = given.get("author") or defaults.author
    if not isinstance(author, str) or not 0 < len(author) <= MOST_AUTHOR or not author.isprintable():
        return Refused("invalid_author", f"author has to be a name of at most {MOST_AUTHOR} printable characters")
    return source, author


def _place(given: Mapping[str, Any], defaults: Defaults) -> Refused | tuple[uuid.UUID, int | None, str | None, uuid.UUID | None]:
    seq, row_id = _seq(given.get("seq")), given.get("row_id")
    sample = given.get("sample_id") or None
    row_id = None if row_id in (None, "") else str(row_id)
    if isinstance(seq, Refused):
        return seq
    if row_id is not None and ("\0" in row_id or row_id.encode("utf-8", "replace").decode() != row_id):
        return NO_SUCH_TEXT
    if seq is None and row_id is None:
        return Refused("no_text", "it names no text: give seq, or the id that you gave it")
    try:
        job = ids.JOB.parse(str(given.get("batch_id") or given.get("job") or defaults.job))
        return job, seq, row_id, None if sample is None else ids.SAMPLE.parse(str(sample))
    except NotFoundError:
        return NOT_FOUND


def _seq(value: Any) -> int | Refused | None:
    if value in (None, ""):
        return None
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_SEQ))):
        return Refused("invalid_seq", "seq is no place in the input, which is counted from 0")
    return int(text) if int(text) <= MOST_SEQ else Refused("invalid_seq", f"seq is at most {MOST_SEQ}")


def _categories(value: Any) -> Category | None:
    """Return the bits of a list of names, or of names with semicolons as in our CSV files; None for one that is unknown."""
    names = [name.strip() for name in value.split(";")] if isinstance(value, str) else list(value) if value else []
    try:
        return categories_of(name for name in names if (name.lower() if isinstance(name, str) else name) not in NOTHING)
    except (KeyError, TypeError):
        return None


def store(db: Database, tenant_id: int, asked: Sequence[Asked | Refused]) -> Taken:
    """Store labels of the tenant's texts, AT_ONCE a transaction; sent again, they are not stored twice."""
    refused: dict[int, Refused] = {at: one for at, one in enumerate(asked) if isinstance(one, Refused)}
    new = known = 0
    for start in range(0, len(asked), AT_ONCE):
        some = {at: one for at, one in enumerate(asked[start : start + AT_ONCE], start) if isinstance(one, Asked)}
        given, wrong = _found(db, tenant_id, some)
        refused |= wrong
        made = labels.add(db, tenant_id, given)
        new, known = new + made, known + len(given) - made
    return Taken(new, known, dict(sorted(refused.items())))


def _found(db: Database, tenant_id: int, some: Mapping[int, Asked]) -> tuple[list[Given], dict[int, Refused]]:
    """Return the labels with their texts found, in their order, and those without a text."""
    jobs = labels.jobs_of(db, tenant_id, {one.job for one in some.values()})
    drawn = samples.known(db, tenant_id, list({one.sample for one in some.values() if one.sample is not None}))
    of_job: dict[uuid.UUID, list[tuple[int, Asked]]] = {}
    for at, one in some.items():
        of_job.setdefault(one.job, []).append((at, one))
    found: dict[int, Given] = {}
    refused: dict[int, Refused] = {}
    for job, group in of_job.items():
        if job not in jobs:
            refused |= {at: NOT_FOUND for at, _ in group}
            continue
        for at, answer in _placed(db, *jobs[job], group, drawn).items():
            if isinstance(answer, Refused):
                refused[at] = answer
            else:
                found[at] = answer
    there = samples.having(db, [(one.sample, one.job_id, one.seq) for one in found.values() if one.sample is not None])
    for at, placed in list(found.items()):
        if placed.sample is not None and (placed.sample, placed.job_id, placed.seq) not in there:
            refused[at] = Refused("not_in_sample", "the sample that it names does not have this text")
            del found[at]
    return [found[at] for at in sorted(found)], refused


def _placed(
    db: Database, job_id: int, day: Any, group: Sequence[tuple[int, Asked]], drawn: Mapping[uuid.UUID, int]
) -> dict[int, Given | Refused]:
    there = labels.places(
        db,
        job_id,
        day,
        seqs=[one.seq for _, one in group if one.seq is not None],
        row_ids=[one.row_id for _, one in group if one.seq is None and one.row_id is not None],
    )
    by_seq, by_id = dict(there), {row_id: seq for seq, row_id in there}
    out: dict[int, Given | Refused] = {}
    for at, one in group:
        seq = one.seq if one.seq is not None else by_id.get(one.row_id)
        if seq is None or seq not in by_seq:
            out[at] = NO_SUCH_TEXT
        elif one.row_id is not None and by_seq[seq] not in (one.row_id, one.row_id.removeprefix("'")):  # --spreadsheet-safe
            out[at] = Refused("another_text", "seq and id are not of the same text")
        elif one.sample is not None and one.sample not in drawn:
            out[at] = NOT_FOUND
        else:
            sample = None if one.sample is None else drawn[one.sample]
            out[at] = Given(job_id, seq, one.source, one.author, one.severity, one.categories, sample)
    return out
