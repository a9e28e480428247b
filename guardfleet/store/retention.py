"""Texts are guests: deleted, with the key that opens them, once their job has ended long enough ago."""

from sqlalchemy import text

from guardfleet.store.database import Database


def purge(db: Database, *, older_than_hours: float, limit: int = 10) -> int:
    """Delete the texts and the data keys of jobs that ended this long ago; verdicts stay. Returns how many jobs."""
    with db.begin() as connection:
        return connection.execute(
            text("""with x as materialized (
                      select id, day from job
                      where purged_at is null and state in (2, 4, 5) and finished_at < now() - make_interval(secs => :age)
                      order by finished_at limit :limit for update skip locked),
                    p as (delete from shard_payload s using x where s.job_id = x.id and s.day = x.day),
                    o as (delete from first_opinion f using x where f.job_id = x.id)
                    update job set purged_at = now(), data_key = null from x where job.id = x.id"""),
            {"age": older_than_hours * 3600, "limit": limit},
        ).rowcount
