"""What became of a queue of reviews: counts, pairs of answers, cases in which two people differ, and their resolution."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg.rows import class_row

from guardfleet.domain.labels import Source
from guardfleet.domain.reviews import Kind
from guardfleet.store.labels import labels
from guardfleet.store.labels.labels import Given
from guardfleet.store.labels.queues import Queue
from guardfleet.store.labels.tasks import Answer, Outcome
from guardfleet.store.postgres.database import Database

PAIR = f"""from review_task f join review_task s on s.job_id = f.job_id and s.seq = f.seq and s.kind = {Kind.SECOND}
           left join review_task r on r.job_id = f.job_id and r.seq = f.seq and r.kind = {Kind.RESOLUTION}
           where f.queue_id = %(queue)s and f.kind = {Kind.FIRST} and f.decided_at is not null and s.decided_at is not null"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many texts of a queue are where; `seconds`: second answers that are waited for."""

    texts: int
    decided: int
    held: int
    waiting: int
    gone: int
    seconds: int
    skips: int


@dataclass(frozen=True, slots=True)
class Reviewer:
    """What a person has decided in a queue; nothing of it says how fast."""

    who: str
    name: str | None  # as of a session that is not over
    decided: int
    seconds: int
    golden: int
    golden_right: int


class Pair(NamedTuple):
    """What the first and the second reviewer said, and of how many texts."""

    first: int
    second: int
    texts: int


@dataclass(frozen=True, slots=True)
class Case:
    """A text of which two people said different things; `resolved`: the severity that was decided on."""

    id: int  # of the first task
    job_id: int
    seq: int
    first: int
    first_categories: int
    first_by: str
    second: int
    second_categories: int
    second_by: str
    decided_at: dt.datetime
    resolved: int | None
    resolved_by: str | None


def progress(db: Database, queue: Queue) -> Progress:
    """Count the queue's tasks."""
    is_held = "decided_at is null and gone_at is null and lease_until > now()"
    first = f"kind = {Kind.FIRST}"
    with db.session() as connection:
        return connection.cursor(row_factory=class_row(Progress)).execute(
            f"""select count(*) filter (where {first}) as texts,
                       count(*) filter (where {first} and decided_at is not null) as decided,
                       count(*) filter (where {first} and {is_held}) as held,
                       count(*) filter (where {first} and decided_at is null and gone_at is null
                                          and not coalesce(lease_until > now(), false)) as waiting,
                       count(*) filter (where gone_at is not null) as gone,
                       count(*) filter (where kind = {Kind.SECOND} and decided_at is null and gone_at is null) as seconds,
                       coalesce(sum(cardinality(skipped_by)), 0)::int8 as skips
                from review_task where queue_id = %(queue)s""",
            {"queue": queue.id},
        ).fetchone()  # type: ignore[return-value]  # fmt: skip


def reviewers(db: Database, queue: Queue) -> list[Reviewer]:
    """Return who decided how much, by name."""
    with db.session() as connection:
        return connection.cursor(row_factory=class_row(Reviewer)).execute(
            f"""select x.*, (select s.name from console_session s where s.tenant_id = %(tenant)s and s.who = x.who
                             order by s.id desc limit 1) as name
                from (select claimed_by as who, count(*) filter (where kind = {Kind.FIRST}) as decided,
                             count(*) filter (where kind = {Kind.SECOND}) as seconds,
                             count(*) filter (where kind = {Kind.GOLDEN}) as golden,
                             count(*) filter (where kind = {Kind.GOLDEN} and severity = golden) as golden_right
                      from review_task where queue_id = %(queue)s and decided_at is not null and kind <> {Kind.RESOLUTION}
                      group by 1) x
                order by name nulls last, x.who""",
            {"queue": queue.id, "tenant": queue.tenant_id},
        ).fetchall()  # fmt: skip


def pairs(db: Database, queue: Queue) -> list[Pair]:
    """Return what first and second reviewers said, counted."""
    with db.session() as connection:
        rows = connection.execute(
            f"select f.severity as first, s.severity as second, count(*) as texts {PAIR} group by 1, 2 order by 1, 2",
            {"queue": queue.id},
        )
        return [Pair(*row) for row in rows]


def cases(db: Database, queue: Queue, *, after: int = 0, limit: int, task_id: int | None = None) -> list[Case]:
    """Return texts on which two people differ, unresolved ones and others, after one of them; or the one of this task."""
    with db.session() as connection:
        return connection.cursor(row_factory=class_row(Case)).execute(
            f"""select f.id, f.job_id, f.seq, f.severity as first, f.categories as first_categories, f.claimed_by as first_by,
                       s.severity as second, s.categories as second_categories, s.claimed_by as second_by, s.decided_at,
                       r.severity as resolved, r.claimed_by as resolved_by
                {PAIR} and f.severity <> s.severity and f.id > %(after)s and (%(task)s::int8 is null or f.id = %(task)s::int8)
                order by f.id limit %(limit)s""",
            {"queue": queue.id, "after": after, "limit": limit, "task": task_id},
        ).fetchall()  # fmt: skip


def resolve(db: Database, queue: Queue, case: Case, answer: Answer) -> Outcome:
    """Store which answer is right, once, as a decision after all others (`Source.APPEAL`); never one's own case."""
    if answer.who in (case.first_by, case.second_by):
        return Outcome.TAKEN
    with db.begin() as connection:
        made: Any = connection.scalar(
            f"""insert into review_task (tenant_id, queue_id, job_id, seq, kind, claimed_by, claimed_at, token, severity,
                                         categories, decided_at)
                select f.tenant_id, f.queue_id, f.job_id, f.seq, {Kind.RESOLUTION}, %(who)s, now(), 1, %(severity)s,
                       %(categories)s, now() {PAIR} and f.id = %(id)s and r.id is null on conflict do nothing returning id""",
            {
                "queue": queue.id, "id": case.id, "who": answer.who, "severity": answer.severity, "categories": answer.categories,
            },
        )  # fmt: skip
        if made is None:
            return Outcome.KNOWN
        given = Given(case.job_id, case.seq, Source.APPEAL, answer.author, answer.severity, answer.categories)
        label = next(iter(labels.put(connection, queue.tenant_id, [given])), None)
        connection.execute("update review_task set label_id = %(label)s where id = %(id)s", {"label": label, "id": made})
    return Outcome.DONE
