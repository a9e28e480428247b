"""Intakes whose submitter has gone: taking them over, and abandoning them."""

import datetime as dt
import uuid
from typing import Any

from psycopg.rows import kwargs_row

from guardfleet.domain import ids
from guardfleet.domain.lanes import Lane
from guardfleet.store import audit
from guardfleet.store.jobs import intake
from guardfleet.store.jobs.intake import INTAKE_LEASE_S, OpenJob
from guardfleet.store.postgres.database import Database
from guardfleet.store.words import INGESTING_JOB, public_id

# Columns of OpenJob.
OPENED = """j.id, j.public_id, j.tenant_id, j.day, j.lane, j.data_key, j.first_model as model, j.intake_token as token,
            j.intake_line as line, j.total as texts, j.retry_of,
            (select coalesce(max(shard_no) + 1, 0) from shard where job_id = j.id) as shards"""
TAKEN_OVER = audit.each(f"(select tenant_id, {public_id(ids.JOB)} as subject from j) x")


def take_over(db: Database, fingerprint: bytes, *, tenant_id: int) -> OpenJob | None:
    """Take over the unfinished intake of the same input; None if there is none, or if another holds its lease."""
    with db.begin() as connection:
        cursor = connection.cursor(row_factory=kwargs_row(_opened))
        return cursor.execute(
            f"""with j as (
                 update job set intake_token = intake_token + 1, intake_lease_until = now() + make_interval(secs => %(lease)s)
                 where id = (select id from job where tenant_id = %(tenant)s and fingerprint = %(fingerprint)s and {INGESTING_JOB}
                               and intake_lease_until < now() order by id desc limit 1)
                   and {INGESTING_JOB} and intake_lease_until < now()
                 returning *),
               a as ({TAKEN_OVER})
               select {OPENED} from j""",
            {
                "tenant": tenant_id,
                "fingerprint": fingerprint,
                "lease": INTAKE_LEASE_S,
                **audit.recorded(connection, "job.take_over"),
            },
        ).fetchone()


def take_over_file(db: Database) -> tuple[OpenJob, uuid.UUID] | None:
    """Take over an unfinished intake from an uploaded file whose lease is over; return it with the file's id, or None."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=kwargs_row(_of_file))
        return cursor.execute(
            f"""with x as materialized (
                 select id from job where {INGESTING_JOB} and input_file_id is not null and intake_lease_until < now()
                 order by intake_lease_until limit 1 for update skip locked),
               j as (
                 update job set intake_token = intake_token + 1, intake_lease_until = now() + make_interval(secs => %(lease)s)
                 from x where job.id = x.id returning job.*),
               a as ({TAKEN_OVER})
               select {OPENED}, j.input_file_id from j""",
            {"lease": INTAKE_LEASE_S, **audit.recorded(connection, "job.take_over")},
        ).fetchone()


def _opened(*, lane: int, **known: Any) -> OpenJob:
    """Make the OpenJob of a row of OPENED."""
    return OpenJob(lane=Lane(lane), **known)


def _of_file(*, input_file_id: uuid.UUID, **known: Any) -> tuple[OpenJob, uuid.UUID]:
    return _opened(**known), input_file_id


def intake_of(db: Database, fingerprint: bytes, *, tenant_id: int) -> tuple[uuid.UUID, dt.datetime] | None:
    """Return the job whose intake of the same input is unfinished, and when its lease ends; None if there is none."""
    with db.begin() as connection:
        row = connection.execute(
            f"""select public_id, intake_lease_until from job where tenant_id = %(tenant)s and fingerprint = %(fingerprint)s
                 and {INGESTING_JOB} order by id desc limit 1""",
            {"tenant": tenant_id, "fingerprint": fingerprint},
        ).fetchone()
    return (row.public_id, row.intake_lease_until) if row else None


def let_go(db: Database, job: OpenJob) -> None:
    """End the lease on an unfinished intake, so that it can be taken over at once."""
    with db.begin() as connection:
        connection.execute(
            f"update job set intake_lease_until = now() where id = %(job)s and {INGESTING_JOB} and intake_token = %(token)s",
            {"job": job.id, "token": job.token},
        )


def idle(db: Database, *, idle_s: float) -> dict[int, int]:
    """Return jobs whose intake's lease ended `idle_s` ago or earlier, each with its intake's token."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select id, intake_token from job where {INGESTING_JOB}
                  and intake_lease_until < now() - make_interval(secs => %(idle)s)""",
            {"idle": idle_s},
        )
        return {row.id: row.intake_token for row in rows}


def abandon(db: Database, job_id: int, *, token: int) -> None:
    """Abandon an intake that nobody has resumed."""
    intake.abandon(db, job_id, "its submit ended before all of its texts were in", token=token)
