"""The review queue: texts that the policy in force wants a person to look at, and that nobody has looked at yet.

Nothing is queued: it is what decisions say without what labels say, and without texts that were erased, which nobody can judge. A
shard without such a text is in no index, and costs nothing.
"""

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from guardfleet.domain.labels import REVIEWS
from guardfleet.policy.document import Action
from guardfleet.store.policy import decisions
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import ERASED_VERDICT

SHARDS_AT_ONCE = 32
IN_FORCE = f"""(select d.policy_id from decision d join policy p on p.id = d.policy_id
                where d.job_id = x.job_id and d.first_seq = x.first_seq and not d.shadow and p.activated_at is not null
                order by {decisions.NEWEST} limit 1)"""


class Place(NamedTuple):
    """A text in the queue's order: jobs as they were submitted, the texts of each as they came."""

    job_id: int = 0
    seq: int = -1


class Job(NamedTuple):
    """The job that a text to review is of."""

    id: int
    public_id: uuid.UUID
    day: dt.date


def waiting(
    db: Database, tenant_id: int, *, job_id: int | None = None, after: Place | None = None, limit: int, kept: bool = False
) -> Iterator[tuple[Job, list[int]]]:
    """Yield up to `limit` texts after a place, oldest first: a job, and places in it; a job may come more than once.

    `kept`: only of jobs whose texts are not purged.
    """
    after, left = after or Place(), limit
    while left > 0:
        shards = _shards(db, tenant_id, job_id, after, kept=kept)
        if not shards:
            return
        for shard, places in zip(shards, _unlabelled(db, shards, after), strict=True):
            if places[:left]:
                yield Job(shard.job_id, shard.public_id, shard.day), places[:left]
            left -= len(places[:left])
            if left <= 0:
                return
        after = Place(shards[-1].job_id, shards[-1].first_seq + shards[-1].n - 1)


def _shards(db: Database, tenant_id: int, job_id: int | None, after: Place, *, kept: bool) -> list[Any]:
    with db.session() as connection:
        return connection.execute(
            f"""select x.job_id, x.first_seq, x.n, x.policy_id, x.outcomes, j.public_id, j.day, j.erased
                from decision x join job j on j.id = x.job_id join tenant t on t.id = j.tenant_id
                where x.reviewed > 0 and not x.shadow and j.tenant_id = %(tenant)s
                  and (%(job)s::int8 is null or x.job_id = %(job)s::int8) and not (%(kept)s and j.purged_at is not null)
                  and x.job_id >= %(after_job)s and (x.job_id, x.first_seq + x.n - 1) > (%(after_job)s, %(after_seq)s)
                  and x.policy_id = {IN_FORCE}
                order by x.job_id, x.first_seq limit {SHARDS_AT_ONCE}""",
            {"tenant": tenant_id, "job": job_id, "kept": kept, "after_job": after.job_id, "after_seq": after.seq},
        ).fetchall()


def _unlabelled(db: Database, shards: Sequence[Any], after: Place) -> list[list[int]]:
    """Return the places of each shard's texts that are to be reviewed and have no label of a review, nor were erased."""
    with db.session() as connection:
        found = [_to_review(db, connection, shard, after) for shard in shards]
        done = connection.execute(
            """select s.job_id, r.seqs from unnest(%(jobs)s::int8[], %(firsts)s::int4[], %(ns)s::int4[]) s (job_id, first_seq, n)
               cross join lateral (
                 select array_agg(l.seq) as seqs from label l
                 where l.job_id = s.job_id and l.seq >= s.first_seq and l.seq < s.first_seq + s.n
                   and l.source = any(%(sources)s::int2[])) r""",
            {
                "jobs": [one.job_id for one in shards], "firsts": [one.first_seq for one in shards],
                "ns": [one.n for one in shards], "sources": list(map(int, REVIEWS)),
            },
        )  # fmt: skip
        out = {(row.job_id, seq) for row in done for seq in row.seqs or ()}
        out |= _erased(connection, shards)
    return [[seq for seq in seqs if (shard.job_id, seq) not in out] for shard, seqs in zip(shards, found, strict=True)]


def _erased(connection: Connection, shards: Sequence[Any]) -> set[tuple[int, int]]:
    some = [one for one in shards if one.erased]
    if not some:
        return set()
    rows = connection.execute(
        f"""select v.job_id, v.seq
            from unnest(%(jobs)s::int8[], %(days)s::date[], %(firsts)s::int4[], %(ns)s::int4[]) s (job_id, day, first_seq, n)
            join verdict v on v.job_id = s.job_id and v.day = s.day and v.seq >= s.first_seq and v.seq < s.first_seq + s.n
            where {ERASED_VERDICT}""",
        {
            "jobs": [one.job_id for one in some], "days": [one.day for one in some],
            "firsts": [one.first_seq for one in some], "ns": [one.n for one in some],
        },
    )  # fmt: skip
    return {(row.job_id, row.seq) for row in rows}


def _to_review(db: Database, connection: Connection, shard: Any, after: Place) -> list[int]:
    meant = decisions.words(db, connection, shard.policy_id)
    wanted = [outcome for outcome, decision in meant.items() if decision.action == Action.REVIEW.label]
    seqs = np.flatnonzero(np.isin(np.frombuffer(shard.outcomes, np.uint8), wanted)) + shard.first_seq
    return [seq for seq in seqs.tolist() if (shard.job_id, seq) > after]
