"""Which shards have a message at the broker. The broker can lose its queues at any time; these rows say what to publish again.

No statement here waits for a row: a locked row is being claimed, and a worker that is stopped in the middle of a claim must hold
up only its own shard, not the dispatcher.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from guardfleet.domain.detection import ROUTE_PREFIX
from guardfleet.domain.lanes import Lane
from guardfleet.domain.verdict import GUARD
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards.leases import AMONG, NO_LIMITS, NOT_SKIPPED, Limits, ShardKey, keys_of
from guardfleet.store.words import INGESTING_JOB, LEASED_SHARD, OPEN_JOB, READY_SHARD, RUNNING_JOB


@dataclass(frozen=True, slots=True)
class Route:
    """The queue of a shard: that of its lane, or of the model that it names."""

    lane: Lane
    model: str | None = None


IS_OPEN = f"({RUNNING_JOB:j} or {INGESTING_JOB:j} and not j.strict) and j.paused_at is null"
IS_OLD = "s.published_at < now() - make_interval(secs => %(age)s)"
OF_ROUTE = "s.lane = %(lane)s and s.model is not distinct from cast(%(model)s as text)"


@dataclass(frozen=True, slots=True)
class ShardRef:
    """What a message carries: a reference, never a text."""

    job_id: int
    shard_no: int
    publish_no: int
    token: int  # of the last claim before it was published; not in the message


def windows(db: Database) -> dict[Route, int]:
    """Return the routes of open jobs, each with the number of its shards that are published and not claimed."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select r.lane, r.model, (
                 select count(*) from shard s where {READY_SHARD:s} and s.published_at is not null
                   and s.lane = r.lane and s.model is not distinct from r.model) as n
               from (select lane, first_model as model from job where {OPEN_JOB}
                     union select lane, second_model from job where {OPEN_JOB} and second_model is not null
                     union select lane, '{ROUTE_PREFIX}' || split_part(d, '/', 1) from job cross join unnest(detectors) d
                       where {OPEN_JOB} and d <> '{GUARD}'
                     union select lane, '{ROUTE_PREFIX}' || split_part(split_part(c, '=', 2), '@', 1)
                       from job cross join unnest(detector_cascades) c where {OPEN_JOB}) r"""
        )
        return {Route(Lane(row.lane), row.model): row.n for row in rows}


def due(db: Database, route: Route, *, limit: int, limits: Limits = NO_LIMITS, skip: Sequence[ShardKey] = ()) -> list[ShardRef]:
    """Return shards to publish, in fair shares, without those that reached a limit, which are `exhausted`.

    Shards are numbered within their job, starting after those that it has published or in work, and likewise within their tenant,
    jobs of higher priority first. The lowest numbers are published first: next is the tenant with the least in work and, of its
    jobs of one priority, the job with the least. So a job of millions of texts holds up neither other tenants nor its own.
    """
    with db.session() as connection:
        rows = connection.execute(
            f"""with busy as materialized (
                 select job_id, count(*) as n from (
                   select job_id from shard where {LEASED_SHARD} and lane = %(lane)s
                   union all select job_id from shard where {READY_SHARD} and published_at is not null and lane = %(lane)s) x
                 group by job_id),
               ready as (
                 select j.id, j.tenant_id, j.priority, s.shard_no, s.publish_no, s.token,
                        coalesce(b.n, 0) + row_number() over (partition by j.id order by s.shard_no) as place
                 from job j left join busy b on b.job_id = j.id
                 cross join lateral (
                   select s.shard_no, s.publish_no, s.token from shard s
                   where s.job_id = j.id and {READY_SHARD:s} and s.published_at is null and {OF_ROUTE}
                     and s.claims < %(claims)s and s.failures < %(failures)s
                     and (s.next_attempt_at is null or s.next_attempt_at <= now()) and {NOT_SKIPPED}
                   order by s.shard_no limit %(limit)s) s
                 where {IS_OPEN} and j.lane = %(lane)s),
               shares as (
                 select r.*, coalesce(t.n, 0) + row_number() over (
                          partition by r.tenant_id order by r.priority desc, r.place, r.id) as place_of_tenant
                 from ready r left join (
                   select j.tenant_id, sum(b.n) as n from busy b join job j on j.id = b.job_id group by j.tenant_id) t
                   on t.tenant_id = r.tenant_id)
               select id, shard_no, publish_no + 1, token from shares order by place_of_tenant, id, shard_no limit %(limit)s""",
            {**asdict(route), **asdict(limits), "limit": limit, **keys_of(skip)},
        )
        return [ShardRef(*row) for row in rows]


def mark_published(db: Database, published: Sequence[ShardRef]) -> None:
    """Record messages that the broker confirmed. Call it after publishing, so that a crash publishes twice rather than never.

    A message that a worker has already answered is not recorded as out, even if its shard is ready again.
    """
    if not published:
        return
    with db.begin() as connection:
        connection.execute(
            f"""with x as materialized (
                 select s.job_id, s.shard_no, r.publish_no
                 from unnest(cast(%(jobs)s as bigint[]), cast(%(nos)s as int[]), cast(%(publishes)s as int[]),
                             cast(%(tokens)s as bigint[])) as r (job_id, shard_no, publish_no, token)
                 join shard s on s.job_id = r.job_id and s.shard_no = r.shard_no and s.token = r.token
                 where {READY_SHARD:s} for update of s skip locked)
               update shard s set published_at = now(), publish_no = x.publish_no
               from x where s.job_id = x.job_id and s.shard_no = x.shard_no""",
            {
                "jobs": [ref.job_id for ref in published],
                "nos": [ref.shard_no for ref in published],
                "publishes": [ref.publish_no for ref in published],
                "tokens": [ref.token for ref in published],
            },
        )


def lost(db: Database, route: Route, *, older_than_s: float, skip: Sequence[ShardKey] = ()) -> list[ShardKey]:
    """Return shards of the route whose message was published this long ago."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select s.job_id, s.shard_no from shard s
                where {READY_SHARD:s} and {OF_ROUTE} and {IS_OLD} and {NOT_SKIPPED}""",
            {**asdict(route), "age": older_than_s, **keys_of(skip)},
        )
        return [(row.job_id, row.shard_no) for row in rows]


def forget_lost(db: Database, lost: Sequence[ShardKey], *, older_than_s: float) -> int:
    """Unmark those of these shards whose message is this old, and so lost; the next tick publishes them again. Return how many."""
    with db.begin() as connection:
        return connection.execute(
            f"""with x as materialized (
                 select s.job_id, s.shard_no from shard s where {READY_SHARD:s} and {IS_OLD} and {AMONG}
                 for update skip locked)
               update shard s set published_at = null
               from x where s.job_id = x.job_id and s.shard_no = x.shard_no""",
            {"age": older_than_s, **keys_of(lost)},
        ).rowcount


def exhausted(db: Database, limits: Limits, *, skip: Sequence[ShardKey] = (), limit: int = 20) -> list[ShardKey]:
    """Return ready shards that were tried too often and that no dispatcher has postponed."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select s.job_id, s.shard_no from shard s join job j on j.id = s.job_id
               where {READY_SHARD:s} and s.published_at is null and (s.claims > 0 or s.failures > 0)
                 and (s.claims >= %(claims)s or s.failures >= %(failures)s) and {IS_OPEN}
                 and (s.give_ups = 0 or s.next_attempt_at is null or s.next_attempt_at <= now()) and {NOT_SKIPPED}
               limit %(limit)s""",
            {**asdict(limits), "limit": limit, **keys_of(skip)},
        )
        return [(row.job_id, row.shard_no) for row in rows]
