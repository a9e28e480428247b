"""Erasing a job as a whole: it is stopped, and then each row that belongs to it is deleted, the job's own last.

Each step can be interrupted anywhere and repeated: what a later one needs is deleted after it.
"""

from collections.abc import Iterator, Sequence

from guardfleet.domain.states import ShardState
from guardfleet.store import audit
from guardfleet.store.erasure import receipts
from guardfleet.store.erasure.search import SPAN, SearchedJob
from guardfleet.store.erasure.texts import OF_TEXT, around
from guardfleet.store.jobs import control, retention
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import OPEN_SHARD


def stop(db: Database, job: SearchedJob) -> None:
    """End the job, now: cancelled, and whoever works on a shard of it is fenced."""
    if job.has_ended:
        return
    control.cancel(db, job.id)
    with db.begin() as connection:
        connection.execute(
            f"""update shard set state = {ShardState.CANCELLED}, token = token + 1, lease_until = null, published_at = null
                where job_id = %(job)s and {OPEN_SHARD}""",
            {"job": job.id},
        )
    control.settle_cancelled(db, [job.id])


def copies(db: Database, job_id: int) -> list[int]:
    """Return the retries of the job, whose texts are copies of its own, newest first."""
    with db.session() as connection:
        return connection.scalars("select id from job where retry_of = %(job)s order by id desc", {"job": job_id})


def refusals(db: Database, job_ids: Sequence[int]) -> int:
    """Return how many refused lines of these jobs have an id."""
    with db.session() as connection:
        values = {"jobs": list(job_ids)}
        n: int = connection.scalar("select count(row_id) from rejection where job_id = any(%(jobs)s::int8[])", values)
        return n


def erase_verdicts(db: Database, receipt_id: int, job: SearchedJob) -> Iterator[bool]:
    """Delete the job's verdicts, a span at a time; yield True after each that had some, False if a hold covers the job by now."""
    span = "job_id = %(job)s and seq >= %(start)s and seq < %(end)s"
    for start in range(0, job.total, SPAN):
        with db.begin() as connection:
            verdicts, free = 0, _is_free(connection, job)
            if free:
                values = {"job": job.id, "day": job.day, "start": start, "end": start + SPAN}
                beside = sum(connection.execute(f"delete from {table} where {span}", values).rowcount for table in OF_TEXT)
                connection.execute(f"delete from detection where {span} and day = %(day)s", values)
                verdicts = connection.execute(f"delete from verdict where {span} and day = %(day)s", values).rowcount
                receipts.add(connection, receipt_id, verdicts=verdicts, beside=beside)
                if verdicts:
                    receipts.note(connection, receipt_id, day=job.day)
        if verdicts or not free:
            yield free


def _is_free(connection: Connection, job: SearchedJob) -> bool:
    """Return whether no hold covers the job; until the transaction ends, none will. Of a job that is gone, False."""
    return bool(connection.scalar("select holds = 0 from job where id = %(job)s for update", {"job": job.id}))


def erase(db: Database, receipt_id: int, tenant_id: int, job: SearchedJob) -> bool:
    """Delete an ended job with all of its rows that are left; return False if a hold covers it, and then delete nothing."""
    with db.begin() as connection:
        if not _is_free(connection, job):
            return False
        values = {"job": job.id, "day": job.day}
        connection.execute("delete from detection where job_id = %(job)s and day = %(day)s", values)
        connection.execute("delete from verdict where job_id = %(job)s and day = %(day)s", values)
        blobs = connection.execute("delete from shard_payload where job_id = %(job)s and day = %(day)s", values).rowcount
        provisional = connection.execute("delete from first_opinion where job_id = %(job)s", values).rowcount
        connection.execute("delete from shard where job_id = %(job)s", values)
        refusals: int = connection.scalar("select count(row_id) from rejection where job_id = %(job)s", values)
        requests = around(connection, job, 1)  # so that all that is derived from its input goes
        retention.forget_rows(connection, "= %(job)s", values)
        texts: int = connection.scalar("delete from job where id = %(job)s returning total", values)
        receipts.note(connection, receipt_id, day=job.day, input_file=job.input_file_id)
        receipts.add(
            connection, receipt_id, texts=texts, blobs=blobs, provisional=provisional, refusals=refusals,
            requests=requests, jobs=1,
        )  # fmt: skip
        audit.record(connection, tenant_id, "job.erase", job.label, texts=texts)
    return True
