"""What is not judged yet, by job: how much, how old, how fast it goes, and when it is due."""

from dataclasses import dataclass

from guardfleet.domain.detection import ROUTE_PREFIX
from guardfleet.domain.lanes import Lane
from guardfleet.store.jobs.views import PACE_S
from guardfleet.store.postgres.database import Database
from guardfleet.store.words import LEASED_SHARD, READY_SHARD

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
