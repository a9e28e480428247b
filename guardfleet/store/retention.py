"""Texts are guests: deleted, with the key that opens them, once their job ended long enough ago. Verdicts go days later.

All of it is done by the dispatcher, off the path of the work; each step can be cut off anywhere and done again.
"""

import datetime as dt

from sqlalchemy import text

from guardfleet.store import partitions
from guardfleet.store.database import Database


def purge(db: Database, *, older_than_hours: float, limit: int = 10) -> int:
    """Delete the texts, shards and data keys of jobs that ended this long ago; verdicts stay. Returns how many jobs."""
    with db.begin() as connection:
        return connection.execute(
            text("""with x as materialized (
                      select id, day from job
                      where purged_at is null and state in (2, 4, 5, 6)
                        and finished_at < now() - coalesce(purge_hours, :hours) * interval '1 hour'
                      order by finished_at limit :limit for update skip locked),
                    p as (delete from shard_payload s using x where s.job_id = x.id and s.day = x.day),
                    s as (delete from shard s using x where s.job_id = x.id),
                    o as (delete from first_opinion f using x where f.job_id = x.id)
                    update job set purged_at = now(), data_key = null from x where job.id = x.id"""),
            {"hours": older_than_hours, "limit": limit},
        ).rowcount


def expire(db: Database, *, verdict_days: float) -> list[str]:
    """Drop the partitions of days that nothing is kept of any more, and the jobs of these days; returns what was dropped.

    Texts of a day go as one file once all of its jobs are purged; verdicts when the day is `verdict_days` old and has no open job.
    The jobs go first: whoever asks for one between the two steps is told that it does not exist, not that it has no verdicts.
    """
    today = dt.datetime.now(dt.UTC).date()
    dropped = []
    for table, day in partitions.existing(db):
        if (table == "shard_payload" and day < today and _is_purged(db, day)) or (
            table == "verdict" and day < today - dt.timedelta(days=verdict_days) and _forget_jobs(db, day)
        ):
            partitions.drop(db, table, day)
        else:
            continue
        dropped.append(f"{table} {day.isoformat()}")
    return dropped


def _is_purged(db: Database, day: dt.date) -> bool:
    with db.begin() as connection:
        left: bool = connection.execute(
            text("select exists (select from job where day = :day and purged_at is null)"), {"day": day}
        ).scalar_one()
        return not left


def _forget_jobs(db: Database, day: dt.date) -> bool:
    """Delete the day's jobs with all that hangs on them; False while one of them is not purged yet."""
    if not _is_purged(db, day):
        return False
    of_day = "in (select id from job where day = :day)"
    with db.begin() as connection:
        connection.execute(
            text(f"delete from attempt where delivery_id in (select id from delivery where job_id {of_day})"), {"day": day}
        )
        for table in ("delivery", "outbox", "endpoint", "rejection", "shard_done"):
            connection.execute(text(f"delete from {table} where job_id {of_day}"), {"day": day})
        connection.execute(
            text("""with gone as (delete from job where day = :day returning tenant_id, public_id)
                    insert into audit_event (tenant_id, actor, action, subject)
                    select tenant_id, current_user, 'job.expire', 'job_' || replace(public_id::text, '-', '') from gone"""),
            {"day": day},
        )
    return True
