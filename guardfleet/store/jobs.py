"""Jobs: created, sealed, looked at, cancelled. Lock order everywhere: shard, then job."""

import datetime as dt
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, text
from uuid_utils.compat import uuid7

from guardfleet.errors import ConfigurationError, NotFoundError
from guardfleet.plan import DEFAULT_PLAN, Plan
from guardfleet.sealing import Keyring
from guardfleet.states import JobState
from guardfleet.store.database import Database
from guardfleet.store.partitions import ensure_day

DEFAULT_TENANT = 1
EVENT_KINDS = ("batch.completed", "batch.cancelled", "batch.failed")
LANES: Mapping[str, int] = {"bulk": 0, "interactive": 1}


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a producer says of a job before its first text."""

    name: str
    tenant_id: int = DEFAULT_TENANT
    lane: int = 0
    fingerprint: bytes | None = None
    metadata: dict[str, Any] | None = None
    callback_url: str | None = None
    callback_secret: str | None = None
    plan: Plan = DEFAULT_PLAN


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that takes texts."""

    id: int
    public_id: uuid.UUID
    tenant_id: int
    day: dt.date
    lane: int
    data_key: bytes  # wrapped
    model: str | None  # the only one that may judge it; None: any


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as anyone may look at it: one primary-key read."""

    id: int
    public_id: uuid.UUID
    tenant_id: int
    name: str
    day: dt.date
    state: JobState
    total: int
    rejected: int
    done: int
    safe: int
    controversial: int
    unsafe: int
    error: int
    saved: int
    next_ord: int
    created_at: dt.datetime
    sealed_at: dt.datetime | None
    finished_at: dt.datetime | None
    reason: str | None
    metadata: dict[str, Any] | None
    model: str | None
    is_demo: bool
    first_model: str | None
    second_model: str | None
    sure: float
    sample: float
    long_texts: str | None
    escalated: int
    sampled: int
    agreed: int

    @property
    def label(self) -> str:
        """The public name, `job_` and 32 hex digits."""
        return job_label(self.public_id)


def job_label(public_id: uuid.UUID) -> str:
    """The name that users see and give back."""
    return f"job_{public_id.hex}"


def parse_label(label: str) -> uuid.UUID:
    """The inverse of `job_label`, for `batch_` too; raises NotFoundError for what can be no job."""
    try:
        return uuid.UUID(label.removeprefix("job_").removeprefix("batch_"))
    except ValueError:
        raise NotFoundError(f"there is no job {label!r}.") from None


def create(db: Database, keyring: Keyring, new: NewJob) -> OpenJob:
    """A job in state INGESTING, its day's partitions, and its callback endpoint."""
    public_id, data_key = uuid7(), keyring.new_data_key()
    with db.begin() as connection:
        day = connection.execute(text("select (now() at time zone 'utc')::date")).scalar_one()
        ensure_day(connection, day)
        job_id: int = connection.execute(
            text("""insert into job (public_id, tenant_id, day, lane, name, fingerprint, metadata, key_id, data_key,
                                     first_model, second_model, sure, sample, long_texts)
                    values (:public_id, :tenant, :day, :lane, :name, :fingerprint, cast(:metadata as jsonb), :key_id, :data_key,
                            :model, :second_model, :sure, :sample, :long_texts)
                    returning id"""),
            {
                "public_id": public_id,
                "tenant": new.tenant_id,
                "day": day,
                "lane": new.lane,
                "name": new.name,
                "fingerprint": new.fingerprint,
                "metadata": _json(new.metadata),
                "key_id": keyring.key_id,
                "data_key": data_key,
                **asdict(new.plan.check()),
            },
        ).scalar_one()
        if new.callback_url and new.callback_secret:
            connection.execute(
                text("""insert into endpoint (tenant_id, job_id, url, secret, kinds)
                        values (:tenant, :job, :url, :secret, :kinds)"""),
                {
                    "tenant": new.tenant_id,
                    "job": job_id,
                    "url": new.callback_url,
                    "secret": keyring.seal_secret(new.callback_secret),
                    "kinds": list(EVENT_KINDS),
                },
            )
        _audit(connection, new.tenant_id, "job.create", job_label(public_id))
    return OpenJob(job_id, public_id, new.tenant_id, day, new.lane, data_key, new.plan.model)


def seal(db: Database, job_id: int) -> None:
    """All shards are committed: the job may be published. A job without texts is complete at once. Safe to call twice."""
    with db.begin() as connection:
        connection.execute(
            text("""with j as (
                      update job set state = case when total = done then 2 else 1 end, sealed_at = now(),
                             finished_at = case when total = done then now() end
                      where id = :job and state = 0 returning id, public_id, tenant_id, state)
                    insert into outbox (event_id, tenant_id, job_id, kind)
                    select 'evt_' || replace(public_id::text, '-', '') || '_completed', tenant_id, id, 'batch.completed'
                    from j where state = 2"""),
            {"job": job_id},
        )


def abandon(db: Database, job_id: int, reason: str) -> None:
    """The input could not be taken in: the job is FAILED, its texts are deleted, its owner is told."""
    with db.begin() as connection:
        connection.execute(
            text("""with j as (
                      update job set state = 5, finished_at = now(), purged_at = now(), data_key = null, reason = :reason
                      where id = :job and state = 0 returning id, public_id, tenant_id),
                    s as (delete from shard using j where shard.job_id = j.id),
                    p as (delete from shard_payload using j where shard_payload.job_id = j.id)
                    insert into outbox (event_id, tenant_id, job_id, kind)
                    select 'evt_' || replace(public_id::text, '-', '') || '_failed', tenant_id, id, 'batch.failed' from j"""),
            {"job": job_id, "reason": reason[:1000]},
        )


def cancel(db: Database, job_id: int) -> None:
    """Stop a running job: ready shards are dropped, leased ones may still finish. Verdicts stay. Safe to call twice."""
    with db.begin() as connection:
        connection.execute(
            text("update shard set state = 3, published_at = null where job_id = :job and state = 0"), {"job": job_id}
        )
        row = connection.execute(
            text("""update job set state = 3 where id = :job and state = 1 returning tenant_id, public_id"""), {"job": job_id}
        ).one_or_none()
        if row:
            _audit(connection, row.tenant_id, "job.cancel", job_label(row.public_id))
        _settle_cancelled(connection, job_id)


def settle_cancelled(db: Database) -> int:
    """Close cancelling jobs whose last lease is gone; returns how many."""
    with db.begin() as connection:
        return _settle_cancelled(connection, None)


def _settle_cancelled(connection: Connection, job_id: int | None) -> int:
    # A ready shard in a cancelling job came back from a lease that ended between cancel() and now: it is dropped here.
    connection.execute(
        text("""with x as materialized (
                  select s.job_id, s.shard_no from shard s join job j on j.id = s.job_id
                  where j.state = 3 and (cast(:job as bigint) is null or j.id = :job) and s.state = 0
                  for update of s skip locked)
                update shard s set state = 3, published_at = null
                from x where s.job_id = x.job_id and s.shard_no = x.shard_no"""),
        {"job": job_id},
    )
    return connection.execute(
        text("""with j as (
                  update job set state = 4, finished_at = now()
                  where state = 3 and (cast(:job as bigint) is null or id = :job)
                    and not exists (select from shard where shard.job_id = job.id and shard.state in (0, 1))
                  returning id, public_id, tenant_id)
                insert into outbox (event_id, tenant_id, job_id, kind)
                select 'evt_' || replace(public_id::text, '-', '') || '_cancelled', tenant_id, id, 'batch.cancelled' from j"""),
        {"job": job_id},
    ).rowcount


SELECT = """select j.*, m.name || '@' || left(m.revision, 12) as model, coalesce(m.is_demo, false) as is_demo
            from job j left join model m on m.id = j.model_id """


def get(db: Database, public_id: uuid.UUID, *, tenant_id: int = DEFAULT_TENANT) -> JobView:
    """The job; raises NotFoundError, for another tenant's job too."""
    with db.begin() as connection:
        row = connection.execute(
            text(SELECT + "where j.public_id = :id and j.tenant_id = :tenant"), {"id": public_id, "tenant": tenant_id}
        ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {job_label(public_id)}.")
    return _view(row)


def get_by_id(db: Database, job_id: int) -> JobView:
    """The job by its internal id, whoever owns it: for guardfleet's own processes."""
    with db.begin() as connection:
        return _view(connection.execute(text(SELECT + "where j.id = :id"), {"id": job_id}).one())


def require_key(db: Database, keyring: Keyring) -> None:
    """Raise ConfigurationError when open jobs are sealed with another key: a process without it would fail every one of them."""
    with db.begin() as connection:
        other = connection.execute(
            text("select key_id from job where state in (0, 1, 3) and key_id <> :key limit 1"), {"key": keyring.key_id}
        ).scalar_one_or_none()
    if other:
        raise ConfigurationError(
            f"open jobs are sealed with secret key {other}, this process has {keyring.key_id}: set the same one."
        )


def find(db: Database, fingerprint: bytes, *, tenant_id: int = DEFAULT_TENANT) -> JobView | None:
    """The newest job of the same submission that was not given up."""
    with db.begin() as connection:
        row = connection.execute(
            text(
                SELECT
                + """where j.tenant_id = :tenant and j.fingerprint = :fingerprint and j.state in (0, 1, 2)
                             order by j.id desc limit 1"""
            ),
            {"tenant": tenant_id, "fingerprint": fingerprint},
        ).one_or_none()
    return _view(row) if row else None


def summary(db: Database, job: JobView) -> dict[tuple[int, int], int]:
    """Texts by (severity, category bits); one pass over the job's verdicts."""
    with db.begin() as connection:
        rows = connection.execute(
            text("select severity, categories, count(*) as n from verdict where job_id = :job and day = :day group by 1, 2"),
            {"job": job.id, "day": job.day},
        )
        return {(row.severity, row.categories): row.n for row in rows}


def _view(row: Row[Any]) -> JobView:
    known = {name: getattr(row, name) for name in JobView.__slots__ if name != "state"}
    return JobView(state=JobState(row.state), **known)


def _audit(connection: Connection, tenant_id: int, action: str, subject: str) -> None:
    connection.execute(
        text("insert into audit_event (tenant_id, actor, action, subject) values (:tenant, current_user, :action, :subject)"),
        {"tenant": tenant_id, "action": action, "subject": subject},
    )


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)
