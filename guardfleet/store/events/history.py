"""How deliveries to a tenant's endpoints went: counts of each endpoint, attempts of each delivery."""

import datetime as dt
import uuid
from dataclasses import dataclass

from psycopg.rows import class_row

from guardfleet.domain.states import DeliveryState
from guardfleet.store.postgres.database import Database
from guardfleet.store.words import EXHAUSTED_DELIVERY, OPEN_DELIVERY


@dataclass(frozen=True, slots=True)
class Tally:
    """How the deliveries of an endpoint went so far."""

    pending: int
    delivered: int
    exhausted: int


def tallies(db: Database, *, tenant_id: int) -> dict[uuid.UUID, Tally]:
    """Count the deliveries of each of the tenant's endpoints, as far as they are kept."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select e.public_id, count(d.id) filter (where {OPEN_DELIVERY:d}) as pending,
                       count(d.id) filter (where d.state = {DeliveryState.DELIVERED}) as delivered,
                       count(d.id) filter (where {EXHAUSTED_DELIVERY:d}) as exhausted
                from endpoint e left join delivery d on d.endpoint_id = e.id
                where e.tenant_id = %(tenant)s and e.job_id is null group by e.id""",
            {"tenant": tenant_id},
        )
        return {row.public_id: Tally(row.pending, row.delivered, row.exhausted) for row in rows}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a delivery: `status` is None if there was no answer, `error` names the failure, never a body."""

    attempt_no: int
    at: dt.datetime
    status: int | None
    latency_ms: int
    error: str | None


def attempts(db: Database, public_id: uuid.UUID, delivery_id: int, *, tenant_id: int, limit: int = 100) -> list[Attempt]:
    """Return the newest attempts of a delivery of the endpoint, newest first; none of another tenant's."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Attempt))
        return cursor.execute(
            """select a.attempt_no, a.at, a.status, a.latency_ms, a.error
               from attempt a join delivery d on d.id = a.delivery_id join endpoint e on e.id = d.endpoint_id
               where d.id = %(delivery)s and e.public_id = %(id)s and e.tenant_id = %(tenant)s and e.job_id is null
               order by a.id desc limit %(limit)s""",
            {"delivery": delivery_id, "id": public_id, "tenant": tenant_id, "limit": limit},
        ).fetchall()
