"""A few texts whose caller waits: one job of one shard, sealed from the start, in one commit."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uuid_utils.compat import uuid7

from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import JobState
from guardfleet.errors import StatementError
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.store import installation, verdicts
from guardfleet.store.jobs.new import columns, placeholders, values_of
from guardfleet.store.partitions import ensure_day
from guardfleet.store.postgres.database import UNFLUSHED, Database
from guardfleet.store.words import READY_SHARD
from guardfleet.verdicts.page import Page

TODAY = "(now() at time zone 'utc')::date"  # days follow the server's clock, not that of a process
CREATE = f"""with j as (
               insert into job ({columns()}, id, public_id, tenant_id, day, online, key_id, data_key,
                                state, total, sealed_at, keeps_nothing)
               overriding system value
               select {placeholders()}, %(id)s, %(public_id)s, %(tenant)s, {TODAY}, true, %(key_id)s, %(data_key)s,
                      {JobState.RUNNING}, %(n)s, now(), %(keeps_nothing)s
               where not exists (select from installation_key where is_current and key_id <> %(key_id)s) returning id, day),
             s as (insert into shard (job_id, shard_no, day, lane, first_seq, n, model, published_at, publish_no)
               select id, 0, day, %(lane)s, 0, %(n)s, %(route)s, now(), 1 from j)
             insert into shard_payload (job_id, shard_no, day, blob)
             select id, 0, day, %(blob)s from j, {UNFLUSHED} returning day"""
NO_PARTITION = "23514"


@dataclass(frozen=True, slots=True)
class OnlineJob:
    """An interactive job: where its verdicts will be."""

    id: int
    public_id: uuid.UUID
    day: dt.date
    n: int
    has_detectors: bool = False


def options_of(model: str | None = None, detectors: Sequence[str] | None = None) -> JobOptions:
    """Return the options of such a job: nothing of it stays once it was answered. `detectors`: as in a plan."""
    return JobOptions(
        name="moderation",
        interactive=True,
        model=model,
        detectors=None if detectors is None else list(detectors),
        text_retention_hours=0,
    )


def reserve(db: Database, n: int) -> list[int]:
    """Return ids for jobs to come, so that a caller can listen for a job before it exists."""
    with db.session() as connection:
        return connection.scalars("select nextval(pg_get_serial_sequence('job', 'id')) from generate_series(1, %(n)s)", {"n": n})


def create(
    db: Database,
    keyring: Keyring,
    job_id: int,
    rows: Sequence[PayloadRow],
    options: JobOptions,
    *,
    tenant_id: int,
    keeps_nothing: bool = False,
) -> OnlineJob:
    """Create the sealed job, its one message recorded as published: the caller must publish it. Adds a new day's partitions."""
    job = _made(db, keyring, job_id, rows, options, tenant_id=tenant_id, keeps_nothing=keeps_nothing)
    while job is None:  # the secret key has been rotated
        installation.look(db, keyring)
        job = _made(db, keyring, job_id, rows, options, tenant_id=tenant_id, keeps_nothing=keeps_nothing)
    return job


def _made(
    db: Database,
    keyring: Keyring,
    job_id: int,
    rows: Sequence[PayloadRow],
    options: JobOptions,
    *,
    tenant_id: int,
    keeps_nothing: bool,
) -> OnlineJob | None:
    """Create the job; None if the ring's current key is not the pinned one."""
    public_id, key_id, data_key = uuid7(), keyring.key_id, keyring.new_data_key()
    values = values_of(options) | {
        "id": job_id,
        "public_id": public_id,
        "tenant": tenant_id,
        "key_id": key_id,
        "data_key": data_key,
        "n": len(rows),
        "keeps_nothing": keeps_nothing,
        "blob": keyring.encrypt_rows(data_key, rows, job_id=job_id, shard_no=0),
    }
    try:
        day = _create(db, values)
    except StatementError as error:
        if error.sqlstate != NO_PARTITION:
            raise
        with db.begin() as connection:
            ensure_day(connection, connection.scalar(f"select {TODAY}"))
        day = _create(db, values)
    return None if day is None else OnlineJob(job_id, public_id, day, len(rows), options.detectors is not None)


def _create(db: Database, values: Mapping[str, Any]) -> dt.date | None:
    with db.session() as connection:
        day: dt.date | None = connection.scalar(CREATE, values)
        return day


def found(db: Database, job: OnlineJob) -> Page | None:
    """Return the verdicts in order, or None until they are all there: one commit writes them."""
    page = verdicts.of_one_shard(db, job.id, job.day, with_detections=job.has_detectors)
    return page if len(page.rows) == job.n else None


def forget_message(db: Database, job_id: int) -> None:
    """Record that the message could not be published, so that the dispatcher publishes it."""
    with db.session() as connection:
        connection.execute(
            f"update shard set published_at = null where job_id = %(job)s and shard_no = 0 and {READY_SHARD}", {"job": job_id}
        )
