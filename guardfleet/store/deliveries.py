"""Webhook deliveries: relayed from the outbox, claimed with a token, sent outside any transaction, settled or deferred."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from guardfleet.store.database import Database


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """One attempt to make: everything the sender needs, `secret` still sealed."""

    id: int
    token: int
    attempts: int  # this one included
    event_id: str
    kind: str
    occurred_at: dt.datetime
    url: str
    secret: bytes
    job_id: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt came to. `status` is None when there was no answer; `error` names the failure, never the body."""

    status: int | None
    latency_ms: int
    error: str | None = None


def relay(db: Database, *, limit: int = 100) -> int:
    """Turn outbox events into deliveries, one for each endpoint that listens. Claims by row, never by `id > last`."""
    with db.session() as connection:
        n: int = connection.execute(
            text("""with x as materialized (select id from outbox order by id limit :limit for update skip locked),
                    o as (delete from outbox b using x where b.id = x.id returning b.*),
                    d as (insert into delivery (event_id, endpoint_id, job_id, kind, occurred_at)
                      select o.event_id, e.id, o.job_id, o.kind, o.created_at from o join endpoint e
                        on e.tenant_id = o.tenant_id and e.enabled and o.kind = any (e.kinds)
                        and (e.job_id is null or e.job_id = o.job_id)
                      on conflict do nothing)
                    select count(*) from o"""),
            {"limit": limit},
        ).scalar_one()
        return n


def due(db: Database, *, limit: int, again_after_s: float) -> list[int]:
    """Deliveries to ring for: due, or claimed by a sender that died; not rung within `again_after_s`."""
    with db.session() as connection:
        rows = connection.execute(
            text("""select id from delivery
                    where state in (0, 1) and next_attempt_at <= now() and (lease_until is null or lease_until < now())
                      and (published_at is null or published_at < now() - make_interval(secs => :again))
                    order by next_attempt_at limit :limit"""),
            {"limit": limit, "again": again_after_s},
        )
        return [row.id for row in rows]


def mark_rung(db: Database, ids: Sequence[int]) -> None:
    """Record that the broker was told. One that is being claimed meanwhile is passed over: the dispatcher waits for no sender."""
    if ids:
        with db.begin() as connection:
            connection.execute(
                text("""with x as materialized (select id from delivery where id = any(:ids) for update skip locked)
                        update delivery d set published_at = now() from x where d.id = x.id"""),
                {"ids": list(ids)},
            )


def claim(db: Database, delivery_id: int, *, lease_s: float) -> DueDelivery | None:
    """Take the delivery for one attempt; None when it is settled, not due, or somebody holds it."""
    with db.begin() as connection:
        row = connection.execute(
            text("""update delivery d set state = 1, attempts = d.attempts + 1, token = d.token + 1,
                           lease_until = now() + make_interval(secs => :lease)
                    from endpoint e
                    where d.id = :id and e.id = d.endpoint_id and d.state in (0, 1) and d.next_attempt_at <= now()
                      and (d.lease_until is null or d.lease_until < now())
                    returning d.id, d.token, d.attempts, d.event_id, d.kind, d.occurred_at, e.url, e.secret, d.job_id"""),
            {"id": delivery_id, "lease": lease_s},
        ).one_or_none()
    return DueDelivery(*row) if row else None


def settle(db: Database, due: DueDelivery, outcome: Outcome, *, delivered: bool) -> bool:
    """End the delivery, delivered or exhausted, and log the attempt. False if the claim was lost."""
    return _record(db, due, outcome, "state = :state, lease_until = null", {"state": 2 if delivered else 3})


def defer(db: Database, due: DueDelivery, outcome: Outcome, *, delay_s: float) -> bool:
    """Plan the next attempt and log this one. False if the claim was lost."""
    change = "state = 0, lease_until = null, published_at = null, next_attempt_at = now() + make_interval(secs => :delay)"
    return _record(db, due, outcome, change, {"delay": delay_s})


def disable_endpoint(db: Database, due: DueDelivery) -> None:
    """The receiver said 410 Gone: no more events for it."""
    with db.begin() as connection:
        connection.execute(
            text("update endpoint e set enabled = false from delivery d where d.id = :id and e.id = d.endpoint_id"), {"id": due.id}
        )


def unsent(db: Database, job_id: int) -> int:
    """Events and deliveries of the job that have not had a first attempt."""
    with db.begin() as connection:
        n: int = connection.execute(
            text("""select (select count(*) from outbox where job_id = :job)
                         + (select count(*) from delivery where job_id = :job
                              and (state = 1 or state = 0 and attempts = 0))"""),
            {"job": job_id},
        ).scalar_one()
        return n


def _record(db: Database, due: DueDelivery, outcome: Outcome, change: str, values: dict[str, object]) -> bool:
    with db.begin() as connection:
        mine = connection.execute(
            text(f"update delivery set {change} where id = :id and token = :token and state = 1"),
            {"id": due.id, "token": due.token, **values},
        ).rowcount
        connection.execute(
            text("""insert into attempt (delivery_id, attempt_no, status, latency_ms, error)
                    values (:id, :no, :status, :latency, :error)"""),
            {"id": due.id, "no": due.attempts, "status": outcome.status, "latency": outcome.latency_ms, "error": outcome.error},
        )
    return bool(mine)
