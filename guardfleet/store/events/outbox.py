"""The outbox: one row per event, written in the statement that made it true. `deliveries.relay` empties it.

An event's id names the job and what happened to it, so the same event never gets two ids.
"""

from guardfleet.domain import ids
from guardfleet.domain.events import ENDS, FLAGGED, PROGRESS
from guardfleet.domain.states import JobState
from guardfleet.store.words import COMPLETED_JOB, ENDED_JOB, RUNNING_JOB, public_id

TEST_ID = f"'{ids.EVENT.prefix}test_' || replace(gen_random_uuid()::text, '-', '')"  # for an event without a job
KIND = " ".join(f"when {state} then '{kind}'" for state, kind in ENDS.items())
ENDED = f"""select id, public_id, tenant_id, case state {KIND} end as kind, '' as no, cast(null as jsonb) as subject
            from j where {ENDED_JOB}"""
# With the counts of `completion`, those of the active policy in `decided`. Most shards cause no event; callers that wait for an
# online job are notified by other means.
FINISHED = f"""select j.id, j.public_id, j.tenant_id, e.kind, e.no, e.subject
               from j cross join lateral (values
                 ('{ENDS[JobState.COMPLETED]}', '', cast(null as jsonb), {COMPLETED_JOB}),
                 ('{PROGRESS}', done::text, jsonb_build_object('done', done, 'total', total),
                  {RUNNING_JOB} and 10::bigint * done / total > 10::bigint * (done - %(n)s) / total),
                 ('{FLAGGED}', next_ord::text,
                  jsonb_build_object('unsafe', %(unsafe)s, 'ord', next_ord) || coalesce(%(decided)s::jsonb, '{{}}'::jsonb),
                  %(unsafe)s > 0 or %(to_see)s > 0)
               ) e (kind, no, subject, happened)
               where e.happened and not j.online and (e.kind = '{ENDS[JobState.COMPLETED]}' or exists (
                 select from endpoint p
                 where p.tenant_id = j.tenant_id and p.job_id is null and p.enabled and e.kind = any (p.kinds)))"""


def emit(happened: str) -> str:
    """Return the statement that writes events: ENDED or FINISHED, over the rows `j` of the jobs that the statement has changed."""
    return f"""insert into outbox (event_id, tenant_id, job_id, kind, subject)
               select {public_id(ids.EVENT)} || '_' || split_part(kind, '.', 2) || no, tenant_id, id, kind, subject
               from ({happened}) happened"""
