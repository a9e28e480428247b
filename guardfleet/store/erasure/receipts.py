"""Receipts of erasures: what was asked, as digests, and what was removed. A receipt without an end is an erasure to go on with."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from guardfleet.domain import ids
from guardfleet.domain.targets import Kind, Targets
from guardfleet.errors import NotFoundError, RetryableError
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit
from guardfleet.store.postgres.database import Connection, Database

LOCK_KEY = 0x6572_6173  # "eras"
COUNTS = ("texts", "verdicts", "blobs", "provisional", "refusals", "beside", "requests", "files", "jobs", "held", "unread")
SELECT = f"""select e.id, e.public_id, e.tenant_id, e.created_at, e.actor_kind, e.actor, e.kinds, e.digests, e.key_id, e.job_id,
                    j.public_id as job, e.reached_job, e.waiting, e.input_files, e.days, e.finished_at, e.rewritten_at,
                    {", ".join(f"e.{name}" for name in COUNTS)}
             from erasure e left join job j on j.id = e.job_id"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One erasure, as far as it has come."""

    id: int
    public_id: uuid.UUID
    tenant_id: int
    created_at: dt.datetime
    actor_kind: str
    actor: str
    kinds: list[str]
    digests: list[bytes]
    key_id: str
    job_id: int | None
    job: uuid.UUID | None  # None too once it was deleted
    reached_job: int
    waiting: list[int]
    input_files: list[uuid.UUID]
    days: list[dt.date]
    texts: int
    verdicts: int
    blobs: int
    provisional: int
    refusals: int
    beside: int
    requests: int
    files: int
    jobs: int
    held: int
    unread: int
    finished_at: dt.datetime | None
    rewritten_at: dt.datetime | None

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.ERASURE.of(self.public_id)

    @property
    def is_whole(self) -> bool:
        """Whether nothing that was asked for is left: all was searched, nothing is held, and everything could be read."""
        return self.finished_at is not None and not self.held and not self.unread

    @property
    def has_old_bytes(self) -> bool:
        """Whether tables may hold old versions of the rows that it changed, until they are rewritten."""
        changed = (self.refusals, self.provisional, self.beside, self.requests, self.files, self.jobs)
        return self.finished_at is not None and self.rewritten_at is None and bool(self.days or any(changed))

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON, for every face. No value that was asked for is in it."""
        return {
            "id": self.label,
            "created_at": self.created_at.isoformat(timespec="seconds"),
            "finished_at": self.finished_at and self.finished_at.isoformat(timespec="seconds"),
            "rewritten_at": self.rewritten_at and self.rewritten_at.isoformat(timespec="seconds"),
            "complete": self.finished_at is not None,
            "actor": {"type": self.actor_kind, "id": self.actor},
            "targets": [{"kind": kind, "digest": digest.hex()} for kind, digest in zip(self.kinds, self.digests, strict=True)],
            "key_id": self.key_id,
            "job": None if self.job is None else ids.JOB.of(self.job),
            "waiting_for_jobs": len(self.waiting),
            "waiting_for_files": len(self.input_files),
            "counts": {name: getattr(self, name) for name in COUNTS},
        }


def begin(db: Database, keyring: Keyring, tenant_id: int, targets: Targets, job: tuple[int, str] | None) -> Receipt:
    """Return the unfinished erasure of the same targets, or a new one. `job`: its number and label; alone, all of it is erased."""
    pairs = _pairs(targets, job[1] if job else "")
    values: dict[str, Any] = {
        "tenant": tenant_id,
        "kinds": [str(kind) for kind, _ in pairs],
        "digests": digests_of(keyring, tenant_id, targets, job[1] if job else ""),
        "job": job[0] if job else None,
    }
    with db.begin() as connection:  # one after the other, so that two equal requests get one receipt
        connection.execute("select pg_advisory_xact_lock(%(key)s, %(tenant)s::int8::int4)", values | {"key": LOCK_KEY})
        found: int | None = connection.scalar(
            """select id from erasure where tenant_id = %(tenant)s and finished_at is null and digests = %(digests)s::bytea[]
                 and kinds = %(kinds)s::text[] and job_id is not distinct from %(job)s::int8 order by id limit 1""",
            values,
        )
        if found is None:
            found = _create(connection, keyring, values)
            label = ids.ERASURE.of(connection.scalar("select public_id from erasure where id = %(id)s", {"id": found}))
            audit.record(connection, tenant_id, "erasure.begin", label, kinds=sorted(set(values["kinds"])), targets=len(pairs))
    return by_id(db, found)


def unfinished(db: Database, keyring: Keyring, tenant_id: int, label: str) -> Receipt | None:
    """Return the unfinished erasure of a job as a whole, which may be gone by now; None if there is none."""
    digests = digests_of(keyring, tenant_id, Targets(), label)
    with db.session() as connection:
        found: int | None = connection.scalar(
            """select id from erasure where tenant_id = %(tenant)s and finished_at is null and digests = %(digests)s::bytea[]
               order by id limit 1""",
            {"tenant": tenant_id, "digests": digests},
        )
    return None if found is None else by_id(db, found)


def digests_of(keyring: Keyring, tenant_id: int, targets: Targets, label: str) -> list[bytes]:
    """Return the digests by which a receipt of these targets, or of a job as a whole, is known."""
    return [keyring.receipt_digest(tenant_id, f"{kind}/{value}") for kind, value in _pairs(targets, label)]


def _pairs(targets: Targets, label: str) -> list[tuple[Kind, str]]:
    return targets.kinds_and_values() or [(Kind.JOB, label)]


def _create(connection: Connection, keyring: Keyring, values: dict[str, Any]) -> int:
    actor = audit.actor_of(connection)
    made: int = connection.scalar(
        """insert into erasure (tenant_id, actor_kind, actor, kinds, digests, key_id, job_id)
           values (%(tenant)s, %(actor_kind)s, %(actor)s, %(kinds)s, %(digests)s, %(key)s, %(job)s) returning id""",
        values | {"actor_kind": actor.kind, "actor": actor.name[: audit.MOST_NAME], "key": keyring.key_id},
    )
    return made


def add(connection: Connection, receipt_id: int, **counts: int) -> None:
    """Add to its counts, in the transaction that removes what is counted."""
    sums = ", ".join(f"{name} = {name} + %({name})s" for name in counts)
    connection.execute(f"update erasure set {sums} where id = %(id)s", {"id": receipt_id, **counts})


def note(connection: Connection, receipt_id: int, *, day: dt.date | None = None, input_file: uuid.UUID | None = None) -> None:
    """Note the day whose partitions were changed, and the uploaded file that an erased text came from."""
    connection.execute(
        """update erasure set days = case when %(day)s::date is null or days @> array[%(day)s::date] then days
                                          else days || %(day)s::date end,
                  input_files = case when %(file)s::uuid is null or input_files @> array[%(file)s::uuid] then input_files
                                     else input_files || %(file)s::uuid end
           where id = %(id)s""",
        {"id": receipt_id, "day": day, "file": input_file},
    )


def reach(db: Database, receipt_id: int, *, before: int, job_id: int, waits: Sequence[int], **counts: int) -> None:
    """Record that the jobs after `before` up to this one were searched, and which of them are still being filled.

    Raises RetryableError if another call of the same erasure has searched them meanwhile: then it has counted too. No lock is held
    while jobs are searched, since a session lock would be lost in a pooler; searching twice at the same time is safe.
    """
    with db.begin() as connection:
        mine = connection.execute(
            """update erasure set reached_job = %(job)s, waiting = waiting || %(waits)s::int8[]
               where id = %(id)s and reached_job = %(before)s and finished_at is null""",
            {"id": receipt_id, "before": before, "job": job_id, "waits": list(waits)},
        ).rowcount
        if not mine:
            raise RetryableError("the same erasure is at work already: ask again in a moment.")
        add(connection, receipt_id, **counts)


def no_longer(db: Database, receipt_id: int, job_id: int, **counts: int) -> None:
    """Record that a job that was being filled was searched once it no longer was; another call may have done so."""
    with db.begin() as connection:
        mine = connection.execute(
            """update erasure set waiting = array_remove(waiting, %(job)s::int8)
               where id = %(id)s and waiting @> array[%(job)s::int8] and finished_at is null""",
            {"id": receipt_id, "job": job_id},
        ).rowcount
        if mine:
            add(connection, receipt_id, **counts)


def hold_back(db: Database, receipt_id: int, n: int) -> None:
    """Record that a job as a whole, of so many texts, is on hold."""
    with db.begin() as connection:
        connection.execute("update erasure set held = %(n)s where id = %(id)s and finished_at is null", {"id": receipt_id, "n": n})


def finish(db: Database, receipt: Receipt) -> Receipt:
    """End the erasure, unless it waits for something; safe to call twice."""
    with db.begin() as connection:
        ended = connection.execute(
            f"""update erasure set finished_at = now()
                where id = %(id)s and finished_at is null and waiting = '{{}}' and input_files = '{{}}'
                returning {", ".join(COUNTS)}""",
            {"id": receipt.id},
        ).fetchone()
        if ended is not None:
            audit.record(connection, receipt.tenant_id, "erasure.finish", receipt.label, **ended._asdict())
    return by_id(db, receipt.id)


def unrewritten(db: Database, tenant_id: int, digests: Sequence[bytes] | None = None) -> list[Receipt]:
    """Return the receipts whose old bytes are left; with digests, those of erasures that had any of these targets."""
    with db.session() as connection:
        found = (
            connection.cursor(row_factory=class_row(Receipt))
            .execute(
                f"""{SELECT} where e.tenant_id = %(tenant)s and e.finished_at is not null and e.rewritten_at is null
                      and (%(digests)s::bytea[] is null or e.digests && %(digests)s::bytea[]) order by e.id""",
                {"tenant": tenant_id, "digests": None if digests is None else list(digests)},
            )
            .fetchall()
        )
    return [one for one in found if one.has_old_bytes]


def rewritten(db: Database, tenant_id: int, made: Sequence[Receipt]) -> None:
    """Record that no old bytes of these erasures are left."""
    with db.begin() as connection:
        connection.execute(
            "update erasure set rewritten_at = now() where id = any(%(ids)s::int8[]) and rewritten_at is null",
            {"ids": [one.id for one in made]},
        )
        for one in made:
            audit.record(connection, tenant_id, "erasure.rewrite", one.label)


def by_id(db: Database, receipt_id: int) -> Receipt:
    """Return the receipt with this internal id."""
    with db.session() as connection:
        (found,) = connection.cursor(row_factory=class_row(Receipt)).execute(f"{SELECT} where e.id = %(id)s", {"id": receipt_id})
        return found


def get(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> Receipt:
    """Return the receipt. Raises NotFoundError, for another tenant's too."""
    with db.session() as connection:
        found = (
            connection.cursor(row_factory=class_row(Receipt))
            .execute(f"{SELECT} where e.public_id = %(id)s and e.tenant_id = %(tenant)s", {"id": public_id, "tenant": tenant_id})
            .fetchone()
        )
    if found is None:
        raise NotFoundError(ids.ERASURE.unknown)
    return found


def page(db: Database, *, tenant_id: int, after: uuid.UUID | None, limit: int) -> list[Receipt]:
    """Return up to `limit` receipts older than the named one, newest first."""
    with db.session() as connection:
        return (
            connection.cursor(row_factory=class_row(Receipt))
            .execute(
                f"""{SELECT} where e.tenant_id = %(tenant)s and (%(after)s::uuid is null or e.id < (
                      select id from erasure where public_id = %(after)s::uuid and tenant_id = %(tenant)s))
                    order by e.id desc limit %(limit)s""",
                {"tenant": tenant_id, "after": after, "limit": limit},
            )
            .fetchall()
        )
