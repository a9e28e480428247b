"""Retention: texts are deleted, with their data key, once their job ended long enough ago. Verdicts are deleted days later.

The dispatcher does all of it, off the path of the work; each step can be interrupted anywhere and repeated. A job under a
legal hold is left alone, and with it what can only be dropped by the day.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from guardfleet.domain import ids
from guardfleet.store import audit, partitions
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import ENDED_JOB, INGESTING_JOB, public_id

Day = tuple[str, dt.date]  # a partitioned table and one of its days
LATE_S = 3600.0  # longer than any transaction lasts
OF_JOB = (
    "delivery", "outbox", "endpoint", "rejection", "shard_done", "retried", "decision", "list_hit", "detected", "disagreement",
    "review_task", "review_queue", "label", "sample_text", "sample",
)  # fmt: skip
# Its texts, or those of another retry of the same job, are being read by a retry.
IS_READ = f"exists (select from job r where r.retry_of = coalesce(job.retry_of, job.id) and {INGESTING_JOB:r})"


def purgeable(db: Database, *, older_than_hours: float, skip: Sequence[int] = (), limit: int = 10) -> list[int]:
    """Return jobs that ended this long ago, or as long as their own `purge_hours`, and still have their texts."""
    with db.session() as connection:
        return connection.scalars(
            f"""select id from job
               where purged_at is null and holds = 0 and {ENDED_JOB} and id <> all(cast(%(skip)s as bigint[])) and not {IS_READ}
                 and finished_at < now() - coalesce(purge_hours, %(hours)s) * interval '1 hour'
               order by finished_at limit %(limit)s""",
            {"hours": older_than_hours, "skip": list(skip), "limit": limit},
        )


def purge(db: Database, job_ids: Sequence[int]) -> int:
    """Delete the texts, shards and data keys of these ended jobs; verdicts stay. Return how many jobs."""
    with db.begin() as connection:
        return connection.execute(
            f"""with x as materialized (
                 select id, day, tenant_id, public_id, online from job
                 where id = any(cast(%(jobs)s as bigint[])) and purged_at is null and holds = 0 and not {IS_READ}
                 for update skip locked),
               a as ({audit.each(f"(select tenant_id, {public_id(ids.JOB)} as subject from x where not online) x")}),
               p as (delete from shard_payload s using x where s.job_id = x.id and s.day = x.day),
               s as (delete from shard s using x where s.job_id = x.id),
               o as (delete from first_opinion f using x where f.job_id = x.id)
               update job set purged_at = now(), data_key = null from x where job.id = x.id""",
            {"jobs": list(job_ids), **audit.recorded(connection, "job.purge")},
        ).rowcount


def over(db: Database, *, verdict_days: float) -> list[Day]:
    """Return the partitions whose retention may be over, oldest first: texts of days before today, verdicts `verdict_days` later.

    The database's clock decides. A day lasts an hour longer, since a transaction that began on it may not be committed yet.
    """
    with db.session() as connection:
        today: dt.date = connection.scalar(
            "select cast((now() - make_interval(secs => %(late)s)) at time zone 'utc' as date)", {"late": LATE_S}
        )
    verdicts_end = today - dt.timedelta(days=verdict_days)
    ends = {"shard_payload": today, "verdict": verdicts_end, "detection": verdicts_end}
    return [(table, day) for table, day in partitions.existing(db) if day < ends[table]]


def expire(db: Database, table: str, day: dt.date) -> bool:
    """Drop a day's partition, with the verdicts also the day's jobs; return False while some of it must be kept.

    A partition is dropped once all of the day's jobs are purged. The jobs are deleted first: between the two steps, a caller learns
    that the job does not exist, not that it has no verdicts.
    """
    with db.begin() as connection:
        if not _is_purged(connection, day):
            return False
        if table != "shard_payload":
            if _is_held(connection, day):
                return False
            _forget_jobs(connection, day)
    return partitions.drop(db, table, day)


def _is_purged(connection: Connection, day: dt.date) -> bool:
    left: bool = connection.scalar("select exists (select from job where day = %(day)s and purged_at is null)", {"day": day})
    return not left


def _is_held(connection: Connection, day: dt.date) -> bool:
    """Return whether one of the day's jobs is under a hold; they are locked, so that none is put under one from here on."""
    is_held = "select exists (select from job where day = %(day)s and holds > 0)"
    if connection.scalar(is_held, {"day": day}):  # asked every few minutes for as long as the hold lasts: so without locking first
        return True
    connection.execute("select from job where day = %(day)s for update", {"day": day})
    return bool(connection.scalar(is_held, {"day": day}))


def forget_rows(connection: Connection, of_jobs: str, values: Mapping[str, Any]) -> None:
    """Delete the rows that belong to jobs and have no partitions; `of_jobs`: a condition on the number without its column."""
    connection.execute(f"delete from attempt where delivery_id in (select id from delivery where job_id {of_jobs})", values)
    for table in OF_JOB:
        connection.execute(f"delete from {table} where job_id {of_jobs}", values)
    connection.execute(f"delete from retried where of_job_id {of_jobs}", values)


def _forget_jobs(connection: Connection, day: dt.date) -> None:
    """Delete the day's jobs, which are purged, and every row that belongs to them."""
    forget_rows(connection, "in (select id from job where day = %(day)s)", {"day": day})
    connection.execute(
        f"""with gone as (delete from job where day = %(day)s returning tenant_id, public_id, online)
           {audit.each(f"(select tenant_id, {public_id(ids.JOB)} as subject from gone where not online) x")}""",
        {"day": day, **audit.recorded(connection, "job.expire")},
    )
