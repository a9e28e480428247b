"""Retries: jobs that judge the failed texts of an ended job again, those of which the verdict or a detection is an error.

Invariant: a text is in at most one retry that has not ended. Retries of one first job are admitted one after the other, under the
lock of its row, and only while no other is still being filled: so whoever fills one sees the texts of all others. `retried` has
each text's place in the first job, and the retry with the highest id is the newest.
"""

import uuid
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from guardfleet.domain import ids
from guardfleet.domain.detection import Outcome
from guardfleet.domain.lanes import Lane
from guardfleet.domain.options import COLUMNS, JobOptions
from guardfleet.domain.verdict import ERASED, Severity
from guardfleet.errors import NotFoundError, RetryableError
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import INGESTING_JOB, UNENDED_JOB

SPAN = 50_000  # texts of the job that one statement looks at: it stays short, however many verdicts are flagged
FIRST_JOBS = """verdict v left join retried o on o.job_id = v.job_id and o.seq = v.seq
                cross join lateral (select coalesce(o.of_seq, v.seq) as of_seq) p"""
# Detections of the span that are errors; of one that was erased there is no text.
FAILED_DETECTION = f"outcome = {int(Outcome.ERROR)} and error is distinct from '{ERASED}'"
IN_WORK = f"l.state is not null and {UNENDED_JOB:l}"
HAS_VERDICT = f"not ({IN_WORK}) and cardinality(l.errors) = 0"
IS_LEFT = f"not ({IN_WORK}) and (l.state is null or cardinality(l.errors) > 0)"


def _errors(of: str, day: str, *, with_detections: bool) -> str:
    """Return in SQL the codes of all that failed in a row of `verdict`, and in its detections; none if nothing did."""
    own = f"case when {of}.severity >= {Severity.ERROR} then array[coalesce({of}.error, 'unreadable')] else '{{}}'::text[] end"
    if not with_detections:
        return own
    return f"""({own} || array(select coalesce(error, 'unreadable') from detection
                             where job_id = {of}.job_id and day = {day} and seq = {of}.seq and {FAILED_DETECTION}))"""


def _failed(job: JobView) -> str:
    """Return in SQL the job's failed texts of a span, with whether each is wanted; those that other retries have are `l`.

    `l`: of each failed text, the newest later retry that has a verdict for it, or may still give one.
    """
    asks = job.detectors is not None
    detected = "select seq from detection where job_id = %(job)s and day = %(day)s and seq >= %(start)s and seq < %(end)s"
    failed = f"v.severity >= {Severity.ERROR}" + (f" or v.seq in ({detected} and {FAILED_DETECTION})" if asks else "")
    return f"""{FIRST_JOBS} left join lateral (
                 select r.state, case when x.job_id is not null then {_errors("x", "r.day", with_detections=asks)} end as errors
                 from retried t join job r on r.id = t.job_id
                 left join verdict x on x.job_id = t.job_id and x.day = r.day and x.seq = t.seq
                 where t.of_job_id = %(first)s and t.of_seq = p.of_seq and t.job_id > v.job_id
                   and (x.job_id is not null or {UNENDED_JOB:r})
                 order by t.job_id desc limit 1) l on true
               cross join lateral (select %(codes)s::text[] is null or %(codes)s::text[] && case when l.state is null
                 then {_errors("v", "v.day", with_detections=asks)} else l.errors end as is_wanted) w
               where v.job_id = %(job)s and v.day = %(day)s and ({failed}) and v.error is distinct from '{ERASED}'
                 and v.seq >= %(start)s and v.seq < %(end)s"""


class OpenRetryError(RetryableError):
    """Another retry of the same job must be looked at first.

    `same`: it is of the same texts. `is_filled`: it may have taken some that were counted. An idle one may be abandoned.
    """

    def __init__(self, label: str, job_id: int, *, same: bool, is_filled: bool, idle_token: int | None) -> None:
        super().__init__(f"another retry of the same job is being prepared, {label}: try again in a moment.")
        self.job_id, self.same, self.is_filled, self.idle_token = job_id, same, is_filled, idle_token


@dataclass(frozen=True, slots=True)
class Counts:
    """The failed texts of a job: in a retry that has not ended, with a verdict from one by now, left, and of these the wanted."""

    failed: int = 0
    in_work: int = 0
    judged: int = 0
    left: int = 0
    wanted: int = 0


class Failed(NamedTuple):
    """A failed text: its place in the job, and in the first job if the job is itself a retry."""

    seq: int
    of_seq: int


def count(db: Database, job: JobView, codes: Sequence[str]) -> Counts:
    """Count the job's failed texts; `codes`: the error codes that are wanted, none for all."""
    sums = [0, 0, 0, 0, 0]
    for start in range(0, job.total, SPAN):
        with db.session() as connection:
            found: Any = connection.execute(
                f"""select count(*) as failed, count(*) filter (where {IN_WORK}) as in_work,
                           count(*) filter (where {HAS_VERDICT}) as judged, count(*) filter (where {IS_LEFT}) as kept,
                           count(*) filter (where {IS_LEFT} and w.is_wanted) as wanted
                    from {_failed(job)}""",
                _span(job, codes, start),
            ).fetchone()
        sums = [a + b for a, b in zip(sums, found, strict=True)]
    return Counts(*sums)


def failed(db: Database, job: JobView, codes: Sequence[str], *, after_line: int = 0) -> Iterator[list[Failed]]:
    """Yield the texts to judge again, in order, a span of the job at a time: a list may be empty. `after_line`: where to resume."""
    for start in range(0, job.total, SPAN):
        with db.session() as connection:
            found = connection.execute(
                f"""select v.seq, p.of_seq from {_failed(job)}
                      and p.of_seq >= %(after)s and {IS_LEFT} and w.is_wanted order by v.seq""",
                _span(job, codes, start) | {"after": after_line},
            ).fetchall()
        yield [Failed(*row) for row in found]


def _span(job: JobView, codes: Sequence[str], start: int) -> dict[str, Any]:
    first = job.origin_id
    return {
        "job": job.id, "day": job.day, "first": first, "start": start, "end": start + SPAN, "codes": list(codes) or None,
    }  # fmt: skip


class Places:
    """Which shard holds a text: eight bytes a shard, so that a job of billions of texts fits."""

    def __init__(self, db: Database, job: JobView) -> None:
        from array import array  # noqa: PLC0415 - used here alone

        with db.session() as connection:
            found = connection.execute(
                "select first_seq, shard_no from shard where job_id = %(job)s order by first_seq", {"job": job.id}
            ).fetchall()
        self._firsts, self._nos = array("i", [row.first_seq for row in found]), array("i", [row.shard_no for row in found])

    def of(self, seq: int) -> tuple[int, int] | None:
        """Return the number and the first text of the shard that holds this text; None if the job has none."""
        at = bisect_right(self._firsts, seq) - 1
        return None if at < 0 else (self._nos[at], self._firsts[at])


def unended(db: Database, fingerprint: bytes, *, tenant_id: int) -> JobView | None:
    """Return the retry of the same texts that has not ended; None if there is none."""
    with db.session() as connection:
        found: uuid.UUID | None = connection.scalar(
            f"""select public_id from job where tenant_id = %(tenant)s and fingerprint = %(fingerprint)s and {UNENDED_JOB}
                order by id desc limit 1""",
            {"tenant": tenant_id, "fingerprint": fingerprint},
        )
    return None if found is None else views.get(db, found, tenant_id=tenant_id)


def unended_of(db: Database, job: JobView) -> list[str]:
    """Return the ids of all retries of the same first job that have not ended."""
    with db.session() as connection:
        found = connection.scalars(
            f"select public_id from job where retry_of = %(first)s and {UNENDED_JOB} order by id",
            {"first": job.origin_id},
        )
    return [ids.JOB.of(public_id) for public_id in found]


def newest_filled(db: Database, job: JobView) -> int:
    """Return the highest id of the retries of the same first job up to which all are filled; 0 if there are none."""
    with db.session() as connection:
        found: int = connection.scalar(
            f"select coalesce(min(id) filter (where {INGESTING_JOB}) - 1, max(id), 0) from job where retry_of = %(first)s",
            {"first": job.origin_id},
        )
    return found


def options_of(db: Database, keyring: Keyring, job: JobView) -> tuple[JobOptions, str | None, str]:
    """Return the options that a retry of the job has, the secret of its callback, and where its lines are requests to."""
    with db.session() as connection:
        row: Any = connection.execute(
            f"""select {", ".join(COLUMNS.values())}, expires_at is null as lasts, endpoint from job where id = %(job)s""",
            {"job": job.id},
        ).fetchone()
        hook: Any = connection.execute("select url, secret from endpoint where job_id = %(job)s", {"job": job.id}).fetchone()
    if row is None:
        raise NotFoundError(f"there is no job {job.label}.")
    values = {name: getattr(row, column) for name, column in COLUMNS.items()}
    values |= {"interactive": row.lane == Lane.INTERACTIVE, "all_or_nothing": False}
    values |= {name: round(values[name], 6) for name in ("confidence_threshold", "audit_fraction")}  # stored with seven digits
    if row.lasts:
        values["completion_window"] = None
    if hook is None:
        return JobOptions(**values), None, row.endpoint
    return JobOptions(**values, callback_url=hook.url), keyring.decrypt_secret(bytes(hook.secret)), row.endpoint


def admit(
    connection: Connection, public_id: uuid.UUID, job: JobView, fingerprint: bytes, codes: Sequence[str], *, newest_filled: int
) -> None:
    """Let the retry be filled, in the transaction that creates it. Raises OpenRetryError if another one goes first.

    `newest_filled`: as it was before the texts were counted. Only a newer one can have taken any of them since, and one of two that
    are created at the same moment may have the higher id and yet be first: both are made anew after a new count.
    """
    values = {"first": job.origin_id, "mine": public_id, "fingerprint": fingerprint}
    if connection.scalar("select id from job where id = %(first)s for update", values) is None:
        raise NotFoundError(f"{job.label} was deleted.")
    other: Any = connection.execute(
        f"""select id, public_id, intake_token, fingerprint = %(fingerprint)s and {UNENDED_JOB} as same,
                   not ({INGESTING_JOB}) as is_filled, {INGESTING_JOB} and intake_lease_until < clock_timestamp() as is_idle
            from job where retry_of = %(first)s and public_id <> %(mine)s
              and ({INGESTING_JOB} or id > %(newest)s or fingerprint = %(fingerprint)s and {UNENDED_JOB})
            order by same desc, is_filled, id limit 1""",
        values | {"newest": newest_filled},
    ).fetchone()
    if other is not None:
        label, idle_token = ids.JOB.of(other.public_id), other.intake_token if other.is_idle else None
        raise OpenRetryError(label, other.id, same=other.same, is_filled=other.is_filled, idle_token=idle_token)
    audit.record(connection, job.tenant_id, "job.retry", job.label, retry=ids.JOB.of(public_id), errors=codes)
