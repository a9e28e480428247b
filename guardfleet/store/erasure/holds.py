"""Legal holds: texts that must not be erased, and jobs that retention leaves alone, until the hold is released.

Invariant: `job.holds` is the number of holds in `held_job`; both change in one transaction that updates the job's row, so whoever
looks at it under a lock before deleting something knows.

A hold by id or subject covers a text wherever an erasure meets it, also inside a job or a file that is erased as a whole; and,
against retention, the jobs that had such a text when the hold was made or last extended, or when an erasure met it there.
"""

import datetime as dt
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from guardfleet.domain import ids
from guardfleet.domain.targets import Kind, Targets, of_value
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, installation
from guardfleet.store.postgres.database import Connection, Database

REASON = re.compile(r"[\w.:/-]{1,100}", re.ASCII)
SELECT = """select h.id, h.public_id, h.tenant_id, h.created_at, h.actor_kind, h.actor, h.kind, j.public_id as job, h.reason,
                   h.released_at, (select count(*) from held_job x where x.hold_id = h.id) as jobs
            from legal_hold h left join job j on j.id = h.job_id"""


@dataclass(frozen=True, slots=True)
class Hold:
    """One hold. What it covers is not shown: only its kind."""

    id: int
    public_id: uuid.UUID
    tenant_id: int
    created_at: dt.datetime
    actor_kind: str
    actor: str
    kind: str
    job: uuid.UUID | None
    reason: str
    released_at: dt.datetime | None
    jobs: int  # that retention leaves alone because of it

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.HOLD.of(self.public_id)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON, for every face."""
        return {
            "id": self.label,
            "created_at": self.created_at.isoformat(timespec="seconds"),
            "released_at": self.released_at and self.released_at.isoformat(timespec="seconds"),
            "actor": {"type": self.actor_kind, "id": self.actor},
            "kind": self.kind,
            "job": None if self.job is None else ids.JOB.of(self.job),
            "reason": self.reason,
            "jobs": self.jobs,
        }


def check_reason(reason: str) -> str:
    """Return the reason. Raises RejectedError if it is more than a code: a reason in words could name the person."""
    if not REASON.fullmatch(reason):
        raise RejectedError("a reason must be a short code, such as case-2026-17: letters, digits and . : / - _", param="reason")
    return reason


def create(
    db: Database, keyring: Keyring, tenant_id: int, kind: Kind, *, value: str | None, job_id: int | None, reason: str
) -> Hold:
    """Create a hold on a job, or on an id or a subject (`value`, as Targets spells it), which covers no job yet."""
    with db.begin() as connection:
        installation.follow(connection, keyring)
        actor = audit.actor_of(connection)
        row: Any = connection.execute(
            """insert into legal_hold (tenant_id, actor_kind, actor, kind, target, key_id, job_id, reason)
               values (%(tenant)s, %(actor_kind)s, %(actor)s, %(kind)s, %(target)s, %(key)s, %(job)s, %(reason)s)
               returning id, public_id""",
            {
                "tenant": tenant_id, "actor_kind": actor.kind, "actor": actor.name[: audit.MOST_NAME], "kind": str(kind),
                "target": None if value is None else keyring.encrypt_secret(value),
                "key": None if value is None else keyring.key_id, "job": job_id, "reason": check_reason(reason),
            },
        ).fetchone()  # fmt: skip
        audit.record(connection, tenant_id, "hold.create", ids.HOLD.of(row.public_id), kind=str(kind), reason=reason)
        if job_id is not None:
            _keep(connection, row.id, [job_id])
    return get(db, row.public_id, tenant_id=tenant_id)


def keep(db: Database, hold: Hold, job_ids: Sequence[int]) -> int:
    """Have retention leave these jobs alone; return how many are new to the hold. A job that is gone by now is left out."""
    with db.begin() as connection:
        open_: bool | None = connection.scalar(
            "select released_at is null from legal_hold where id = %(id)s for update", {"id": hold.id}
        )
        return _keep(connection, hold.id, job_ids) if open_ else 0


def _keep(connection: Connection, hold_id: int, job_ids: Sequence[int]) -> int:
    return connection.execute(
        """with j as (
             update job set holds = holds + 1 where id = any(%(jobs)s::int8[])
               and not exists (select from held_job x where x.hold_id = %(hold)s and x.job_id = job.id) returning id)
           insert into held_job (hold_id, job_id) select %(hold)s, id from j""",
        {"hold": hold_id, "jobs": list(job_ids)},
    ).rowcount


def release(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> Hold:
    """Release a hold and destroy what it says of a person; safe to call twice. Raises NotFoundError."""
    with db.begin() as connection:
        row: Any = connection.execute(
            """select id, released_at, kind from legal_hold where public_id = %(id)s and tenant_id = %(tenant)s for update""",
            {"id": public_id, "tenant": tenant_id},
        ).fetchone()
        if row is None:
            raise NotFoundError(ids.HOLD.unknown)
        if row.released_at is None:
            connection.execute(
                """with x as (delete from held_job where hold_id = %(hold)s returning job_id)
                   update job set holds = holds - 1 from x where job.id = x.job_id""",
                {"hold": row.id},
            )
            connection.execute(
                "update legal_hold set released_at = now(), target = null, key_id = null where id = %(hold)s", {"hold": row.id}
            )
            audit.record(connection, tenant_id, "hold.release", ids.HOLD.of(public_id), kind=row.kind)
    return get(db, public_id, tenant_id=tenant_id)


def get(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> Hold:
    """Return the hold. Raises NotFoundError, for another tenant's too."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Hold))
        found = cursor.execute(
            f"{SELECT} where h.public_id = %(id)s and h.tenant_id = %(tenant)s", {"id": public_id, "tenant": tenant_id}
        ).fetchone()
    if found is None:
        raise NotFoundError(ids.HOLD.unknown)
    return found


def page(db: Database, *, tenant_id: int, after: uuid.UUID | None, limit: int) -> list[Hold]:
    """Return up to `limit` holds older than the named one, released ones too, newest first."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Hold))
        return cursor.execute(
            f"""{SELECT} where h.tenant_id = %(tenant)s and (%(after)s::uuid is null or h.id < (
                  select id from legal_hold where public_id = %(after)s::uuid and tenant_id = %(tenant)s))
                order by h.id desc limit %(limit)s""",
            {"tenant": tenant_id, "after": after, "limit": limit},
        ).fetchall()


def in_force(db: Database, tenant_id: int) -> list[Hold]:
    """Return the tenant's holds by id or subject that are not released."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Hold))
        return cursor.execute(
            f"{SELECT} where h.tenant_id = %(tenant)s and h.released_at is null and h.target is not null order by h.id",
            {"tenant": tenant_id},
        ).fetchall()


def covered(db: Database, keyring: Keyring, tenant_id: int) -> Targets:
    """Return all ids and subjects of the tenant that are on hold. Raises ConfigurationError if one cannot be decrypted."""
    with db.session() as connection:
        rows = connection.execute(
            "select kind, target from legal_hold where tenant_id = %(tenant)s and released_at is null and target is not null",
            {"tenant": tenant_id},
        ).fetchall()
    found = Targets()
    for row in rows:
        found |= of_value(row.kind, keyring.decrypt_secret(bytes(row.target)))
    return found


def target_of(db: Database, keyring: Keyring, hold: Hold) -> Targets:
    """Return what a hold by id or subject covers; nothing once it is released."""
    with db.session() as connection:
        sealed = connection.scalar("select target from legal_hold where id = %(id)s", {"id": hold.id})
    return Targets() if sealed is None else of_value(hold.kind, keyring.decrypt_secret(bytes(sealed)))
