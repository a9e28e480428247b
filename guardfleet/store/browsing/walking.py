"""The way along a tenant's verdicts: the newest job first, the shards of each in the order in which they were committed.

Jobs and shards that cannot have what is looked for, as their counters say, are passed by unread.
"""

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from guardfleet.domain import ids
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.store.browsing.conditions import Conditions
from guardfleet.store.postgres.database import Connection
from guardfleet.verdicts.wanted import Place, Wanted

FEW_JOBS, MANY_JOBS = 50, 1000  # of one statement, the first and the others
FEW_SHARDS, MOST_SHARDS = 16, 512
MOST_RUN = 2000  # jobs
GROWTH = 8
END = 2**31 - 1  # after every shard of a job, and every text
NEWEST = 2**63 - 1


class Job(NamedTuple):
    """The job of a verdict, as far as a page shows it."""

    id: int
    public_id: uuid.UUID
    day: dt.date
    name: str
    shards: int  # finished so far
    done: int
    is_wanted: bool

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.JOB.of(self.public_id)


class Stretch(NamedTuple):
    """Texts of a job, finished by one commit: to be looked at, or passed by. Of a job that is passed by, all of them."""

    job: Job
    ord: int
    first_seq: int
    n: int
    seen: int  # the last text before those that are still to be looked at
    is_wanted: bool

    @property
    def left(self) -> int:
        """How many of them are still to be looked at."""
        return self.first_seq + self.n - 1 - self.seen


def stretches(
    connection: Connection, tenant_id: int, wanted: Wanted, conditions: Conditions, after: Place | None
) -> Iterator[Stretch]:
    """Yield all texts after a place, in order: jobs that are passed by as a whole, others by their shards."""
    job_id = _number(connection, tenant_id, wanted.job) if wanted.job else None
    start = _start(connection, tenant_id, after) if after else None
    run: list[Job] = []
    n_shards = 0
    for job in _jobs(connection, tenant_id, job_id, conditions, start):
        n = job.shards if job.is_wanted else 0
        if run and (job.day != run[0].day or n_shards + n > MOST_SHARDS or len(run) == MOST_RUN):
            yield from _of_run(connection, conditions, run, start, after)
            run, n_shards = [], 0
        run.append(job)
        n_shards += n
    if run:
        yield from _of_run(connection, conditions, run, start, after)


def _of_run(
    connection: Connection, conditions: Conditions, run: Sequence[Job], start: int | None, after: Place | None
) -> Iterator[Stretch]:
    """Yield the texts of jobs of one day."""
    at = 0
    for stretch in _shards(connection, conditions, [job for job in run if job.is_wanted], start, after):
        while run[at] is not stretch.job:
            yield from _whole(run[at], start)
            at += 1
        yield stretch
    for job in run[at:]:
        yield from _whole(job, start)


def _whole(job: Job, start: int | None) -> Iterator[Stretch]:
    """Yield a job that is passed by; of one that is wanted, its shards were."""
    if not job.is_wanted and job.id != start:
        yield Stretch(job, END, 0, job.done, -1, is_wanted=False)


def _number(connection: Connection, tenant_id: int, public_id: uuid.UUID) -> int:
    values = {"tenant": tenant_id, "job": public_id}
    found: int | None = connection.scalar("select id from job where public_id = %(job)s and tenant_id = %(tenant)s", values)
    if found is None:
        raise NotFoundError(f"there is no job {ids.JOB.of(public_id)}.")
    return found


def _start(connection: Connection, tenant_id: int, after: Place) -> int:
    try:
        return _number(connection, tenant_id, after.job)
    except NotFoundError:
        raise RejectedError("the job that this page began with is gone: begin with the first page.", param="after") from None


def _jobs(connection: Connection, tenant_id: int, only: int | None, conditions: Conditions, start: int | None) -> Iterator[Job]:
    """Yield the tenant's jobs from one on, the newest first."""
    last, limit = (NEWEST if start is None else start), FEW_JOBS
    where = "and j.id = %(only)s" if only is not None else ""
    while True:
        rows = connection.execute(
            f"""select j.id, j.public_id, j.day, j.name, j.next_ord, j.done, ({" and ".join(conditions.of_jobs)}) is true
                from (select * from job j where j.tenant_id = %(tenant)s and j.id <= %(last)s {where}
                      order by j.id desc limit %(limit)s) j
                order by j.id desc""",
            conditions.values | {"tenant": tenant_id, "last": last, "only": only, "limit": limit},
        ).fetchall()
        yield from map(Job._make, rows)
        if len(rows) < limit:
            return
        last, limit = rows[-1].id - 1, MANY_JOBS


def _shards(
    connection: Connection, conditions: Conditions, jobs: Sequence[Job], start: int | None, after: Place | None
) -> Iterator[Stretch]:
    """Yield the finished shards of these jobs after a place, in order."""
    by_id = {job.id: job for job in jobs}
    froms = {job.id: after.ord if after and start == job.id else 0 for job in jobs}
    limit = FEW_SHARDS
    while by_id:
        found = connection.execute(
            f"""select d.job_id, d.ord, d.first_seq, d.n, ({" and ".join(conditions.of_shards)}) is true
                from (select x.job_id, x.place, s.ord, s.first_seq, s.n
                      from unnest(%(jobs)s::int8[], %(froms)s::int4[]) with ordinality x (job_id, ord, place)
                      cross join lateral (select * from shard_done s where s.job_id = x.job_id and s.ord >= x.ord
                                          order by s.ord limit %(limit)s) s
                      order by x.place, s.ord limit %(limit)s) d
                order by d.place, d.ord""",
            conditions.values
            | {"day": jobs[0].day, "jobs": list(by_id), "froms": [froms[number] for number in by_id], "limit": limit},
        ).fetchall()
        for job_id, ordinal, first_seq, n, is_wanted in found:
            seen = after.seq if after and (start, after.ord) == (job_id, ordinal) else first_seq - 1
            if seen < first_seq + n - 1:
                yield Stretch(by_id[job_id], ordinal, first_seq, n, seen, is_wanted)
        if len(found) < limit:
            return
        limit = min(GROWTH * limit, MOST_SHARDS)
        last, reached = found[-1][0], found[-1][1]
        by_id = dict(islice(by_id.items(), list(by_id).index(last), None))
        froms[last] = reached + 1
