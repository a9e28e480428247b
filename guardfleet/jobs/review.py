"""The review queue, a page at a time."""

from itertools import groupby
from operator import itemgetter
from typing import Any

from guardfleet.domain import ids
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.jobs.sampling import said
from guardfleet.store import verdicts
from guardfleet.store.labels import labels, reviews
from guardfleet.store.labels.reviews import Place
from guardfleet.store.postgres.database import Database

SEQ_DIGITS = 10
NO_PLACE = "after is not an `id` of the queue: take `last_id` of the previous page."


def page(db: Database, tenant_id: int, *, job_id: int | None, after: str | None, limit: int) -> list[dict[str, Any]]:
    """Return up to `limit` texts that wait for a review, oldest first. Raises RejectedError for a place that is none."""
    place = None if after is None else _place(db, tenant_id, after)
    out: list[dict[str, Any]] = []
    waiting = reviews.waiting(db, tenant_id, job_id=job_id, after=place, limit=limit)
    for job, parts in groupby(waiting, key=itemgetter(0)):
        found = verdicts.of_texts(db, job.id, job.day, [seq for _, seqs in parts for seq in seqs])
        batch = ids.BATCH.of(job.public_id)
        for row, decision in zip(found.fields(), found.decided(), strict=True):
            out.append({
                "id": f"{batch}:{row['seq']}", "batch_id": batch, "seq": row["seq"], "row_id": row["id"],
                "verdict": said(row, decision), "decision": row["decision"], "done_at": row["done_at"].isoformat(),
            })  # fmt: skip
    return out


def _place(db: Database, tenant_id: int, after: str) -> Place:
    batch, _, seq = after.partition(":")
    try:
        known = labels.jobs_of(db, tenant_id, [ids.JOB.parse(batch)])
    except NotFoundError:
        known = {}
    if not known or not (seq.isascii() and seq.isdecimal() and len(seq) <= SEQ_DIGITS):
        raise RejectedError(NO_PLACE, param="after")
    (job_id, _), *_ = known.values()
    return Place(job_id, int(seq))
