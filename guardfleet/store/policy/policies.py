"""Policies: their versions, which of them a tenant applies, and each ready to decide.

A version is never changed and never deleted, so a decision can always be explained, and going back is activating an old version.
"""

import datetime as dt
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import orjson
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from guardfleet.domain import versions
from guardfleet.errors import NotFoundError
from guardfleet.policy.document import Action, Policy
from guardfleet.policy.evaluation import DEFAULT, ERRORS, Decider
from guardfleet.store import audit
from guardfleet.store.policy.names import require_newest
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.telemetry.logs import get_logger

KNOWN = 256  # policies that a process keeps ready
RULES = "case jsonb_typeof(p.document -> 'rules') when 'array' then jsonb_array_length(p.document -> 'rules') else 0 end"
SELECT = f"""select p.id, p.tenant_id, p.name, p.version, p.shadow, p.document, p.created_at, {RULES} as n_rules,
                    p.id = t.policy_id or p.id = t.shadow_policy_id as is_active
             from policy p join tenant t on t.id = p.tenant_id"""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a policy. `label` is how it is named everywhere: name@version."""

    id: int
    tenant_id: int
    name: str
    version: int
    shadow: bool
    document: dict[str, Any]
    created_at: dt.datetime
    n_rules: int
    is_active: bool | None

    @property
    def label(self) -> str:
        """Its name and version."""
        return versions.label_of(self.name, self.version)

    @property
    def policy(self) -> Policy:
        """The document, as it was checked when it was added."""
        return Policy.model_validate(self.document)

    def decider(self) -> Decider | None:
        """Return it ready to decide; None if it has a condition that only a newer release knows."""
        try:
            return Decider(self.policy)
        except ValueError:
            return None


def add(
    db: Database,
    tenant_id: int,
    policy: Policy,
    *,
    also: Callable[[Connection, str], None] | None = None,
    on_top_of: int | None = None,
) -> tuple[Version, bool]:
    """Store the policy as the next version of its name, and return whether it is new: one equal to the newest is that one.

    `also` runs in the same transaction, with its name and version. `on_top_of`: raises NotNewestError if this version is not the
    newest (0: if there is one).
    """
    document = policy.model_dump(mode="json", exclude_unset=True)
    digest = hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).digest()
    values = {"tenant": tenant_id, "name": policy.name, "digest": digest}
    with db.begin() as connection:
        connection.execute("select from tenant where id = %(tenant)s for no key update", values)  # versions of a tenant take turns
        require_newest(connection, "policy", tenant_id, policy.name, on_top_of)
        newest: Any = connection.execute(
            "select id, version, digest from policy where tenant_id = %(tenant)s and name = %(name)s order by version desc limit 1",
            values,
        ).fetchone()
        if newest is not None and bytes(newest.digest) == digest:
            if also is not None:
                also(connection, versions.label_of(policy.name, newest.version))
            return _one(connection, "p.id = %(id)s", {"id": newest.id}), False
        values |= {"version": newest.version + 1 if newest else 1, "shadow": policy.shadow, "document": Jsonb(document)}
        policy_id: int = connection.scalar(
            """insert into policy (tenant_id, name, version, shadow, document, digest)
               values (%(tenant)s, %(name)s, %(version)s, %(shadow)s, %(document)s, %(digest)s) returning id""",
            values,
        )
        connection.cursor().executemany(
            """insert into policy_outcome (policy_id, outcome, action, rule, reason, labels)
               values (%(policy)s, %(outcome)s, %(action)s, %(rule)s, %(reason)s, %(labels)s)""",
            [{"policy": policy_id, **outcome} for outcome in outcomes_of(policy)],
        )
        made = _one(connection, "p.id = %(id)s", {"id": policy_id})
        audit.record(connection, tenant_id, "policy.create", made.label, rules=len(policy.rules), shadow=policy.shadow)
        if also is not None:
            also(connection, made.label)
    return made, True


def outcomes_of(policy: Policy) -> list[dict[str, Any]]:
    """Return what each number in a decision means."""
    rules = [
        {"outcome": at, "action": Action[r.action.upper()], "rule": r.id, "reason": r.reason, "labels": r.labels}
        for at, r in enumerate(policy.rules)
    ]
    rest: dict[str, Any] = {"rule": None, "reason": None, "labels": []}
    return [
        *rules,
        {"outcome": DEFAULT, "action": Action[policy.default.upper()], **rest},
        {"outcome": ERRORS, "action": Action[policy.errors.upper()], **rest},
    ]


def get(db: Database, tenant_id: int, label: str) -> Version:
    """Return a policy by `name@version`, or the newest of a name. Raises NotFoundError, for another tenant's too."""
    name, version = versions.parse(label, "policy")
    with db.session() as connection:
        where = "p.tenant_id = %(tenant)s and p.name = %(name)s and (%(version)s::int is null or p.version = %(version)s::int)"
        return _one(
            connection,
            f"{where} order by p.version desc limit 1",
            {"tenant": tenant_id, "name": name, "version": version},
            missing=f"there is no policy {label}.",
        )


def page(db: Database, tenant_id: int, *, after: str | None, limit: int) -> list[Version]:
    """Return up to `limit` versions, newest first, older than the named one, without documents. Raises NotFoundError for that."""
    start = None if after is None else get(db, tenant_id, after).id
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Version))
        return cursor.execute(
            f"""{SELECT.replace("p.document,", "'{}'::jsonb as document,")}
                where p.tenant_id = %(tenant)s and (%(start)s::int8 is null or p.id < %(start)s::int8)
                order by p.id desc limit %(limit)s""",
            {"tenant": tenant_id, "start": start, "limit": limit},
        ).fetchall()


def active(db: Database, tenant_id: int) -> Version | None:
    """Return the version that is applied, if there is one; a shadow is none."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Version))
        return cursor.execute(f"{SELECT} where t.id = %(tenant)s and p.id = t.policy_id", {"tenant": tenant_id}).fetchone()


def applied_labels(db: Database, tenant_id: int) -> dict[str, str | None]:
    """Return the names and versions of those that are applied, as `active` and as `shadow`."""
    with db.session() as connection:
        columns = {"active": "policy_id", "shadow": "shadow_policy_id"}
        return {name: _label(connection, tenant_id, column) for name, column in columns.items()}


def every(db: Database, tenant_id: int) -> list[Version]:
    """Return all versions of all policies of the tenant, newest first."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Version))
        return cursor.execute(f"{SELECT} where p.tenant_id = %(tenant)s order by p.id desc", {"tenant": tenant_id}).fetchall()


def activate(db: Database, version: Version) -> str | None:
    """Apply this version from now on; return the name of the one that it replaces. Going back is the same call."""
    column = "shadow_policy_id" if version.shadow else "policy_id"
    with db.begin() as connection:
        # Activations take turns, so that `before` is what it replaces. The weaker lock leaves jobs of the tenant alone.
        connection.execute("select from tenant where id = %(tenant)s for no key update", {"tenant": version.tenant_id})
        before = _label(connection, version.tenant_id, column)
        values = {"id": version.id, "tenant": version.tenant_id}
        connection.execute(f"update tenant set {column} = %(id)s where id = %(tenant)s", values)
        connection.execute("update policy set activated_at = clock_timestamp() where id = %(id)s", values)
        audit.record(connection, version.tenant_id, "policy.activate", version.label, before=before, shadow=version.shadow)
    return before


def deactivate(db: Database, version: Version) -> bool:
    """Apply no policy in this one's place; return False if it was not applied. What it decided stays."""
    column = "shadow_policy_id" if version.shadow else "policy_id"
    with db.begin() as connection:
        gone = connection.execute(
            f"update tenant set {column} = null where id = %(tenant)s and {column} = %(id)s",
            {"id": version.id, "tenant": version.tenant_id},
        ).rowcount
        if gone:
            audit.record(connection, version.tenant_id, "policy.deactivate", version.label, shadow=version.shadow)
    return bool(gone)


class Applied(NamedTuple):
    """The versions that decide of a tenant's texts, as far as there are any."""

    active: int | None = None
    shadow: int | None = None


def applied(db: Database, tenant_id: int) -> Applied:
    """Return the versions that decide of the tenant's texts now."""
    with db.session() as connection:
        found: Any = connection.execute(
            "select policy_id, shadow_policy_id from tenant where id = %(tenant)s", {"tenant": tenant_id}
        ).fetchone()
    return Applied() if found is None else Applied(*found)


_ready: WeakKeyDictionary[Database, OrderedDict[int, Decider | None]] = WeakKeyDictionary()
_lock = threading.Lock()


def decider(db: Database, policy_id: int) -> Decider | None:
    """Return a version ready to decide, made once in a process; None if this release does not understand it.

    Then the texts stay undecided until `guardfleet redecide` runs with a release that does: their verdicts do not wait for it.
    """
    with _lock:
        known = _ready.setdefault(db, OrderedDict())
        if policy_id in known:
            known.move_to_end(policy_id)
            return known[policy_id]
    with db.session() as connection:
        found = _one(connection, "p.id = %(id)s", {"id": policy_id})
    made = found.decider()
    if made is None:
        get_logger().error("policy_not_understood", policy=found.label)
    with _lock:
        known[policy_id] = made
        while len(known) > KNOWN:
            known.popitem(last=False)
    return made


def not_understood(db: Database) -> str | None:
    """Say that texts stay undecided, because of a policy that this process met and that is still active; None if there is none."""
    with _lock:
        met = [policy_id for policy_id, made in _ready.get(db, {}).items() if made is None]
    if not met:
        return None
    with db.session() as connection:
        n: int = connection.scalar("select count(*) from tenant where policy_id = any(%(met)s::int8[])", {"met": met})
    return (
        f"the active policy of {n} {'tenant' if n == 1 else 'tenants'} needs a newer release: texts stay undecided" if n else None
    )


def _one(connection: Connection, where: str, values: dict[str, Any], *, missing: str = "there is no such policy.") -> Version:
    found = connection.cursor(row_factory=class_row(Version)).execute(f"{SELECT} where {where}", values).fetchone()
    if found is None:
        raise NotFoundError(missing)
    return found


def _label(connection: Connection, tenant_id: int, column: str) -> str | None:
    found: str | None = connection.scalar(
        f"select p.name || '@' || p.version from policy p join tenant t on t.{column} = p.id where t.id = %(tenant)s",
        {"tenant": tenant_id},
    )
    return found
