"""The end of a shard: its verdicts, its job's counters and the completion event, in one commit.

Invariant: verdicts are written in the transaction that moves their shard from LEASED to DONE under the token of its last claim.
A few verdicts, for which a caller may be waiting, are written with everything else in one statement; many by COPY, in a transaction
of several statements.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from psycopg.types.json import Jsonb
from uuid_utils import UUID

from guardfleet.domain.plan import NONE_ESCALATED, Escalation
from guardfleet.domain.states import JobState, ShardState
from guardfleet.domain.verdict import Judgement, ServedBy, Severity
from guardfleet.policy.document import Action
from guardfleet.policy.facts import CodeFacts, lists_hit
from guardfleet.rows import payload
from guardfleet.store import detections
from guardfleet.store.detections import Detected, Detections
from guardfleet.store.events.outbox import FINISHED, emit
from guardfleet.store.jobs.notify import DONE_CHANNEL
from guardfleet.store.jobs.views import PACE_S
from guardfleet.store.policy import decisions, lists, policies
from guardfleet.store.policy.decisions import Decided
from guardfleet.store.postgres.database import Database, copy_rows
from guardfleet.store.shards.leases import Claim
from guardfleet.store.words import INTERACTIVE, LEASED_SHARD, RUNNING_JOB
from guardfleet.telemetry import metrics
from guardfleet.verdicts.encoding import Codes, encode

SAVED = (ServedBy.CACHE, ServedBy.DUPLICATE, ServedBy.RULE_EMPTY, ServedBy.LIST)
FEW = 16  # up to this many verdicts, one statement is faster than COPY
VERDICT_COLUMNS = {
    "job_id": "int8", "seq": "int4", "day": "date", "model_id": "int2", "input_tokens": "int4", "output_tokens": "int2",
    "digest": "uuid", "id": "text", "metadata": "jsonb", "evidence": "jsonb",
} | dict(zip(Codes._fields, ("int2", "int2", "bool", "bytea", "int2", "text", "text", "text", "bytea"), strict=True))  # fmt: skip
FENCE = f"""update shard set state = {ShardState.DONE}, lease_until = null, published_at = null
           where job_id = %(job)s and shard_no = %(no)s and token = %(token)s and {LEASED_SHARD} returning job_id"""
# The job comes last, so that its row lock is held for the shortest time (338 commits/s, 176 when it came first). The commit also
# notifies whoever waits for an interactive job.
COUNTED = f"""
    j as (
      update job set done = done + %(n)s, safe = safe + %(safe)s, controversial = controversial + %(controversial)s,
             unsafe = unsafe + %(unsafe)s, error = error + %(error)s, unrated = unrated + %(unrated)s, saved = saved + %(saved)s,
             model_id = coalesce(%(model)s::int2, model_id),
             models = case when models @> %(models)s::int2[] then models
                           else array(select distinct unnest(models || %(models)s::int2[]) order by 1) end,
             escalated = escalated + %(escalated)s, sampled = sampled + %(sampled)s, agreed = agreed + %(agreed)s,
             device_s = device_s + %(device_s)s,
             next_ord = next_ord + 1, started_at = coalesce(started_at, clock_timestamp()),
             pace = pace * exp(-least(extract(epoch from clock_timestamp() - progressed_at) / %(pace_s)s, 50)) + %(n)s / %(pace_s)s,
             progressed_at = clock_timestamp(),
             state = case when {RUNNING_JOB} and done + %(n)s = total then {JobState.COMPLETED} else state end,
             finished_at = case when {RUNNING_JOB} and done + %(n)s = total then now() else finished_at end,
             data_key = case when keeps_nothing and done + %(n)s = total then null else data_key end
      from fenced where id = fenced.job_id returning id, public_id, tenant_id, next_ord, state, done, total, online,
        case when {INTERACTIVE} then pg_notify(%(channel)s, %(job)s::text)::text end as told),
    o as (delete from first_opinion f using fenced where f.job_id = fenced.job_id and f.shard_no = %(no)s),
    d as (insert into shard_done (job_id, ord, shard_no, first_seq, n) select id, next_ord, %(no)s, %(first)s, %(n)s from j),
    e as ({emit(FINISHED)})
    """
DECIDED = f""", q as (
      insert into decision ({", ".join(decisions.COLUMNS)})
      select fenced.job_id, %(first)s, r.* from fenced cross join unnest(
        %(d_policy_id)s::int8[], %(d_n)s::int4[], %(d_outcomes)s::bytea[], %(d_allowed)s::int4[], %(d_flagged)s::int4[],
        %(d_reviewed)s::int4[], %(d_blocked)s::int4[], %(d_shadow)s::bool[]) r)
    """
LISTED = f""", h as (
      insert into list_hit ({", ".join(lists.COLUMNS)})
      select fenced.job_id, %(first)s, u.* from fenced cross join unnest(%(l_list)s::text[], %(l_texts)s::jsonb[]) u)
    """
TAKEN = " select count(*) from fenced"
FORGOTTEN = """, gone as (
      delete from shard_payload p using fenced where p.job_id = fenced.job_id and p.shard_no = %(no)s and p.day = %(day)s)
    """
MANY = f"with fenced as (select %(job)s::int8 as job_id), {COUNTED}"
FEW_ROWS = f"""with fenced as ({FENCE}),
    v as (insert into verdict ({", ".join(VERDICT_COLUMNS)})
      select u.* from fenced cross join unnest({", ".join(f"%({name}_s)s::{kind}[]" for name, kind in VERDICT_COLUMNS.items())}) u),
    {COUNTED}"""


@dataclass(slots=True)  # not frozen: creating one would take four times as long; nobody changes one
class Row:
    """One judged text of a shard."""

    id: str | None
    judgement: Judgement
    digest: bytes | None = None
    metadata: dict[str, object] | None = None
    model_id: int | None = None  # if it differs from the shard's


def finish(
    db: Database,
    held: Claim,
    rows: Sequence[Row],
    *,
    model_id: int | None,
    escalation: Escalation = NONE_ESCALATED,
    device_s: float = 0.0,
    detected: Sequence[Detected] = (),
) -> list[Codes] | None:
    """Settle the shard: DONE, verdicts, counters and, with the last text, the completion event, in one commit.

    Return what was written of each row, which may be less than its judgement says; None if the claim was lost: then nothing is
    written and the work is dropped. `rows` are in input order, one per text. Without a `model_id`, each row must have its own, and
    the job keeps naming the same model as before. `device_s`: the texts' share of the device's time. `detected`: what each detector
    of the plan but the guard said.
    """
    if [one.place for one in detected] != [place for place, _ in held.plan.others]:
        raise ValueError(f"the detectors {[name for _, name in held.plan.others]} gave {len(detected)} answers")
    if any(len(one.detections) != held.n for one in detected):
        raise ValueError(f"shard of {held.n} texts got another number of detections")
    if len(rows) != held.n:
        raise ValueError(f"shard of {held.n} texts got {len(rows)} verdicts")
    codes = [encode(row.judgement) for row in rows]
    found = detections.encoded(detected)
    values = _counts(held, rows, codes, model_id, escalation) | {"device_s": device_s} | _decided(db, held, rows, codes, found)
    values |= _listed(rows)
    values["models"] = sorted({*values["models"], *(model for one in detected for model in one.model_ids)})
    try:
        mine = _finish(db, held, rows, codes, model_id, values, found)
    except RecursionError:  # metadata from an earlier version can be read but not written: leave it out
        bare = [row if payload.is_writable(row.metadata) else replace(row, metadata=None) for row in rows]
        mine = _finish(db, held, bare, codes, model_id, values, found)
    if mine:
        _count_actions(values)
    return codes if mine else None


def _count_actions(values: dict[str, Any]) -> None:
    metrics.UNDECIDED.inc(values["undecided"])
    for action in Action if "d_policy_id" in values else ():
        counts = zip(values[f"d_{decisions.OF_ACTION[action]}"], values["d_shadow"], strict=True)
        metrics.DECISIONS.labels(action.label).inc(sum(n for n, is_shadow in counts if not is_shadow))


def _finish(
    db: Database,
    held: Claim,
    rows: Sequence[Row],
    codes: Sequence[Codes],
    model_id: int | None,
    values: dict[str, Any],
    detected: Detections,
) -> bool:
    if not detected and (len(rows) <= FEW or held.keeps_nothing):
        by_column = zip(*_verdict_rows(held, rows, codes, model_id), strict=True)
        values = values | {f"{name}_s": list(column) for name, column in zip(VERDICT_COLUMNS, by_column, strict=True)}
        # purge() deletes the row of a shard that keeps nothing later, like all others: it holds nothing of the text
        statement = FEW_ROWS + (FORGOTTEN if held.keeps_nothing else "") + _beside(values) + TAKEN
        with db.session() as connection:
            return bool(connection.scalar(statement, values))
    with db.begin() as connection:
        if connection.scalar(FENCE, values) is None:
            return False
        copy_rows(connection, "verdict", VERDICT_COLUMNS, _verdict_rows(held, rows, codes, model_id))
        if detected:
            digests = [row.digest for row in rows]
            copy_rows(connection, "detection", detections.COLUMNS, detections.rows(held, detected, digests))
            detections.count(connection, held, detected)
        forgotten = FORGOTTEN if held.keeps_nothing else ""
        connection.execute(MANY + forgotten + _beside(values) + TAKEN, values)
    return True


def _beside(values: dict[str, Any]) -> str:
    """Return the parts of the statement that most shards do without."""
    return (DECIDED if "d_policy_id" in values else "") + (LISTED if "l_list" in values else "")


def _listed(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the parameters of LISTED: in how many texts each entry of a list was found; none without hits."""
    found = lists.hits_of(row.judgement.evidence for row in rows)
    return {"l_list": list(found), "l_texts": [Jsonb(texts) for texts in found.values()]} if found else {}


def _decided(db: Database, held: Claim, rows: Sequence[Row], codes: Sequence[Codes], detected: Detections) -> dict[str, Any]:
    """Return what the tenant's policies say to these verdicts: the parameters of DECIDED, if there are any, and of the event."""
    applied = policies.applied(db, held.tenant_id)
    ready = {policy_id: policies.decider(db, policy_id) for policy_id in applied if policy_id is not None}
    made, tokens = [], [row.judgement.input_tokens for row in rows] if ready else []
    for policy_id, decider in ready.items():
        if decider is not None:
            metadata = [row.metadata for row in rows] if decider.reads_metadata else None
            hit = [lists_hit(row.judgement.evidence) for row in rows] if decider.reads_lists else None
            seen = detections.seen(detected, held) if decider.reads_detections else None
            made.append(Decided.by(decider, policy_id, CodeFacts(codes, tokens, metadata, hit, seen)))
    told = next((one for one in made if not one.shadow), None)
    undecided = held.n if applied.active is not None and told is None else 0
    columns = zip(*(one.row(held.job_id, held.first_seq) for one in made), strict=True)
    by_column = {f"d_{name}": list(column) for name, column in zip(decisions.COLUMNS, columns, strict=False)}
    return by_column | _event_of(told) | {"undecided": undecided}


def _event_of(told: Decided | None) -> dict[str, Any]:
    """Return what `outbox.FINISHED` says of a policy's decisions, and of how many texts somebody has to see to."""
    if told is None:
        return {"decided": None, "to_see": 0}
    counts = {action.label: told.actions[action] for action in Action if action is not Action.ALLOW}
    return {"decided": Jsonb({"actions": counts}), "to_see": counts["review"] + counts["block"]}


def _counts(
    held: Claim, rows: Sequence[Row], codes: Sequence[Codes], model_id: int | None, escalation: Escalation
) -> dict[str, Any]:
    counts = dict.fromkeys(map(int, Severity), 0)
    saved, judges = 0, {model_id}
    for row, said in zip(rows, codes, strict=True):
        counts[said.severity] += 1
        if row.model_id is not None and said.served_by != ServedBy.NOBODY:
            judges.add(row.model_id)
        saved += said.served_by in SAVED
    return {
        "n": held.n,
        "pace_s": PACE_S,
        "safe": counts[Severity.SAFE],
        "controversial": counts[Severity.CONTROVERSIAL],
        "unsafe": counts[Severity.UNSAFE],
        "error": counts[Severity.ERROR],
        "unrated": counts[Severity.UNRATED],
        "saved": saved,
        **asdict(escalation),
        "model": model_id,
        "models": sorted(judges - {None}),
        "job": held.job_id,
        "no": held.shard_no,
        "token": held.token,
        "first": held.first_seq,
        "day": held.day,
        "channel": DONE_CHANNEL,
    }


def _verdict_rows(held: Claim, rows: Sequence[Row], codes: Sequence[Codes], model_id: int | None) -> Iterable[tuple[object, ...]]:
    for seq, (row, said) in enumerate(zip(rows, codes, strict=True), held.first_seq):
        j = row.judgement
        yield (
            held.job_id, seq, held.day, row.model_id or model_id, j.input_tokens, j.output_tokens,
            None if row.digest is None or held.keeps_nothing else UUID(bytes=row.digest), row.id,
            None if row.metadata is None else Jsonb(row.metadata), None if j.evidence is None else Jsonb(j.evidence), *said,
        )  # fmt: skip
