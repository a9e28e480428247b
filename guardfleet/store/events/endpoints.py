"""Webhook endpoints: where a tenant's events go, with which secret, and how deliveries to them went."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from guardfleet.domain import ids
from guardfleet.domain.events import END_KINDS, TEST
from guardfleet.domain.states import DeliveryState
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.security.signing import new_secret
from guardfleet.store import audit, installation
from guardfleet.store.events.outbox import TEST_ID
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import ENDED_DELIVERY, EXHAUSTED_DELIVERY
from guardfleet.store.words import public_id as label_of

MOST = 50  # endpoints of one tenant
HINT_CHARACTERS = 4
# A `real` in binary has the digits of a float8: 0.9 would be 0.8999999761581421.
COLUMNS = """public_id, name, url, kinds, enabled, disabled_reason, failing_since, most_per_s::text::float8 as most_per_s,
             created_at, updated_at, secret"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint, its secret still encrypted."""

    public_id: uuid.UUID
    name: str
    url: str
    kinds: list[str]
    enabled: bool
    disabled_reason: str | None
    failing_since: dt.datetime | None
    most_per_s: float | None
    created_at: dt.datetime
    updated_at: dt.datetime | None
    secret: bytes

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.ENDPOINT.of(self.public_id)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to an endpoint, with its last attempt."""

    id: int
    event_id: str
    kind: str
    state: int
    attempts: int
    occurred_at: dt.datetime
    next_attempt_at: dt.datetime
    status: int | None
    latency_ms: int | None
    error: str | None
    attempted_at: dt.datetime | None


def create(
    db: Database, keyring: Keyring, *, tenant_id: int, name: str, url: str, kinds: Sequence[str], most_per_s: float | None = None
) -> tuple[Endpoint, str]:
    """Create an endpoint; return it with its secret, which is not shown again. RejectedError if the tenant has too many."""
    secret = new_secret()
    with db.begin() as connection:
        installation.follow(connection, keyring)
        cursor = connection.cursor(row_factory=class_row(Endpoint))
        endpoint = cursor.execute(
            f"""insert into endpoint (tenant_id, name, url, secret, kinds, most_per_s, key_id)
                select %(tenant)s, %(name)s, %(url)s, %(secret)s, %(kinds)s, cast(%(most_per_s)s as float8), %(key_id)s
                where (select count(*) from endpoint where tenant_id = %(tenant)s and job_id is null) < %(most)s
                returning {COLUMNS}""",
            {
                "tenant": tenant_id,
                "name": name,
                "url": url,
                "secret": keyring.encrypt_secret(secret),
                "kinds": list(kinds),
                "most_per_s": most_per_s,
                "most": MOST,
                "key_id": keyring.key_id,
            },
        ).fetchone()
        if endpoint is None:
            raise RejectedError(f"the tenant has {MOST} webhook endpoints already, the most it may have: delete one.")
        audit.record(connection, tenant_id, "endpoint.create", endpoint.label, kinds=list(kinds))
    return endpoint, secret


def get(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> Endpoint:
    """Return the endpoint. Raises NotFoundError, also for another tenant's and for the callback of a job."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Endpoint))
        endpoint = cursor.execute(
            f"select {COLUMNS} from endpoint where public_id = %(id)s and tenant_id = %(tenant)s and job_id is null",
            {"id": public_id, "tenant": tenant_id},
        ).fetchone()
    if endpoint is None:
        raise _unknown()
    return endpoint


def page(db: Database, *, tenant_id: int, after: uuid.UUID | None, limit: int) -> list[Endpoint]:
    """Return up to `limit` endpoints older than the named one, newest first."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Endpoint))
        return cursor.execute(
            f"""select {COLUMNS} from endpoint where tenant_id = %(tenant)s and job_id is null
                  and (cast(%(after)s as uuid) is null
                       or id < (select id from endpoint where public_id = %(after)s and tenant_id = %(tenant)s))
                order by id desc limit %(limit)s""",
            {"tenant": tenant_id, "after": after, "limit": limit},
        ).fetchall()


def update(db: Database, public_id: uuid.UUID, *, tenant_id: int, changes: dict[str, Any]) -> Endpoint:
    """Change `name`, `url`, `kinds`, `most_per_s` (None: no limit) or `enabled`; enabling forgets earlier failures."""
    values: dict[str, Any] = {"name": None, "url": None, "kinds": None, "enabled": None, "most_per_s": None} | changes
    values["is_paced"] = "most_per_s" in changes
    with db.begin() as connection:
        cursor = connection.cursor(row_factory=class_row(Endpoint))
        endpoint = cursor.execute(
            f"""update endpoint set name = coalesce(%(name)s, name), url = coalesce(%(url)s, url),
                       kinds = coalesce(cast(%(kinds)s as text[]), kinds), enabled = coalesce(%(enabled)s, enabled),
                       answered_at = case when coalesce(%(url)s, url) = url then answered_at end,
                       most_per_s = case when %(is_paced)s then cast(%(most_per_s)s as float8) else most_per_s end,
                       paced_until = case when %(is_paced)s then null else paced_until end,
                       failing_since = case when %(enabled)s then null else failing_since end,
                       disabled_reason = case when %(enabled)s then null else disabled_reason end, updated_at = now()
                where public_id = %(id)s and tenant_id = %(tenant)s and job_id is null returning {COLUMNS}""",
            {"id": public_id, "tenant": tenant_id, **values},
        ).fetchone()
        if endpoint is None:
            raise _unknown()
        audit.record(connection, tenant_id, "endpoint.update", endpoint.label, changed=sorted(changes))
    return endpoint


def delete(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> None:
    """Delete the endpoint, its deliveries and their attempts. Raises NotFoundError."""
    with db.begin() as connection:
        row = connection.execute(
            "delete from endpoint where public_id = %(id)s and tenant_id = %(tenant)s and job_id is null returning id",
            {"id": public_id, "tenant": tenant_id},
        ).fetchone()
        if row is None:
            raise _unknown()
        connection.execute(
            "delete from attempt where delivery_id in (select id from delivery where endpoint_id = %(id)s)", {"id": row.id}
        )
        connection.execute("delete from delivery where endpoint_id = %(id)s", {"id": row.id})
        audit.record(connection, tenant_id, "endpoint.delete", ids.ENDPOINT.of(public_id))


def rotate(db: Database, keyring: Keyring, public_id: uuid.UUID, *, tenant_id: int, overlap_s: float) -> tuple[Endpoint, str]:
    """Give the endpoint a new secret and return both; the old secret signs too for `overlap_s`. Raises NotFoundError."""
    secret = new_secret()
    with db.begin() as connection:
        installation.follow(connection, keyring)
        rewrap_endpoint(connection, keyring, public_id)  # both secrets of a row are under one key
        cursor = connection.cursor(row_factory=class_row(Endpoint))
        endpoint = cursor.execute(
            f"""update endpoint set old_secret = secret, old_secret_until = now() + make_interval(secs => %(overlap)s),
                       secret = %(secret)s, updated_at = now()
                where public_id = %(id)s and tenant_id = %(tenant)s and job_id is null returning {COLUMNS}""",
            {"id": public_id, "tenant": tenant_id, "secret": keyring.encrypt_secret(secret), "overlap": overlap_s},
        ).fetchone()
        if endpoint is None:
            raise _unknown()
        audit.record(connection, tenant_id, "endpoint.rotate", endpoint.label, overlap_s=overlap_s)
    return endpoint, secret


def rewrap_endpoint(connection: Connection, keyring: Keyring, public_id: uuid.UUID) -> None:
    """Encrypt an endpoint's secrets under the current key, unless they are already."""
    row = connection.execute(
        """select id, secret, old_secret from endpoint
           where public_id = %(id)s and key_id is distinct from %(key_id)s for update""",
        {"id": public_id, "key_id": keyring.key_id},
    ).fetchone()
    if row is None:
        return
    secret, old = (None if sealed is None else keyring.encrypt_secret(keyring.decrypt_secret(bytes(sealed))) for sealed in row[1:])
    connection.execute(
        "update endpoint set secret = %(secret)s, old_secret = %(old)s, key_id = %(key_id)s where id = %(id)s",
        {"id": row.id, "secret": secret, "old": old, "key_id": keyring.key_id},
    )


def send_test(db: Database, public_id: uuid.UUID, *, tenant_id: int, kind: str) -> int:
    """Create a delivery of a made-up event to the endpoint and return its id. Raises NotFoundError."""
    with db.session() as connection:
        found: int | None = connection.scalar(
            f"""with e as (
                 select id, tenant_id, public_id from endpoint
                 where public_id = %(id)s and tenant_id = %(tenant)s and job_id is null),
               a as ({audit.each(f"(select tenant_id, {label_of(ids.ENDPOINT)} as subject from e) x")})
               insert into delivery (event_id, endpoint_id, job_id, kind, occurred_at, subject)
               select {TEST_ID}, id, 0, %(kind)s, now(), jsonb_build_object('{TEST}', true) from e returning id""",
            {"id": public_id, "tenant": tenant_id, "kind": kind, **audit.recorded(connection, "endpoint.test", kind=kind)},
        )
    if found is None:
        raise _unknown()
    return found


def deliveries(
    db: Database,
    public_id: uuid.UUID,
    *,
    tenant_id: int,
    before: int | None,
    limit: int,
    state: DeliveryState | None = None,
) -> list[Delivery]:
    """Return up to `limit` deliveries of the endpoint older than the named one, newest first, each with its last attempt.

    `state`: only those in it.
    """
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Delivery))
        return cursor.execute(
            """select d.id, d.event_id, d.kind, d.state, d.attempts, d.occurred_at, d.next_attempt_at,
                      a.status, a.latency_ms, a.error, a.at as attempted_at
               from delivery d join endpoint e on e.id = d.endpoint_id
               left join lateral (select * from attempt where delivery_id = d.id order by id desc limit 1) a on true
               where e.public_id = %(id)s and e.tenant_id = %(tenant)s and e.job_id is null
                 and (cast(%(before)s as bigint) is null or d.id < %(before)s)
                 and (cast(%(state)s as smallint) is null or d.state = %(state)s)
               order by d.id desc limit %(limit)s""",
            {
                "id": public_id,
                "tenant": tenant_id,
                "before": before,
                "limit": limit,
                "state": None if state is None else int(state),
            },
        ).fetchall()


def deliveries_of(db: Database, job: uuid.UUID, *, tenant_id: int) -> list[tuple[str, Delivery]]:
    """Return the deliveries that tell of the job's end, by the name of their endpoint, callbacks too."""
    events = [f"{ids.EVENT.of(job)}_{kind.partition('.')[2]}" for kind in END_KINDS]
    with db.session() as connection:
        rows = connection.execute(
            """select e.name, d.id, d.event_id, d.kind, d.state, d.attempts, d.occurred_at, d.next_attempt_at,
                      a.status, a.latency_ms, a.error, a.at as attempted_at
               from delivery d join endpoint e on e.id = d.endpoint_id
               left join lateral (select * from attempt where delivery_id = d.id order by id desc limit 1) a on true
               where d.event_id = any(%(events)s) and e.tenant_id = %(tenant)s order by d.id""",
            {"events": events, "tenant": tenant_id},
        ).fetchall()
    return [(row[0], Delivery(*row[1:])) for row in rows]


def resend(
    db: Database, public_id: uuid.UUID, *, tenant_id: int, delivery_id: int | None = None, since: dt.datetime | None = None
) -> int:
    """Send again one ended delivery, or all exhausted ones of events since `since`; return how many. Raises NotFoundError."""
    with db.begin() as connection:
        n = connection.execute(
            f"""update delivery d set state = {DeliveryState.PENDING}, attempts = 0, next_attempt_at = now(),
                      published_at = null, lease_until = null
               from endpoint e
               where e.id = d.endpoint_id and e.public_id = %(id)s and e.tenant_id = %(tenant)s and e.job_id is null and e.enabled
                 and {ENDED_DELIVERY:d}
                 and (d.id = %(delivery)s or {EXHAUSTED_DELIVERY:d} and d.occurred_at >= %(since)s)""",
            {"id": public_id, "tenant": tenant_id, "delivery": delivery_id, "since": since},
        ).rowcount
        if n:
            audit.record(connection, tenant_id, "endpoint.resend", ids.ENDPOINT.of(public_id), n_deliveries=n)
    if not n and delivery_id is not None:
        raise unknown_delivery()
    return n


def unknown_delivery() -> NotFoundError:
    """Return the error for a delivery that the endpoint does not have, or that cannot be sent again."""
    return NotFoundError("no delivery with this id has ended at this endpoint, or the endpoint is disabled.")


def _unknown() -> NotFoundError:
    return NotFoundError(ids.ENDPOINT.unknown)
