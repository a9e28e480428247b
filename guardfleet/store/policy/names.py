"""What a tenant has versions of: each name with its newest version, and all versions of one name."""

import datetime as dt
from dataclasses import dataclass, field
from typing import Literal

from psycopg.rows import class_row

from guardfleet.domain.versions import NotNewestError, label_of, parse
from guardfleet.store.postgres.database import Connection, Database

Kind = Literal["policy", "term_list", "prompt_policy"]
# Whether a version `v` is applied.
APPLIED = {
    "policy": "v.id in (select policy_id from tenant where id = %(tenant)s)",
    "term_list": "v.is_active",
    "prompt_policy": "false",
}
IN_SHADOW = {"policy": "v.id in (select shadow_policy_id from tenant where id = %(tenant)s)"}


@dataclass(frozen=True, slots=True)
class Named:
    """A name: its newest version, how many there are, and which of them are applied."""

    name: str
    newest: int
    n_versions: int
    created_at: dt.datetime  # of the newest
    active: list[int] = field(default_factory=list)
    shadow: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stored:
    """A version, and whether it is applied; a policy may be so as a shadow."""

    name: str
    version: int
    created_at: dt.datetime
    is_active: bool
    is_shadow: bool

    @property
    def label(self) -> str:
        """Its name and version."""
        return label_of(self.name, self.version)


def names(db: Database, tenant_id: int, kind: Kind, *, after: str | None = None, limit: int) -> list[Named]:
    """Return up to `limit` names, the one that changed last first; `after`: those that changed before this one did.

    Raises RejectedError for an `after` that is no name.
    """
    before = None if after is None else parse(after, "name")[0]
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Named))
        return cursor.execute(
            f"""select v.name, max(v.version) as newest, count(*) as n_versions, max(v.created_at) as created_at,
                       coalesce(array_agg(v.version) filter (where {APPLIED[kind]}), '{{}}') as active,
                       coalesce(array_agg(v.version) filter (where {IN_SHADOW.get(kind, "false")}), '{{}}') as shadow
                from {kind} v where v.tenant_id = %(tenant)s group by v.name
                having %(after)s::text is null or max(v.id) < (
                  select max(o.id) from {kind} o where o.tenant_id = %(tenant)s and o.name = %(after)s::text)
                order by max(v.id) desc limit %(limit)s""",
            {"tenant": tenant_id, "after": before, "limit": limit},
        ).fetchall()


def versions(db: Database, tenant_id: int, kind: Kind, name: str, *, limit: int) -> list[Stored]:
    """Return up to `limit` versions of a name, newest first."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Stored))
        return cursor.execute(
            f"""select v.name, v.version, v.created_at, {APPLIED[kind]} as is_active, {IN_SHADOW.get(kind, "false")} as is_shadow
                from {kind} v where v.tenant_id = %(tenant)s and v.name = %(name)s order by v.version desc limit %(limit)s""",
            {"tenant": tenant_id, "name": name, "limit": limit},
        ).fetchall()


def require_newest(connection: Connection, kind: Kind, tenant_id: int, name: str, seen: int | None) -> None:
    """Raise NotNewestError if there is a newer version than the one that somebody has seen (0: none); None: no matter."""
    if seen is None:
        return
    newest: int = connection.scalar(
        f"select coalesce(max(version), 0) from {kind} where tenant_id = %(tenant)s and name = %(name)s",
        {"tenant": tenant_id, "name": name},
    )
    if newest != seen:
        raise NotNewestError(label_of(name, newest))
