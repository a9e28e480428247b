"""People who are signed in to the console: sessions, and what each person prefers.

Invariant: a session opens nothing without its token, which is not stored; and nothing once it is over, or its key is.
"""

import datetime as dt
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from guardfleet.errors import NotFoundError
from guardfleet.store import audit
from guardfleet.store.keys import Caller
from guardfleet.store.postgres.database import Database

MOST_NAME = 200  # characters of a person's name
# Of a session `s`, and the key `k` that began it, if one did.
IS_OPEN = """s.expires_at > now()
             and (s.key_id is null or (k.revoked_at is null and (k.expires_at is null or k.expires_at > now())))"""


@dataclass(frozen=True, slots=True)
class Session:
    """A person who is signed in. `who` is the same at each sign-in, and no two people of a tenant share it."""

    id: int
    caller: Caller
    who: str
    name: str
    tenant: str
    by_key: bool
    expires_at: dt.datetime
    preferences: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Person:
    """Whom an identity provider vouches for, and what the person may do."""

    who: str
    name: str
    tenant_id: int
    scopes: Sequence[str]


def begin_by_key(db: Database, caller: Caller, *, hours: float) -> str:
    """Sign in the owner of a key, and return the session's token, which is never shown again."""
    with db.begin() as connection:
        name = connection.scalar("select name from api_key where id = %(id)s", {"id": caller.key_id})
        return _begin(connection, caller.tenant_id, caller.label, name, hours=hours, key_id=caller.key_id, scopes=())


def begin(db: Database, person: Person, *, hours: float) -> str:
    """Sign in somebody an identity provider vouches for, and return the session's token."""
    with db.begin() as connection:
        return _begin(connection, person.tenant_id, person.who, person.name, hours=hours, key_id=None, scopes=person.scopes)


def _begin(connection: Any, tenant_id: int, who: str, name: str, *, hours: float, key_id: int | None, scopes: Sequence[str]) -> str:
    token = secrets.token_urlsafe(32)
    connection.execute(
        """insert into console_session (digest, tenant_id, key_id, who, name, scopes, expires_at)
           values (%(digest)s, %(tenant)s, %(key)s, %(who)s, %(name)s, %(scopes)s, now() + make_interval(secs => %(seconds)s))""",
        {
            "digest": _digest(token), "tenant": tenant_id, "key": key_id, "who": who[:MOST_NAME], "name": name[:MOST_NAME],
            "scopes": list(scopes), "seconds": 3600 * hours,
        },
    )  # fmt: skip
    audit.record(connection, tenant_id, "session.begin", who)
    return token


def find(db: Database, token: str) -> Session | None:
    """Return whose session this is; None if it is over, or the key that began it is."""
    with db.session() as connection:
        row: Any = connection.execute(
            f"""select s.id, s.tenant_id, t.name as tenant, s.key_id, s.who, s.name, s.expires_at,
                      coalesce(k.scopes, s.scopes) as scopes, coalesce(p.preferences, '{{}}') as preferences
               from console_session s join tenant t on t.id = s.tenant_id
               left join api_key k on k.id = s.key_id
               left join console_preference p on p.tenant_id = s.tenant_id and p.who = s.who
               where s.digest = %(digest)s and {IS_OPEN}""",
            {"digest": _digest(token)},
        ).fetchone()
    if row is None:
        return None
    # Limits are counted by key: a session without one counts by itself, under a number that no key has.
    caller = Caller(row.key_id or -row.id, row.tenant_id, tuple(row.scopes), row.who)
    by_key = row.key_id is not None
    return Session(row.id, caller, row.who, row.name, row.tenant, by_key, row.expires_at, row.preferences)


def end(db: Database, token: str) -> None:
    """End a session; safe to call twice."""
    with db.begin() as connection:
        row: Any = connection.execute(
            "delete from console_session where digest = %(digest)s returning tenant_id, who", {"digest": _digest(token)}
        ).fetchone()
        if row is not None:
            audit.record(connection, row.tenant_id, "session.end", row.who)


@dataclass(frozen=True, slots=True)
class Open:
    """A session that is open, as somebody who may end it sees it."""

    id: int
    who: str
    name: str
    by_key: bool
    created_at: dt.datetime
    expires_at: dt.datetime


def every(db: Database, tenant_id: int, *, limit: int = 200) -> list[Open]:
    """Return the tenant's open sessions, newest first."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Open))
        return cursor.execute(
            f"""select s.id, s.who, s.name, s.key_id is not null as by_key, s.created_at, s.expires_at
                from console_session s left join api_key k on k.id = s.key_id
                where s.tenant_id = %(tenant)s and {IS_OPEN} order by s.id desc limit %(limit)s""",
            {"tenant": tenant_id, "limit": limit},
        ).fetchall()


def end_one(db: Database, session_id: int, *, tenant_id: int) -> None:
    """End a session of the tenant; API processes that know it follow within seconds. Raises NotFoundError."""
    with db.begin() as connection:
        row: Any = connection.execute(
            "delete from console_session where id = %(id)s and tenant_id = %(tenant)s returning who",
            {"id": session_id, "tenant": tenant_id},
        ).fetchone()
        if row is None:
            raise NotFoundError("there is no such session: it has ended.")
        audit.record(connection, tenant_id, "session.end", row.who)


def prefer(db: Database, session: Session, preferences: Mapping[str, Any]) -> None:
    """Store what the person prefers, beside what else is stored."""
    with db.begin() as connection:
        connection.execute(
            """insert into console_preference (tenant_id, who, preferences) values (%(tenant)s, %(who)s, %(given)s)
               on conflict (tenant_id, who) do update set preferences = console_preference.preferences || excluded.preferences""",
            {"tenant": session.caller.tenant_id, "who": session.who, "given": json.dumps(dict(preferences))},
        )


def expire(db: Database) -> int:
    """Delete sessions that are over; return how many."""
    with db.begin() as connection:
        return connection.execute("delete from console_session where expires_at < now()").rowcount


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


__all__ = ["Open", "Person", "Session", "begin", "begin_by_key", "end", "end_one", "every", "expire", "find", "prefer"]
