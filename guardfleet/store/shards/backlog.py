"""What is not judged yet, by job: how much, how old, how fast it goes, and when it is due."""

from dataclasses import dataclass

from psycopg.rows import class_row

from guardfleet.domain.detection import ROUTE_PREFIX
from guardfleet.domain.lanes import Lane
from guardfleet.store.jobs.views import PACE_S
from guardfleet.store.postgres.database import Database
from guardfleet.store.words import LEASED_SHARD, OPEN_SHARD, READY_SHARD

BYTES_PER_TEXT = 400  # where a shard does not know the size of its texts: those of earlier versions, and interactive ones


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is left of a job on one lane and for one model (None: any).

    `ready` shards wait, of which `retrying` do so after a failure; `leased` ones are in work. `text_bytes` is the size of its
    texts, `texts_per_s` its pace now, `left_s` the seconds until its completion window ends, None without one.
    """

    lane: Lane
    model: str | None
    texts: int
    text_bytes: int
    ready: int
    leased: int
    retrying: int
    age_s: float
    texts_per_s: float
    left_s: float | None


@dataclass(frozen=True, slots=True)
class Queue:
    """What a queue holds: `ready` shards could be taken now, `waiting` ones are tried again later, `leased` ones are in work."""

    lane: int
    model: str | None
    ready: int
    waiting: int
    leased: int
    texts: int
    oldest_s: float  # since the oldest of its jobs was submitted

    @property
    def lane_label(self) -> str:
        """Its lane in a word."""
        return Lane(self.lane).label


def queues(db: Database, *, tenant_id: int | None = None) -> list[Queue]:
    """Return what each queue holds of jobs that are not paused; of one tenant's alone, if it is given."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Queue))
        return cursor.execute(
            f"""select s.lane, s.model,
                       count(*) filter (where {READY_SHARD:s} and coalesce(s.next_attempt_at <= now(), true)) as ready,
                       count(*) filter (where {READY_SHARD:s} and s.next_attempt_at > now()) as waiting,
                       count(*) filter (where {LEASED_SHARD:s}) as leased, sum(s.n)::bigint as texts,
                       extract(epoch from now() - min(j.created_at))::float8 as oldest_s
                from shard s join job j on j.id = s.job_id
                where {OPEN_SHARD:s} and j.paused_at is null
                  and (cast(%(tenant)s as bigint) is null or j.tenant_id = %(tenant)s)
                group by s.lane, s.model order by s.lane desc, s.model nulls first""",
            {"tenant": tenant_id},
        ).fetchall()


def open_work(db: Database) -> list[Backlog]:
    """Return what is left of each job that is neither ended nor paused. Reads open shards alone, by their partial indexes."""
    columns = "job_id, lane, model, n, text_bytes, next_attempt_at"
    with db.session() as connection:
        rows = connection.execute(
            f"""with left_over as (
                 select {columns}, 0 as is_leased from shard where {READY_SHARD} and published_at is null
                 union all select {columns}, 0 from shard where {READY_SHARD} and published_at is not null
                 union all select {columns}, 1 from shard where {LEASED_SHARD})
               select s.lane, s.model, sum(s.n)::bigint as texts,
                      sum(case when s.text_bytes > 0 then s.text_bytes else s.n * %(guess)s end)::bigint as text_bytes,
                      count(*) - sum(s.is_leased) as ready, sum(s.is_leased) as leased,
                      count(*) filter (where s.is_leased = 0 and s.next_attempt_at > now()) as retrying,
                      extract(epoch from now() - j.created_at)::float8 as age_s,
                      coalesce(j.pace * exp(-least(extract(epoch from now() - j.progressed_at) / %(pace_s)s, 50)), 0)::float8
                        as texts_per_s,
                      extract(epoch from j.expires_at - now())::float8 as left_s
               from left_over s join job j on j.id = s.job_id where j.paused_at is null group by j.id, s.lane, s.model""",
            {"guess": BYTES_PER_TEXT, "pace_s": PACE_S},
        )
        return [Backlog(Lane(row.lane), *row[1:]) for row in rows]


def busy_workers(db: Database) -> dict[str | None, int]:
    """Return how many workers hold shards, by the model that the shards name; under None: whatever they name but a detector."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select model, count(distinct worker) as n from shard where {LEASED_SHARD} and model is not null group by model
                union all select null, count(distinct worker) from shard
                  where {LEASED_SHARD} and (model is null or not starts_with(model, '{ROUTE_PREFIX}'))"""
        )
        return {row.model: row.n for row in rows}
