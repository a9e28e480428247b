"""The tasks of review queues: handed out, answered, taken back.

Invariant: at any time at most one person holds a task; a text is asked about once, unless a second answer is wanted, which is
another person's; nobody is asked about a text twice. It holds because

- `review_task_once` lets a text be in one queue of the tenant, once for each kind but the golden ones;
- claim() takes a row lock and passes locked rows by, writes holder, lease and a new token, and takes a row with a holder only once
  its lease has run out; one person's claims come one after the other (a lock on the person);
- a decision, a skip and an undo are updates of one row that still has the caller's name and token: a form of before is told so, and
  one that was sent twice finds what it has done.

A decision and its label are one transaction, so whoever dies leaves both or neither, and a lease that runs out.
"""

import datetime as dt
from dataclasses import dataclass
from enum import Enum
from typing import Any

from psycopg.rows import class_row

from guardfleet.domain.labels import Source
from guardfleet.domain.reviews import REMEMBERED, Kind
from guardfleet.domain.verdict import Category, Severity
from guardfleet.store.labels import labels
from guardfleet.store.labels.filling import REVIEWED
from guardfleet.store.labels.labels import Given
from guardfleet.store.labels.queues import Queue
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import ERASED_VERDICT

PERSON_KEY = 0x7265_7670  # "revp": locks of a person
UNDO_S = 3600.0  # for how long a decision can be taken back
COLUMNS = "t.id, t.job_id, t.seq, t.kind, t.token, t.wants_second"
SEEN = """exists (select from review_task o where o.job_id = t.job_id and o.seq = t.seq
                    and (%(who)s = any(o.skipped_by) or (o.id <> t.id and o.claimed_by = %(who)s)))"""


class Outcome(Enum):
    """What became of something that a person sent."""

    DONE = "done"
    KNOWN = "known"  # it was sent before
    TAKEN = "taken"  # the task is somebody else's by now, or the form is of before an undo
    GONE = "gone"  # the text was deleted
    DECIDED = "decided"  # it was answered before


@dataclass(frozen=True, slots=True)
class Task:
    """A question that a person holds; `token` has to come back with the answer."""

    id: int
    job_id: int
    seq: int
    kind: int
    token: int
    wants_second: bool

    @property
    def is_measured(self) -> bool:
        """Whether the answer is compared with another one: then nobody is shown what the model said before it."""
        return self.wants_second or self.kind != Kind.FIRST


@dataclass(frozen=True, slots=True)
class Held:
    """The task that a person says they hold."""

    task_id: int
    token: int
    who: str


@dataclass(frozen=True, slots=True)
class Answer(Held):
    """What a person says of the text of a task."""

    author: str  # of the label
    severity: Severity
    categories: Category


def of_person(db: Database, queue: Queue, who: str) -> Task | None:
    """Return what the person holds in the queue."""
    with db.session() as connection:
        return _task(connection, f"select {COLUMNS} from review_task t where t.id = ({_HELD})", {"queue": queue.id, "who": who})


_HELD = """select h.id from review_task h where h.queue_id = %(queue)s and h.claimed_by = %(who)s and h.decided_at is null
             and h.gone_at is null order by h.claimed_at desc limit 1"""


def claim(db: Database, queue: Queue, who: str, *, golden: bool = False) -> Task | None:
    """Give the person what they hold already, else the oldest task that nobody holds; with `golden`, one that measures, if any."""
    values = {
        "queue": queue.id, "who": who, "tenant": queue.tenant_id, "lease": queue.options.lease_s, "key": PERSON_KEY,
    }  # fmt: skip
    with db.begin() as connection:
        connection.execute("select pg_advisory_xact_lock(%(key)s, hashtext(%(tenant)s::text || ' ' || %(who)s))", values)
        mine = _task(
            connection,
            f"""update review_task t set lease_until = now() + make_interval(secs => %(lease)s)
                where t.id = ({_HELD} for update) returning {COLUMNS}""",
            values,
        )
        return mine or (_golden(connection, values) if golden else None) or _free(connection, values)


def _free(connection: Connection, values: dict[str, Any]) -> Task | None:
    return _task(
        connection,
        f"""update review_task t
            set claimed_by = %(who)s, claimed_at = now(), token = t.token + 1,
                lease_until = now() + make_interval(secs => %(lease)s)
            from (select t.id from review_task t join review_queue q on q.id = t.queue_id
                  where t.queue_id = %(queue)s and q.is_open and t.decided_at is null and t.gone_at is null
                    and (t.lease_until is null or t.lease_until < now()) and not {SEEN}
                    and not (t.kind = {Kind.FIRST} and {REVIEWED})
                  order by t.id for update of t skip locked limit 1) x
            where t.id = x.id returning {COLUMNS}""",
        values,
    )


def _golden(connection: Connection, values: dict[str, Any]) -> Task | None:
    """Make a task of a text whose label is known, which somebody else has given, and which the person has not been asked about."""
    return _task(
        connection,
        f"""insert into review_task as t (tenant_id, queue_id, job_id, seq, kind, golden, token,
                                           claimed_by, claimed_at, lease_until)
            select q.tenant_id, q.id, g.job_id, g.seq, {Kind.GOLDEN}, g.severity, 1, %(who)s, now(),
                   now() + make_interval(secs => %(lease)s)
            from review_queue q cross join lateral (
              select l.job_id, l.seq, l.severity from (
                select distinct on (l.job_id, l.seq) l.job_id, l.seq, l.severity, l.author from label l
                where l.tenant_id = q.tenant_id and l.source = {Source.GOLDEN} order by l.job_id, l.seq, l.id desc) l
              join job j on j.id = l.job_id and j.purged_at is null
              where l.author <> %(who)s and not exists (
                select from review_task o where o.job_id = l.job_id and o.seq = l.seq
                  and (%(who)s = any(o.skipped_by) or o.claimed_by = %(who)s))
              order by random() limit 1) g
            where q.id = %(queue)s and q.is_open returning {COLUMNS}""",
        values,
    )


def decide(db: Database, queue: Queue, answer: Answer) -> Outcome:
    """Store an answer, and the label that it is, unless the task only measures; ask for a second one if that was drawn."""
    with db.begin() as connection:
        task = _locked(connection, queue, answer)
        if task is Outcome.DECIDED:
            before = connection.execute("select severity, categories from review_task where id = %(id)s", {"id": answer.task_id})
            is_same = tuple(before.fetchone() or ()) == (int(answer.severity), int(answer.categories))
            return Outcome.KNOWN if is_same else Outcome.TAKEN
        if isinstance(task, Outcome):
            return task
        label_id = None
        if task.kind != Kind.GOLDEN:
            said = (Source.REVIEWER, answer.author, answer.severity, answer.categories, queue.sample_id)
            label_id = next(iter(labels.put(connection, queue.tenant_id, [Given(task.job_id, task.seq, *said)])), None)
        connection.execute(
            """update review_task set decided_at = clock_timestamp(), severity = %(severity)s, categories = %(categories)s,
                                      label_id = %(label)s, lease_until = null where id = %(id)s""",
            {"id": task.id, "severity": answer.severity, "categories": answer.categories, "label": label_id},
        )
        if task.kind == Kind.FIRST and task.wants_second:
            connection.execute(
                f"""insert into review_task (tenant_id, queue_id, job_id, seq, kind)
                    select tenant_id, queue_id, job_id, seq, {Kind.SECOND} from review_task where id = %(id)s
                    on conflict do nothing""",
                {"id": task.id},
            )
    return Outcome.DONE


def skip(db: Database, queue: Queue, mine: Held, *, is_gone: bool) -> Outcome:
    """Give a task back, for others and never again for this person; one whose text is gone, for nobody."""
    with db.begin() as connection:
        task = _locked(connection, queue, mine)
        if isinstance(task, Outcome):
            return Outcome.TAKEN if task is Outcome.DECIDED else task
        connection.execute(
            """update review_task set skipped_by = skipped_by || %(who)s::text, claimed_by = null, claimed_at = null,
                 lease_until = null, token = token + 1, gone_at = case when %(gone)s then now() end where id = %(id)s""",
            {"id": task.id, "who": mine.who, "gone": is_gone},
        )
    return Outcome.DONE


def _locked(connection: Connection, queue: Queue, held: Held) -> Task | Outcome:
    """Return the task of the queue, locked, if who holds it may change it; else what to tell the person."""
    values = {"id": held.task_id, "queue": queue.id}
    row: Any = connection.execute(
        f"""select {COLUMNS}, t.claimed_by, t.decided_at, t.skipped_by, t.gone_at
            from review_task t where t.id = %(id)s and t.queue_id = %(queue)s for update""",
        values,
    ).fetchone()
    if row is None:
        return Outcome.GONE
    if held.who in row.skipped_by and row.token == held.token + 1 and row.claimed_by is None:
        return Outcome.KNOWN
    if row.claimed_by != held.who or row.token != held.token:
        return Outcome.TAKEN
    if row.decided_at is not None:
        return Outcome.DECIDED
    is_erased = connection.scalar(
        f"""select exists (select from verdict v where v.job_id = %(job)s and v.seq = %(seq)s and {ERASED_VERDICT}
                           and v.day = (select j.day from job j where j.id = %(job)s))""",
        {"job": row.job_id, "seq": row.seq},
    )
    if is_erased:
        connection.execute("delete from review_task where id = %(id)s", values)
        return Outcome.GONE
    return Task(*row[:6])


def last(db: Database, queue: Queue, who: str) -> Any:
    """Return the person's last decision in the queue that can be taken back; None if there is none."""
    with db.session() as connection:
        return connection.execute(
            f"""select t.id, t.job_id, t.seq, t.severity from review_task t
                where t.tenant_id = %(tenant)s and t.claimed_by = %(who)s and t.queue_id = %(queue)s
                  and t.kind <> {Kind.RESOLUTION} and t.decided_at > now() - make_interval(secs => {UNDO_S})
                order by t.decided_at desc limit 1""",
            {"tenant": queue.tenant_id, "who": who, "queue": queue.id},
        ).fetchone()


def undo(db: Database, queue: Queue, who: str, task_id: int) -> Outcome:
    """Take a decision back, with its label, and give the task to the person again; not once somebody has resolved the case."""
    values = {"id": task_id, "who": who, "queue": queue.id, "lease": queue.options.lease_s}
    with db.begin() as connection:
        row: Any = connection.execute(
            f"""select t.id, t.job_id, t.seq, t.kind, t.label_id, t.decided_at from review_task t
                where t.id = %(id)s and t.queue_id = %(queue)s and t.claimed_by = %(who)s and t.kind <> {Kind.RESOLUTION}
                  and (t.decided_at is null or t.decided_at > now() - make_interval(secs => {UNDO_S})) for update""",
            values,
        ).fetchone()
        if row is None:
            return Outcome.TAKEN
        if row.decided_at is None:
            return Outcome.KNOWN
        of_text = "job_id = %(job)s and seq = %(seq)s"
        values |= {"job": row.job_id, "seq": row.seq}
        if connection.scalar(f"select exists (select from review_task where {of_text} and kind = {Kind.RESOLUTION})", values):
            return Outcome.TAKEN
        if row.label_id is not None:
            labels.retract(connection, queue.tenant_id, row.label_id)
        if row.kind == Kind.FIRST:
            unasked = f"kind = {Kind.SECOND} and claimed_by is null and skipped_by = '{{}}'"
            connection.execute(f"delete from review_task where {of_text} and {unasked}", values)
        connection.execute(
            """update review_task set decided_at = null, severity = null, categories = 0, label_id = null, claimed_at = now(),
                 lease_until = now() + make_interval(secs => %(lease)s), token = token + 1 where id = %(id)s""",
            values,
        )
    return Outcome.DONE


def decided(db: Database, tenant_id: int, who: str) -> list[tuple[dt.datetime, Severity]]:
    """Return when the person decided what of late, newest first."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select decided_at, severity from review_task
                where tenant_id = %(tenant)s and claimed_by = %(who)s and decided_at > now() - interval '1 day'
                order by decided_at desc limit {REMEMBERED}""",
            {"tenant": tenant_id, "who": who},
        )
        return [(row.decided_at, Severity(row.severity)) for row in rows]


def _task(connection: Connection, statement: str, values: dict[str, Any]) -> Task | None:
    return connection.cursor(row_factory=class_row(Task)).execute(statement, values).fetchone()
