"""Which stored verdicts and detections may stand for an equal text's: of the claim's own job, and of others up to an age."""

from collections.abc import Sequence
from typing import Any

from guardfleet.store.shards.leases import Claim

# Of a table with these columns; a statement adds which rows were given by a model. Newest of the own job first.
WHERE = """digest = any(%(digests)s::uuid[]) and model_id = %(model)s
             and (evidence is null or not evidence ? 'left_out')
             and day >= least(%(day)s, ((now() - make_interval(secs => %(age)s)) at time zone 'utc')::date)
             and (job_id = %(job)s or done_at > now() - make_interval(secs => %(age)s))"""
ORDER = "order by digest, is_own desc, done_at desc"
IS_OWN = "job_id = %(job)s as is_own"


def values(digests: Sequence[bytes], held: Claim, *, model_id: int, max_age_hours: float) -> dict[str, Any]:
    """Return the parameters of the statement."""
    return {
        "digests": f"{{{','.join([digest.hex() for digest in digests])}}}",  # a list takes the driver longer than the query
        "model": model_id,
        "age": max_age_hours * 3600,
        "job": held.job_id,
        "day": held.day,
    }
