"""What comes into a queue: texts of its sample, or what the policy reviews; each into one queue of the tenant alone."""

from collections.abc import Sequence
from typing import Any

from guardfleet.domain.labels import REVIEWS
from guardfleet.domain.reviews import Kind
from guardfleet.store.labels.queues import Queue
from guardfleet.store.postgres.database import Database

QUEUE_KEY = 0x7265_7671  # "revq": locks of filling
REVIEWED = f"""exists (select from label l where l.job_id = t.job_id and l.seq = t.seq
                         and l.source in ({", ".join(str(int(one)) for one in REVIEWS)}))"""


def fill(db: Database, queue: Queue, texts: Sequence[tuple[int, int]], *, most: int) -> int:
    """Add up to `most` of these texts (job, place), in this order: those in no queue, without a label of a review."""
    among = "unnest(%(jobs)s::int8[], %(seqs)s::int4[]) with ordinality t (job_id, seq, place)"
    values = {"jobs": [job for job, _ in texts], "seqs": [seq for _, seq in texts]}
    return _fill(db, queue, among, values, most)


def fill_from_sample(db: Database, queue: Queue, *, most: int) -> int:
    """Do the same with the texts of the queue's sample, in their order, which is random."""
    among = "(select job_id, seq, ord as place from sample_text where sample_id = %(sample)s) t"
    return _fill(db, queue, among, {"sample": queue.sample_id}, most)


def _fill(db: Database, queue: Queue, among: str, values: dict[str, Any], most: int) -> int:
    values |= {"queue": queue.id, "most": most, "key": QUEUE_KEY, "tenant": queue.tenant_id}
    with db.begin() as connection:
        connection.execute("select pg_advisory_xact_lock(%(key)s, %(tenant)s::int8::int4)", values)
        return connection.execute(
            f"""insert into review_task (tenant_id, queue_id, job_id, seq, kind, wants_second)
                select q.tenant_id, q.id, t.job_id, t.seq, {Kind.FIRST}, random() < q.second_share
                from {among} join review_queue q on q.id = %(queue)s and q.is_open
                join job j on j.id = t.job_id and j.tenant_id = q.tenant_id and j.purged_at is null
                where not {REVIEWED} and not exists (
                  select from review_task o where o.job_id = t.job_id and o.seq = t.seq and o.kind = {Kind.FIRST})
                order by t.place limit %(most)s on conflict do nothing""",
            values,
        ).rowcount
