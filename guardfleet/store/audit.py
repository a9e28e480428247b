"""The audit trail: who did what to what, a row for each change, written in the transaction that makes it.

Invariant: a row holds names, numbers and public ids, never what a caller wrote. Who acts follows from the connection's application
or, for a request, from the key that `act_as` named.
"""

import datetime as dt
import getpass
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from psycopg.rows import class_row

from guardfleet.domain import actions, ids
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.errors import NotFoundError
from guardfleet.store.postgres.database import Connection, Database

Fact = bool | int | float | str | Sequence[str] | None
NAME = re.compile(r"[\w.:@/+-]{0,100}", re.ASCII)  # of a format, a scope, a field, a public id: no text has this form for long
MOST_NAME = 200  # characters of an actor, and of a subject
PAGE = 1_000
PIECE = 5_000  # rows that one transaction forgets
OF_APPLICATION: Mapping[str, str] = MappingProxyType(
    {
        "guardfleet-api": actions.API,
        "guardfleet-dispatcher": actions.DISPATCHER,
        "guardfleet-worker": actions.WORKER,
        "guardfleet-webhooks": actions.WORKER,
        "guardfleet-client": actions.PROGRAM,
    }
)  # all others are commands
INSERT = """insert into audit_event (tenant_id, actor_kind, actor, action, subject, request_id, detail)
            select tenant_id, cast(%(audit_kind)s as text), cast(%(audit_actor)s as text), cast(%(audit_action)s as text), subject,
                   cast(%(audit_request)s as text), cast(%(audit_detail)s as jsonb)"""
SELECT = """select a.id, a.public_id, a.at, a.tenant_id, coalesce(t.name, a.tenant_id::text) as tenant, a.actor_kind, a.actor,
                   a.action, a.subject, a.request_id, a.detail
            from audit_event a left join tenant t on t.id = a.tenant_id"""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a word of `actions.ACTORS`, a name, and the id of the request that it acts for."""

    kind: str
    name: str
    request_id: str | None = None


_acting: ContextVar[Actor | None] = ContextVar("acting", default=None)


def act_as(actor: Actor) -> None:
    """Name the actor of all changes that are made in this context: a request, and the threads that it waits for."""
    _acting.set(actor)


def record(connection: Connection, tenant_id: int, action: str, subject: str, **detail: Fact) -> None:
    """Record an action in the transaction that does it.

    An unknown action, or a detail that is more than a name, is a defect: KeyError, ValueError.
    """
    values = {"tenant": tenant_id, "subject": subject[:MOST_NAME], **recorded(connection, action, **detail)}
    connection.execute(f"{INSERT} from (select cast(%(tenant)s as int8) as tenant_id, %(subject)s as subject) x", values)


def note(db: Database, tenant_id: int, action: str, subject: str, **detail: Fact) -> None:
    """Record an action that changes nothing in the database, such as an export, before it begins."""
    with db.begin() as connection:
        record(connection, tenant_id, action, subject, **detail)


def each(changed: str) -> str:
    """Return the statement that records one action for each row of `changed`, a FROM item with `tenant_id` and `subject`.

    For statements that change rows in bulk; `recorded` has its parameters.
    """
    return f"{INSERT} from {changed}"


def recorded(connection: Connection, action: str, **detail: Fact) -> dict[str, Any]:
    """Return the parameters of `each`."""
    actor = actor_of(connection)
    known = {name: _fact(fact) for name, fact in detail.items() if fact is not None}
    return {
        "audit_kind": actor.kind,
        "audit_actor": actor.name[:MOST_NAME],
        "audit_action": action if action in actions.ACTIONS else _raise_unknown(action),
        "audit_request": actor.request_id,
        "audit_detail": json.dumps(known) if known else None,
    }


def actor_of(connection: Connection) -> Actor:
    """Return who acts."""
    return _acting.get() or _of_process(connection.application)


def _raise_unknown(action: str) -> str:
    raise KeyError(f"{action} is not in guardfleet.domain.actions")


def _fact(fact: Fact) -> Fact:
    if isinstance(fact, str):
        if not NAME.fullmatch(fact):
            raise ValueError("a detail of an audit row may be a number or a name, not a text")
        return fact
    return [str(_fact(one)) for one in fact] if isinstance(fact, Sequence) else fact


@cache
def _of_process(application: str) -> Actor:
    kind, host = OF_APPLICATION.get(application, actions.COMMAND), socket.gethostname()
    return Actor(kind, f"{_user()}@{host}" if kind in (actions.COMMAND, actions.PROGRAM) else host)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name has this id, as in many containers
        return str(os.getuid())


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the trail."""

    id: int
    public_id: uuid.UUID
    at: dt.datetime
    tenant_id: int
    tenant: str
    actor_kind: str
    actor: str
    action: str
    subject: str
    request_id: str | None
    detail: dict[str, Any] | None

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.AUDIT.of(self.public_id)

    def as_dict(self) -> dict[str, Any]:
        """Return it as every face shows it."""
        return {
            "id": self.label,
            "at": self.at.isoformat(),
            "actor": {"type": self.actor_kind, "id": self.actor},
            "action": self.action,
            "subject": {"type": self.action.partition(".")[0], "id": self.subject},
            "request_id": self.request_id,
            "detail": self.detail or {},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows; None: all. `actor` is a name or a kind of actors."""

    tenant_id: int | None = None
    tenant: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    actor: str | None = None
    actions: Sequence[str] | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the trail, between two pages. Rows of one transaction have the same time."""

    at: dt.datetime
    id: int


def position(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> Position:
    """Return the place of one row. Raises NotFoundError, for another tenant's row too."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Position))
        found = cursor.execute(
            "select at, id from audit_event where public_id = %(id)s and tenant_id = %(tenant)s",
            {"id": public_id, "tenant": tenant_id},
        ).fetchone()
    if found is None:
        raise NotFoundError(ids.AUDIT.unknown)
    return found


def page(db: Database, wanted: Wanted, *, after: Position | None, limit: int, newest_first: bool) -> list[Event]:
    """Return up to `limit` rows after a place, by time."""
    direction, side = ("desc", "<") if newest_first else ("asc", ">")
    values = {name: getattr(wanted, name) for name in Wanted.__slots__}
    values |= {"actions": None if wanted.actions is None else list(wanted.actions), "limit": limit}
    values |= {"after_at": after.at if after else None, "after_id": after.id if after else None}
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Event))
        return cursor.execute(
            f"""{SELECT} where {" and ".join(_conditions(wanted))}
                {f"and (a.at, a.id) {side} (%(after_at)s, %(after_id)s)" if after else ""}
                order by a.at {direction}, a.id {direction} limit %(limit)s""",
            values,
        ).fetchall()


def _conditions(wanted: Wanted) -> list[str]:
    """Return the conditions that are asked for: one that is not would hide the index from the planner."""
    known = {
        "tenant_id": "a.tenant_id = %(tenant_id)s",
        "tenant": "a.tenant_id = (select id from tenant where name = %(tenant)s)",
        "since": "a.at >= %(since)s",
        "until": "a.at < %(until)s",
        "actor": "%(actor)s in (a.actor, a.actor_kind)",
        "actions": "a.action = any(%(actions)s)",
        "subject": "a.subject = %(subject)s",
    }
    return ["true", *(condition for name, condition in known.items() if getattr(wanted, name) is not None)]


def events(db: Database, wanted: Wanted, *, newest_first: bool = False) -> Iterator[Event]:
    """Yield all rows, a page at a time; needs constant memory."""
    after: Position | None = None
    while found := page(db, wanted, after=after, limit=PAGE, newest_first=newest_first):
        yield from found
        after = Position(found[-1].at, found[-1].id)


def expire(db: Database, *, older_than_days: float) -> int:
    """Delete up to PIECE rows whose retention is over, record how many, and return that.

    Only whole days go, so that what records it adds no more than a few rows a day.
    """
    with db.begin() as connection:
        n = connection.execute(
            """delete from audit_event where id in (
                 select id from audit_event
                 where at < date_trunc('day', now() at time zone 'utc') at time zone 'utc' - make_interval(secs => %(age)s)
                 order by at, id limit %(piece)s)""",
            {"age": older_than_days * 86_400, "piece": PIECE},
        ).rowcount
        if n:
            record(connection, DEFAULT_TENANT, "audit.expire", "audit", rows=n)
    return n
