"""Webhook deliveries: relayed from the outbox, claimed with a token, sent outside any transaction, settled or deferred."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from guardfleet.domain import ids
from guardfleet.domain.events import END_KINDS, TEST
from guardfleet.domain.states import DeliveryState, JobState
from guardfleet.store import audit
from guardfleet.store.postgres.database import Database
from guardfleet.store.words import OPEN_DELIVERY, PENDING_DELIVERY, SENDING_DELIVERY

# A delivery `b` that a sender holds, or whose message is on its way.
UNDER_WAY = f"""{OPEN_DELIVERY:b} and (b.lease_until >= now() or b.lease_until is null
                                      and b.published_at >= now() - make_interval(secs => %(again)s))"""
IS_TEST = f"coalesce(d.subject ->> '{TEST}' = 'true', false)"  # of a delivery `d`
PACE_WAIT_S = 1.0  # a sender waits at most about this long for an endpoint's turn; if the turn is later, nothing is published


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """One attempt to make: everything the sender needs, `secret` still encrypted."""

    id: int
    token: int
    attempts: int  # this one included
    event_id: str
    kind: str
    occurred_at: dt.datetime
    url: str
    secret: bytes
    old_secret: bytes | None  # signs too, while the endpoint's secret is being rotated
    job_id: int  # 0: none, as for a test
    job_public_id: uuid.UUID | None
    subject: dict[str, Any] | None
    endpoint_id: int
    is_paced: bool  # the endpoint limits attempts per second: call `pace`; False for a test


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt. `status` is None if there was no answer; `error` names the failure, never the body."""

    status: int | None
    latency_ms: int
    error: str | None = None
    retry_after_s: float | None = None  # what the receiver asked for


def events(db: Database, *, skip: Sequence[int] = (), limit: int = 100) -> list[int]:
    """Return the outbox events that wait to be relayed, oldest first."""
    with db.session() as connection:
        return connection.scalars(
            "select id from outbox where id <> all(cast(%(skip)s as bigint[])) order by id limit %(limit)s",
            {"skip": list(skip), "limit": limit},
        )


def waiting(db: Database) -> tuple[int, float]:
    """Return how many deliveries are due and not made, and for how many seconds the oldest of them has been."""
    with db.session() as connection:
        (row,) = connection.execute(
            f"""select count(*) as n, coalesce(extract(epoch from now() - min(next_attempt_at)), 0)::float8 as oldest_s
               from delivery where {OPEN_DELIVERY} and next_attempt_at <= now()"""
        )
        return row.n, row.oldest_s


@dataclass(frozen=True, slots=True)
class End:
    """A job that has ended, and when."""

    public_id: uuid.UUID
    state: JobState
    total: int
    created_at: dt.datetime
    ended_at: dt.datetime


def ends(db: Database, events: Sequence[int]) -> list[End]:
    """Return the jobs that end with these outbox events."""
    with db.session() as connection:
        rows = connection.execute(
            """select j.public_id, j.state, j.total, j.created_at, coalesce(j.finished_at, now()) as ended_at
               from outbox o join job j on j.id = o.job_id where o.id = any(%(ids)s) and o.kind = any(%(kinds)s)""",
            {"ids": list(events), "kinds": list(END_KINDS)},
        )
        return [End(row.public_id, JobState(row.state), *row[2:]) for row in rows]


def relay(db: Database, events: Sequence[int]) -> int:
    """Turn these outbox events into deliveries, one for each endpoint that listens. Claims by row, never by `id > last`."""
    with db.session() as connection:
        n: int = connection.scalar(
            """with x as materialized (
                 select id from outbox where id = any(cast(%(events)s as bigint[])) order by id for update skip locked),
               o as (delete from outbox b using x where b.id = x.id returning b.*),
               d as (insert into delivery (event_id, endpoint_id, job_id, kind, occurred_at, subject)
                 select o.event_id, e.id, o.job_id, o.kind, o.created_at, o.subject from o cross join lateral (
                   select id from endpoint where job_id = o.job_id and enabled and o.kind = any (kinds)
                   union all
                   select id from endpoint where tenant_id = o.tenant_id and job_id is null and enabled
                     and o.kind = any (kinds)) e
                 on conflict do nothing)
               select count(*) from o""",
            {"events": list(events)},
        )
        return n


def due(db: Database, *, limit: int, again_after_s: float, at_once: int, failing: int, skip: Sequence[int] = ()) -> list[int]:
    """Return deliveries to publish: due, or claimed by a sender that died; not published within `again_after_s`.

    At most `at_once` deliveries of an endpoint are under way at a time, one if it fails or has not taken any yet, and `failing` for
    all failing endpoints together: a receiver that hangs holds up neither other receivers nor all senders. Failing endpoints take
    turns by tenant, and in random order within a tenant: by waiting time, those with the longest queues would always come first.
    """
    with db.session() as connection:
        return connection.scalars(
            f"""with out as (
                 select b.endpoint_id, e.tenant_id, e.failing_since is not null as fails, count(*) as n
                 from delivery b join endpoint e on e.id = b.endpoint_id where {UNDER_WAY} group by 1, 2, 3),
               ready as (
                 select d.id, d.endpoint_id, e.tenant_id, d.next_attempt_at, e.failing_since is not null as fails,
                        case when e.failing_since is null and e.answered_at is not null
                          then least(%(at_once)s, ceil(coalesce(e.most_per_s, %(at_once)s))) else 1 end as most,
                        row_number() over (partition by d.endpoint_id order by d.next_attempt_at, d.id) as place
                 from delivery d join endpoint e on e.id = d.endpoint_id
                 where {OPEN_DELIVERY:d} and d.next_attempt_at <= now() and e.enabled and d.id <> all(cast(%(skip)s as bigint[]))
                   and (e.paced_until is null or e.paced_until <= now() + make_interval(secs => %(wait)s) or {IS_TEST})
                   and (d.lease_until is null or d.lease_until < now())
                   and (d.published_at is null or d.published_at < now() - make_interval(secs => %(again)s))),
               allowed as (
                 select r.*, case when r.fails then
                          row_number() over (partition by r.tenant_id, r.fails order by r.place, random())
                            + (select coalesce(sum(o.n), 0) from out o where o.tenant_id = r.tenant_id and o.fails)
                        end as of_tenant
                 from ready r left join out on out.endpoint_id = r.endpoint_id where r.place + coalesce(out.n, 0) <= r.most),
               turns as (
                 select id, fails,
                        row_number() over (partition by fails order by of_tenant, place, next_attempt_at) as turn
                 from allowed)
               select id from turns
               where not fails or turn <= %(failing)s - (select coalesce(sum(n), 0) from out where fails)
               order by fails, turn limit %(limit)s""",
            {
                "limit": limit,
                "again": again_after_s,
                "at_once": at_once,
                "failing": failing,
                "wait": PACE_WAIT_S,
                "skip": list(skip),
            },
        )


def mark_published(db: Database, ids: Sequence[int]) -> None:
    """Record that messages were published. Skips a delivery that is being claimed: the dispatcher waits for no sender."""
    if ids:
        with db.begin() as connection:
            connection.execute(
                """with x as materialized (select id from delivery where id = any(%(ids)s) for update skip locked)
                   update delivery d set published_at = now() from x where d.id = x.id""",
                {"ids": list(ids)},
            )


def claim(db: Database, delivery_id: int, *, lease_s: float) -> DueDelivery | None:
    """Take the delivery for one attempt; None if it is settled, not due, held by a sender, or its endpoint is disabled."""
    return _take(db, "%(id)s", {"id": delivery_id, "lease": lease_s})


def claim_next(db: Database, endpoint_id: int, *, lease_s: float, again_after_s: float, at_once: int) -> DueDelivery | None:
    """Take the endpoint's next due delivery that has no message on its way; None if `at_once` are under way already."""
    which = f"""(select n.id from delivery n
                where n.endpoint_id = %(endpoint)s and {PENDING_DELIVERY:n} and n.next_attempt_at <= now()
                  and (n.published_at is null or n.published_at < now() - make_interval(secs => %(again)s))
                  and (select count(*) from delivery b where b.endpoint_id = %(endpoint)s and {UNDER_WAY}) < %(at_once)s
                  and not exists (select from endpoint p
                                  where p.id = %(endpoint)s and p.paced_until > now() + make_interval(secs => %(wait)s))
                order by n.next_attempt_at, n.id limit 1 for update skip locked)"""
    limits = {"again": again_after_s, "at_once": at_once, "wait": PACE_WAIT_S}
    return _take(db, which, {"endpoint": endpoint_id, "lease": lease_s, **limits})


def pace(db: Database, endpoint_id: int) -> float:
    """Reserve the endpoint's next turn and return the seconds until then: at most a little more than PACE_WAIT_S."""
    with db.begin() as connection:
        wait_s: float | None = connection.scalar(
            """update endpoint
               set paced_until = greatest(coalesce(paced_until, now()), now()) + make_interval(secs => 1 / most_per_s)
               where id = %(id)s and most_per_s is not null
               returning cast(extract(epoch from paced_until - now()) - 1 / most_per_s as float8)""",
            {"id": endpoint_id},
        )
    return max(0.0, wait_s or 0.0)


def _take(db: Database, which: str, values: Mapping[str, object]) -> DueDelivery | None:
    with db.begin() as connection:
        cursor = connection.cursor(row_factory=class_row(DueDelivery))
        return cursor.execute(
            f"""update delivery d set state = {DeliveryState.SENDING}, attempts = d.attempts + 1, token = d.token + 1,
                       lease_until = now() + make_interval(secs => %(lease)s)
                from endpoint e
                where d.id = {which} and e.id = d.endpoint_id and {OPEN_DELIVERY:d} and d.next_attempt_at <= now()
                  and (d.lease_until is null or d.lease_until < now())
                  and e.enabled
                returning d.id, d.token, d.attempts, d.event_id, d.kind, d.occurred_at, e.url, e.secret,
                          case when e.old_secret_until > now() then e.old_secret end as old_secret,
                          d.job_id, (select j.public_id from job j where j.id = d.job_id) as job_public_id,
                          d.subject, d.endpoint_id, e.most_per_s is not null and not {IS_TEST} as is_paced""",
            values,
        ).fetchone()


def settle(db: Database, due: DueDelivery, outcome: Outcome, *, delivered: bool) -> bool:
    """End the delivery, delivered or exhausted, and log the attempt. False if the claim was lost."""
    ended = DeliveryState.DELIVERED if delivered else DeliveryState.EXHAUSTED
    return _record(db, due, outcome, "state = %(state)s, lease_until = null", {"state": int(ended)}, failed=not delivered)


def defer(db: Database, due: DueDelivery, outcome: Outcome, *, delay_s: float) -> bool:
    """Plan the next attempt and log this one. False if the claim was lost."""
    change = f"""state = {DeliveryState.PENDING}, lease_until = null, published_at = null,
                 next_attempt_at = now() + make_interval(secs => %(delay)s)"""
    return _record(db, due, outcome, change, {"delay": delay_s}, failed=True)


def disable(db: Database, due: DueDelivery, reason: str, *, failing_for_s: float = 0.0) -> bool:
    """Disable the delivery's endpoint if it has failed for so long, and exhaust its pending deliveries; return whether it did."""
    with db.begin() as connection:
        row = connection.execute(
            """update endpoint e set enabled = false, disabled_reason = %(reason)s, updated_at = now()
               from delivery d where d.id = %(id)s and e.id = d.endpoint_id and e.enabled
                 and (e.failing_since <= now() - make_interval(secs => %(since)s) or %(since)s = 0)
               returning e.id, e.tenant_id, e.public_id""",
            {"id": due.id, "reason": reason, "since": failing_for_s},
        ).fetchone()
        if row:
            connection.execute(
                f"""update delivery set state = {DeliveryState.EXHAUSTED}, lease_until = null
                    where endpoint_id = %(endpoint)s and {PENDING_DELIVERY}""",
                {"endpoint": row.id},
            )
            audit.record(connection, row.tenant_id, "endpoint.disable", ids.ENDPOINT.of(row.public_id))
    return row is not None


def outcome(db: Database, delivery_id: int) -> Outcome | None:
    """Return the outcome of the last attempt; None before the first."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Outcome))
        return cursor.execute(
            "select status, latency_ms, error from attempt where delivery_id = %(id)s order by id desc limit 1",
            {"id": delivery_id},
        ).fetchone()


def unsent(db: Database, job_id: int) -> int:
    """Count the job's events and deliveries that have had no attempt or are being sent."""
    with db.begin() as connection:
        n: int = connection.scalar(
            f"""select (select count(*) from outbox where job_id = %(job)s)
                    + (select count(*) from delivery where job_id = %(job)s
                         and ({SENDING_DELIVERY} or {PENDING_DELIVERY} and attempts = 0))""",
            {"job": job_id},
        )
        return n


def _record(db: Database, due: DueDelivery, outcome: Outcome, change: str, values: Mapping[str, object], *, failed: bool) -> bool:
    with db.begin() as connection:
        mine = connection.scalar(
            f"update delivery set {change} where id = %(id)s and token = %(token)s and {SENDING_DELIVERY} returning endpoint_id",
            {"id": due.id, "token": due.token, **values},
        )
        connection.execute(
            """insert into attempt (delivery_id, attempt_no, status, latency_ms, error)
               values (%(id)s, %(no)s, %(status)s, %(latency)s, %(error)s)""",
            {"id": due.id, "no": due.attempts, "status": outcome.status, "latency": outcome.latency_ms, "error": outcome.error},
        )
        if mine is not None:  # only if it changes: all senders share the row
            connection.execute(
                """update endpoint set failing_since = case when %(failed)s then now() end,
                          answered_at = case when %(failed)s then answered_at else coalesce(answered_at, now()) end
                   where id = %(id)s and ((failing_since is null) = %(failed)s or not %(failed)s and answered_at is null)""",
                {"id": mine, "failed": failed},
            )
    return mine is not None
