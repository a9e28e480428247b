"""Control of a job while it runs: cancel, expire, pause, resume, prioritise. Lock order: shard, then job."""

from collections.abc import Sequence

from guardfleet.domain import ids
from guardfleet.domain.options import PRIORITIES
from guardfleet.domain.states import JobState, ShardState
from guardfleet.errors import RejectedError
from guardfleet.store import audit
from guardfleet.store.events.outbox import ENDED, emit
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import CANCELLING_JOB, OPEN_JOB, OPEN_SHARD, READY_SHARD

AS_BEFORE_PAUSE = """case when paused_at is null or progressed_at is null then progressed_at
                          else now() - greatest(paused_at - progressed_at, interval '0') end"""


def cancel(db: Database, job_id: int) -> None:
    """Stop a job: ready shards are dropped, leased ones may finish, no more texts are taken, verdicts stay. Safe to call twice."""
    _end(db, job_id, JobState.CANCELLED, "job.cancel")


def overdue(db: Database, *, skip: Sequence[int] = (), limit: int = 20) -> list[int]:
    """Return open jobs whose completion window is over."""
    with db.session() as connection:
        return connection.scalars(
            f"""select id from job where {OPEN_JOB} and expires_at is not null and expires_at <= now()
                 and id <> all(cast(%(skip)s as bigint[])) order by expires_at limit %(limit)s""",
            {"skip": list(skip), "limit": limit},
        )


def expire(db: Database, job_id: int) -> None:
    """End a job as cancel() would, but as EXPIRED."""
    _end(db, job_id, JobState.EXPIRED, "job.run_out")


def _end(db: Database, job_id: int, ends_as: JobState, action: str) -> None:
    with db.begin() as connection:
        connection.execute(
            f"""update shard set state = {ShardState.CANCELLED}, published_at = null
                where job_id = %(job)s and {READY_SHARD}""",
            {"job": job_id},
        )
        row = connection.execute(
            f"""update job set state = {JobState.CANCELLING}, ends_as = %(ends_as)s, cancelling_at = now()
               where id = %(job)s and {OPEN_JOB} returning tenant_id, public_id, online""",
            {"job": job_id, "ends_as": int(ends_as)},
        ).fetchone()
        if row and not row.online:
            audit.record(connection, row.tenant_id, action, ids.JOB.of(row.public_id))
        _settle_cancelled(connection, [job_id])


def pause(db: Database, job_id: int) -> None:
    """Start no more shards of the job; shards in work finish, and its intake may continue. Safe to call twice.

    Raises RejectedError if the job has ended. A message that is out already has no effect: claim() checks the job.
    """
    with db.begin() as connection:
        connection.execute(
            f"update shard set published_at = null where job_id = %(job)s and {READY_SHARD} and published_at is not null",
            {"job": job_id},
        )
        _mark(connection, job_id, "paused_at = coalesce(paused_at, now())", "job.pause")


def resume(db: Database, job_id: int) -> None:
    """Resume a paused job. Safe to call twice; RejectedError if it has ended.

    The pause does not count as time without progress: the pace goes on from where it was.
    """
    with db.begin() as connection:
        _mark(connection, job_id, f"progressed_at = {AS_BEFORE_PAUSE}, paused_at = null", "job.resume")


def prioritise(db: Database, job_id: int, priority: int) -> None:
    """Rank a job among its tenant's jobs of the lane, higher first. RejectedError if it has ended or is out of PRIORITIES."""
    with db.begin() as connection:
        _mark(connection, job_id, "priority = %(priority)s", "job.prioritise", priority=check_priority(priority))


def check_priority(priority: int) -> int:
    """Return the priority. Raises RejectedError if it is out of PRIORITIES."""
    if priority not in PRIORITIES:
        raise RejectedError(f"a priority must be {PRIORITIES.start} to {PRIORITIES.stop - 1}; got {priority}.")
    return priority


def _mark(connection: Connection, job_id: int, change: str, action: str, **values: int) -> None:
    row = connection.execute(
        f"update job set {change} where id = %(job)s and {OPEN_JOB} returning tenant_id, public_id",
        {"job": job_id, **values},
    ).fetchone()
    if row is None:
        raise RejectedError("the job has ended.")
    audit.record(connection, row.tenant_id, action, ids.JOB.of(row.public_id), **values)


def cancelling(db: Database, *, skip: Sequence[int] = (), limit: int = 1000) -> list[int]:
    """Return jobs that are being cancelled."""
    with db.session() as connection:
        return connection.scalars(
            f"""select id from job where {CANCELLING_JOB} and id <> all(cast(%(skip)s as bigint[]))
                order by cancelling_at limit %(limit)s""",
            {"skip": list(skip), "limit": limit},
        )


def settle_cancelled(db: Database, job_ids: Sequence[int]) -> int:
    """End those of these cancelling jobs that have no open shard left; return how many."""
    with db.begin() as connection:
        return _settle_cancelled(connection, job_ids)


def _settle_cancelled(connection: Connection, job_ids: Sequence[int]) -> int:
    # A ready shard of a cancelling job came back from a lease that ended between cancel() and now: drop it here.
    connection.execute(
        f"""with x as materialized (
             select s.job_id, s.shard_no from shard s join job j on j.id = s.job_id
             where {CANCELLING_JOB:j} and j.id = any(cast(%(jobs)s as bigint[])) and {READY_SHARD:s}
             for update of s skip locked)
           update shard s set state = {ShardState.CANCELLED}, published_at = null
           from x where s.job_id = x.job_id and s.shard_no = x.shard_no""",
        {"jobs": list(job_ids)},
    )
    return connection.execute(
        f"""with j as (
             update job set state = ends_as, finished_at = now()
             where {CANCELLING_JOB} and id = any(cast(%(jobs)s as bigint[]))
               and not exists (select from shard where shard.job_id = job.id and {OPEN_SHARD:shard})
             returning id, public_id, tenant_id, state)
           {emit(ENDED)}""",
        {"jobs": list(job_ids)},
    ).rowcount
