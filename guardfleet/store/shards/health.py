"""Queues from which no worker takes work, and shards whose worker no longer renews its lease."""

from dataclasses import dataclass

from guardfleet.domain.lanes import Lane
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards.publishing import Route
from guardfleet.store.words import LEASED_SHARD, READY_SHARD


@dataclass(frozen=True, slots=True)
class Stall:
    """A route whose oldest message has been out for `idle_s`, and none of whose shards is leased."""

    route: Route
    idle_s: float


@dataclass(frozen=True, slots=True)
class Silence:
    """How many shards of a job are held by workers that do not renew their leases, and in how many seconds all are free again."""

    shards: int
    back_s: float


def stalls(db: Database, *, after_s: float) -> list[Stall]:
    """Return routes that have been stalled for so long. The cost grows with the number of published messages."""
    with db.begin() as connection:
        rows = connection.execute(
            f"""select s.lane, s.model, extract(epoch from now() - min(s.published_at)) as idle_s
               from shard s where {READY_SHARD:s} and s.published_at is not null
               group by s.lane, s.model
               having min(s.published_at) < now() - make_interval(secs => %(after)s) and not exists (
                 select from shard l where {LEASED_SHARD:l} and l.lane = s.lane and l.model is not distinct from s.model)""",
            {"after": after_s},
        )
        return [Stall(Route(Lane(row.lane), row.model), float(row.idle_s)) for row in rows]


def silence(db: Database, job_id: int, *, lease_s: float) -> Silence | None:
    """Return what dead workers hold of the job: live ones renew a lease long before half of it is over (`LEASE_RENEWALS`)."""
    with db.session() as connection:
        (row,) = connection.execute(
            f"""select count(*) as shards, extract(epoch from max(lease_until) - now()) as back_s from shard
               where {LEASED_SHARD} and job_id = %(job)s and lease_until < now() + make_interval(secs => %(half)s)""",
            {"job": job_id, "half": lease_s / 2},
        )
        return Silence(row.shards, max(0.0, float(row.back_s))) if row.shards else None
