"""Decisions: what policies decided of stored verdicts, a row for each shard and policy, written once.

Invariant: a text has at most one decision of each policy, since a row of a shard is written whole and never again. In force of
several is the one of the policy that the tenant applies now, else the last activated that is no shadow.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from guardfleet.domain.decision import Decision
from guardfleet.domain.verdict import CATEGORY_CHOICES
from guardfleet.policy.document import LANGUAGE_KEYS, SOURCE_KEY, Action
from guardfleet.policy.evaluation import Decider, Outcomes
from guardfleet.policy.facts import OF_ANOTHER_LENGTH, Facts, RecordFacts, lists_hit
from guardfleet.store import detections
from guardfleet.store.postgres.database import Connection, Database

N_P, N_CATEGORIES = 3, len(CATEGORY_CHOICES)
# facts.RECORD, a text: what `of_records` reads.
RECORD = f"""int2send(v.severity) || int2send(v.categories) || int2send(v.served_by)
    || int2send(case v.refusal when true then 1 when false then 0 else -1 end::int2) || int4send(v.input_tokens)
    || case when v.error is null then '\\x00'::bytea else '\\x01' end
    || case when v.probabilities is null then '\\x00000000'::bytea
            when octet_length(v.probabilities) = {N_P} then '\\x01'::bytea || v.probabilities
            else '\\x0{OF_ANOTHER_LENGTH}000000' end
    || case when v.category_odds is null then '\\x00{"ff" * N_CATEGORIES}'::bytea
            when octet_length(v.category_odds) = {N_CATEGORIES} then '\\x01'::bytea || v.category_odds
            else '\\x0{OF_ANOTHER_LENGTH}{"ff" * N_CATEGORIES}' end"""
OF_ACTION = {Action.ALLOW: "allowed", Action.FLAG: "flagged", Action.REVIEW: "reviewed", Action.BLOCK: "blocked"}
COLUMNS = ("job_id", "first_seq", "policy_id", "n", "outcomes", *OF_ACTION.values(), "shadow")
NEWEST = "(d.policy_id = t.policy_id) desc nulls last, p.activated_at desc, p.id desc"
NEWEST_SHADOW = NEWEST.replace("t.policy_id", "t.shadow_policy_id")
IN_FORCE = f"""(select distinct on (d.first_seq) d.* from decision d join policy p on p.id = d.policy_id
               where d.job_id = j.id and not d.shadow and p.activated_at is not null
               order by d.first_seq, {NEWEST})"""
# Of job `j`: how many texts have each action in force.
BY_ACTION = f"""(select case when count(*) > 0 then jsonb_build_object({
    ", ".join(f"'{action.label}', sum(f.{column})" for action, column in OF_ACTION.items())
}) end
                 from tenant t cross join lateral {IN_FORCE} f where t.id = j.tenant_id)"""
# Finished shards `d` of a Scope, of which a policy has not decided.
IN_SCOPE = """shard_done d join job j on j.id = d.job_id
               where j.tenant_id = %(tenant)s and (%(job)s::int8 is null or d.job_id = %(job)s::int8)
                 and (%(since)s::timestamptz is null or j.created_at >= %(since)s::timestamptz)
                 and (%(without)s::int8 is null or not exists (
                   select from decision x
                   where x.job_id = d.job_id and x.first_seq = d.first_seq and x.policy_id = %(without)s::int8))"""
# Of a finished shard `s`: its outcomes in force. No row: nobody decided.
ONE_IN_FORCE = f"""(select d.policy_id, d.outcomes
                  from decision d join policy p on p.id = d.policy_id
                  join job j on j.id = d.job_id join tenant t on t.id = j.tenant_id
                  where d.job_id = s.job_id and d.first_seq = s.first_seq and not d.shadow and p.activated_at is not null
                  order by {NEWEST} limit 1)"""
# The same, with the outcomes that mean one of %(actions)s.
WITH_ACTION = f"""(select x.outcomes, array(select o.outcome from policy_outcome o where o.policy_id = x.policy_id
                                            and o.action = any(%(actions)s::int2[])) as wanted from {ONE_IN_FORCE} x)"""
HITS = "case when v.evidence ? 'lists' then jsonb_build_object('lists', v.evidence -> 'lists') end"
SOURCE = f"v.metadata ->> '{SOURCE_KEY}'"
OF_METADATA = [f"v.metadata ->> '{key}'" for key in LANGUAGE_KEYS]


class Reads(Enum):
    """What is read of the texts' metadata: it takes longer than all the rest."""

    NOTHING = "null::text"
    SLICES = f"coalesce({', '.join(OF_METADATA)})"
    ALL = "v.metadata"


class Shard(NamedTuple):
    """Texts of a finished shard, and their facts; `languages` and `sources` if that is what was read of their metadata."""

    job_id: int
    first_seq: int
    n: int
    facts: RecordFacts
    languages: Sequence[str | None] | None
    sources: Sequence[str | None] | None


@dataclass(frozen=True, slots=True)
class Decided:
    """What a policy decided of a shard's texts."""

    policy_id: int
    outcomes: Outcomes
    actions: Sequence[int]  # how many texts got each Action
    shadow: bool

    @classmethod
    def by(cls, decider: Decider, policy_id: int, facts: Facts) -> "Decided":
        """Decide."""
        outcomes = decider.outcomes(facts)
        counts = np.bincount(decider.actions[outcomes], minlength=len(Action))
        return cls(policy_id, outcomes, [int(n) for n in counts], decider.policy.shadow)

    def row(self, job_id: int, first_seq: int) -> tuple[object, ...]:
        """Return the values of COLUMNS."""
        return job_id, first_seq, self.policy_id, len(self.outcomes), self.outcomes.tobytes(), *self.actions, self.shadow


def record(connection: Connection, rows: Sequence[tuple[object, ...]]) -> int:
    """Write rows of COLUMNS; one that is there stays as it is. Return of how many texts the new ones are."""
    if not rows:
        return 0
    new = connection.scalars(
        f"""insert into decision ({", ".join(COLUMNS)})
            select * from unnest(%(job_id)s::int8[], %(first_seq)s::int4[], %(policy_id)s::int8[], %(n)s::int4[],
              %(outcomes)s::bytea[], %(allowed)s::int4[], %(flagged)s::int4[], %(reviewed)s::int4[], %(blocked)s::int4[],
              %(shadow)s::bool[])
            on conflict do nothing returning n""",
        dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)),
    )
    return sum(new)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which texts of a tenant: of one job, or of the jobs that were submitted since then; without either, all."""

    tenant_id: int
    job_id: int | None = None
    since: Any = None


def shards(
    db: Database, scope: Scope, *, without: int | None = None, after: tuple[int, int] = (0, 0), limit: int
) -> tuple[list[Any], tuple[int, int]]:
    """Return up to `limit` finished shards after a place, in order, and the place that was reached.

    `without`: only those that this policy has not decided of. A shard that finishes behind the place meanwhile is decided of by its
    worker, which knew the policy if it claimed the shard after the activation.
    """
    with db.session() as connection:
        found = connection.execute(
            f"""select d.job_id, d.ord, j.day, d.first_seq, d.n
               from {IN_SCOPE} and (d.job_id, d.ord) > (%(after_job)s, %(after_ord)s)
               order by d.job_id, d.ord limit %(limit)s""",
            _scope(scope, without) | {"after_job": after[0], "after_ord": after[1], "limit": limit},
        ).fetchall()
    return found, (found[-1].job_id, found[-1].ord) if found else after


def n_texts(db: Database, scope: Scope, *, without: int | None = None) -> int:
    """Return how many texts the shards in the scope have; `without`: those that this policy has not decided of."""
    with db.session() as connection:
        n: int = connection.scalar(f"select coalesce(sum(d.n), 0) from {IN_SCOPE}", _scope(scope, without))
    return int(n)


def _scope(scope: Scope, without: int | None) -> dict[str, Any]:
    return {"tenant": scope.tenant_id, "job": scope.job_id, "since": scope.since, "without": without}


def facts(
    db: Database, among: Sequence[Any], reads: Reads, *, with_lists: bool = False, with_detections: bool = False
) -> Iterator[Shard]:
    """Yield the facts of these shards; one whose verdicts are gone is left out.

    `with_lists`: which lists were hit, too; `with_detections`: what detectors said.
    """
    is_sliced = reads is Reads.SLICES
    asked = {"metadata": None if reads is Reads.NOTHING else reads.value, "source": SOURCE if is_sliced else None}
    asked["hits"] = HITS if with_lists else None  # an array of nothing would cost a tenth of all the rest
    read = "".join(f", {expression} as {name}" for name, expression in asked.items() if expression)
    told = "".join(f", {'null' if expression is None else f'array_agg(x.{name})'} as {name}" for name, expression in asked.items())
    with db.session() as connection:
        rows = connection.cursor(binary=True).execute(
            f"""select s.job_id, s.first_seq, s.n, r.records, r.metadata, r.source as sources, r.hits
                from unnest(%(jobs)s::int8[], %(days)s::date[], %(firsts)s::int4[], %(ns)s::int4[]) s (job_id, day, first_seq, n)
                cross join lateral (
                  select string_agg(x.record, '') as records{told} from (
                    select {RECORD} as record{read} from verdict v
                    where v.job_id = s.job_id and v.day = s.day and v.seq >= s.first_seq and v.seq < s.first_seq + s.n
                    order by v.seq) x) r""",
            {
                "jobs": [one.job_id for one in among], "days": [one.day for one in among],
                "firsts": [one.first_seq for one in among], "ns": [one.n for one in among],
            },
        ).fetchall()  # fmt: skip
        seen = detections.seen_in(db, connection, among) if with_detections else {}
    for row in rows:
        if row.records is not None:
            hit = [lists_hit(one) for one in row.hits] if with_lists else None
            detected = seen.get((row.job_id, row.first_seq))
            found = RecordFacts.of(row.records, row.metadata if reads is Reads.ALL else None, hit, detected)
            if len(found) == row.n:
                slices = (row.metadata, row.sources) if is_sliced else (None, None)
                yield Shard(row.job_id, row.first_seq, row.n, found, *slices)


def of_texts(db: Database, connection: Connection, job_id: int, seqs: Sequence[int]) -> list[Decision | None] | None:
    """Return the decision in force of each of these texts of a job; None if no policy decided of any of them."""
    if not seqs:
        return None
    found = connection.execute(
        f"""select f.first_seq, f.n, f.policy_id, f.outcomes
            from job j join tenant t on t.id = j.tenant_id cross join lateral {IN_FORCE} f
            where j.id = %(job)s and f.first_seq <= %(last)s and f.first_seq >= coalesce((
              select max(d.first_seq) from decision d where d.job_id = %(job)s and d.first_seq <= %(first)s), 0)
            order by f.first_seq""",
        {"job": job_id, "first": min(seqs), "last": max(seqs)},
    ).fetchall()
    if not found:
        return None
    firsts = [row.first_seq for row in found]
    out: list[Decision | None] = []
    for seq in seqs:
        row = found[at] if (at := bisect_right(firsts, seq) - 1) >= 0 else None
        known = row is not None and seq < row.first_seq + row.n
        out.append(words(db, connection, row.policy_id)[row.outcomes[seq - row.first_seq]] if row is not None and known else None)
    return out


def words(db: Database, connection: Connection, policy_id: int) -> Mapping[int, Decision]:
    """Return what each outcome of a policy means; versions never change, so a process asks once."""
    found = db.outcomes.get(policy_id)
    if found is None:
        rows = connection.execute(
            """select o.outcome, o.action, o.rule, o.reason, o.labels, p.name || '@' || p.version as policy
               from policy_outcome o join policy p on p.id = o.policy_id where p.id = %(policy)s""",
            {"policy": policy_id},
        )
        found = db.outcomes[policy_id] = {
            row.outcome: Decision(Action(row.action).label, row.policy, row.rule, row.reason, tuple(row.labels)) for row in rows
        }
    return found


def actions_in_force(db: Database, among: Sequence[Any], *, shadow: bool = False) -> dict[tuple[int, int], Any]:
    """Return the Action in force of each text of these shards, as an array; a shard that no policy decided of is left out.

    `shadow`: the action of the newest shadow policy instead.
    """
    with db.session() as connection:
        found = connection.execute(
            f"""select distinct on (d.job_id, d.first_seq) d.job_id, d.first_seq, d.policy_id, d.outcomes
               from unnest(%(jobs)s::int8[], %(firsts)s::int4[]) s (job_id, first_seq)
               join decision d on d.job_id = s.job_id and d.first_seq = s.first_seq and d.shadow = %(shadow)s
               join policy p on p.id = d.policy_id and p.activated_at is not null
               join job j on j.id = d.job_id join tenant t on t.id = j.tenant_id
               order by d.job_id, d.first_seq, {NEWEST_SHADOW if shadow else NEWEST}""",
            {"jobs": [one.job_id for one in among], "firsts": [one.first_seq for one in among], "shadow": shadow},
        ).fetchall()
        out = {}
        for row in found:
            table = np.zeros(256, np.uint8)
            for outcome, decision in words(db, connection, row.policy_id).items():
                table[outcome] = Action[decision.action.upper()]
            out[row.job_id, row.first_seq] = table[np.frombuffer(row.outcomes, np.uint8)]
    return out
