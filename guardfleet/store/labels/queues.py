"""Queues of reviews: made, changed, and listed for those who review in them."""

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

from psycopg.rows import args_row

from guardfleet.domain import ids
from guardfleet.domain.reviews import Kind, QueueOptions
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.store import audit
from guardfleet.store.postgres.database import Connection, Database

MOST_QUEUES = 500  # of a tenant
OPTIONS = ("name", "reviewers", "second_share", "golden_share", "break_after", "shows_verdict", "lease_s", "is_open")
SELECT = f"""select q.id, q.public_id, q.tenant_id, q.job_id, q.sample_id, q.created_at, s.n, j.public_id as job_public_id,
                    s.public_id as sample_public_id, {", ".join(f"q.{name}" for name in OPTIONS)}
             from review_queue q left join sample s on s.id = q.sample_id left join job j on j.id = q.job_id"""
TAKEN = "there is a queue of this name already: choose another."


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue as its tenant sees it. `sample_texts`: how many texts its sample has."""

    id: int
    public_id: uuid.UUID
    tenant_id: int
    job_id: int | None
    sample_id: int | None
    created_at: dt.datetime
    sample_texts: int | None
    job_public_id: uuid.UUID | None
    sample_public_id: uuid.UUID | None
    options: QueueOptions

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.QUEUE.of(self.public_id)

    @property
    def job(self) -> str | None:
        """The public id of its job."""
        return None if self.job_public_id is None else ids.JOB.of(self.job_public_id)

    @property
    def sample(self) -> str | None:
        """The public id of its sample."""
        return None if self.sample_public_id is None else ids.SAMPLE.of(self.sample_public_id)


FIELDS = tuple(Queue.__dataclass_fields__)


def create(
    db: Database, tenant_id: int, options: QueueOptions, *, job_id: int | None = None, sample_id: int | None = None
) -> Queue:
    """Make a queue of what the policy reviews, of one job or all, or of a sample. Raises RejectedError for a name twice."""
    with db.begin() as connection:
        n = connection.scalar("select count(*) from review_queue where tenant_id = %(tenant)s", {"tenant": tenant_id})
        if n >= MOST_QUEUES:
            raise RejectedError(f"there are {MOST_QUEUES} queues already: change one of them instead.")
        made = connection.scalar(
            f"""insert into review_queue (tenant_id, job_id, sample_id, {", ".join(OPTIONS)})
                values (%(tenant)s, %(job)s, %(sample)s, {", ".join(f"%({name})s" for name in OPTIONS)})
                on conflict (tenant_id, name) do nothing returning public_id""",
            {"tenant": tenant_id, "job": job_id, "sample": sample_id, **_values(options)},
        )
        if made is None:
            raise RejectedError(TAKEN, param="name")
        audit.record(connection, tenant_id, "review_queue.create", ids.QUEUE.of(made))
    return get(db, made, tenant_id=tenant_id)


def change(db: Database, queue: Queue, options: QueueOptions) -> None:
    """Change a queue; what waits in one that is closed may come into another. Raises RejectedError for a name twice."""
    with db.begin() as connection:
        values = {"id": queue.id, **_values(options)}
        connection.execute("select from review_queue where tenant_id = %(tenant)s for update", {"tenant": queue.tenant_id})
        if connection.scalar(
            "select exists (select from review_queue where tenant_id = %(tenant)s and name = %(name)s and id <> %(id)s)",
            {"tenant": queue.tenant_id, **values},
        ):
            raise RejectedError(TAKEN, param="name")
        assignments = ", ".join(f"{name} = %({name})s" for name in OPTIONS)
        connection.execute(f"update review_queue set {assignments} where id = %(id)s", values)
        if not options.is_open:
            _give_up(connection, queue.id)
        changed = [name for name in OPTIONS if getattr(queue.options, name) != getattr(options, name)]
        audit.record(connection, queue.tenant_id, "review_queue.update", queue.label, fields=changed)


def _give_up(connection: Connection, queue_id: int) -> None:
    connection.execute(
        f"""delete from review_task where queue_id = %(queue)s and kind = {Kind.FIRST} and decided_at is null
              and (lease_until is null or lease_until < now())""",
        {"queue": queue_id},
    )


def _values(options: QueueOptions) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in OPTIONS}
    return values | {"reviewers": None if options.reviewers is None else list(options.reviewers)}


def get(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> Queue:
    """Return the queue. Raises NotFoundError, for another tenant's too."""
    with db.session() as connection:
        found = connection.cursor(row_factory=args_row(_queue)).execute(
            f"{SELECT} where q.public_id = %(id)s and q.tenant_id = %(tenant)s", {"id": public_id, "tenant": tenant_id}
        ).fetchone()  # fmt: skip
    if found is None:
        raise NotFoundError(ids.QUEUE.unknown)
    return found


def of_tenant(db: Database, tenant_id: int, *, who: str | None = None) -> list[Queue]:
    """Return the tenant's queues by name; with `who`, the open ones in which this person reviews."""
    with db.session() as connection:
        return connection.cursor(row_factory=args_row(_queue)).execute(
            f"""{SELECT} where q.tenant_id = %(tenant)s
                  and (%(who)s::text is null or (q.is_open and (q.reviewers is null or %(who)s::text = any(q.reviewers))))
                order by q.is_open desc, q.name limit {MOST_QUEUES}""",
            {"tenant": tenant_id, "who": who},
        ).fetchall()  # fmt: skip


def _queue(*row: Any) -> Queue:
    (name, reviewers, *rest), first = row[-len(OPTIONS) :], len(row) - len(OPTIONS)
    options = QueueOptions(name, None if reviewers is None else tuple(reviewers), *rest)
    return Queue(**dict(zip(FIELDS, (*row[:first], options), strict=True)))
