"""API keys: shown once, stored and looked up as a peppered HMAC; with scopes, an expiry and a successor."""

import datetime as dt
import secrets
import uuid
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from psycopg.rows import class_row

from guardfleet.domain import ids
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.scopes import ALL, APART, AUDIT, ERASE, HOLD, MANAGE_KEYS, SCOPES
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, installation
from guardfleet.store.postgres.database import Connection, Database

PREFIX = "gf_"  # a fixed prefix helps secret scanners
HINT_CHARACTERS = 4
USED_S = 60.0  # precision of last_used_at
SELECT = """select k.public_id, t.name as tenant, k.name, k.hint, k.scopes, k.created_at, k.expires_at, k.last_used_at,
                   k.revoked_at, coalesce(k.expires_at <= now(), false) as has_expired
            from api_key k join tenant t on t.id = k.tenant_id"""
OF_TENANT = "(cast(%(tenant)s as bigint) is null or k.tenant_id = %(tenant)s)"


@dataclass(frozen=True, slots=True)
class Caller:
    """The key and tenant behind a request, and what it may do."""

    key_id: int
    tenant_id: int
    scopes: tuple[str, ...] = (ALL,)
    label: str = ""  # the key's public id

    def may(self, scope: str) -> bool:
        """Return whether the key has the scope. A write scope includes reading; `all` includes what is not in APART."""
        if scope in APART:
            return scope in self.scopes
        return not {ALL, scope, scope.replace(":read", ":write")}.isdisjoint(self.scopes)

    def require_all(self, scopes: Iterable[str]) -> None:
        """Raise RejectedError unless the key has all of these: nobody makes a key that may more than its maker."""
        missing = sorted(scope for scope in set(scopes) if not self.may(scope))
        if missing:
            raise RejectedError(f"you lack {', '.join(missing)} yourself, so you cannot give it to a key.", param="scopes")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner may see it."""

    public_id: uuid.UUID
    tenant: str
    name: str
    hint: str
    scopes: list[str]
    created_at: dt.datetime
    expires_at: dt.datetime | None
    last_used_at: dt.datetime | None
    revoked_at: dt.datetime | None
    has_expired: bool  # by the server's clock

    @property
    def label(self) -> str:
        """Its public id, which is no secret."""
        return ids.KEY.of(self.public_id)


def create(
    db: Database,
    keyring: Keyring,
    *,
    name: str,
    tenant: str = "default",
    scopes: Sequence[str] = (ALL,),
    expires_s: float | None = None,
) -> str:
    """Create a key for the tenant, and the tenant if needed; the key is never shown again. RejectedError for an unknown scope."""
    _require_known(scopes)
    with db.begin() as connection:
        connection.execute("insert into tenant (name) values (%(name)s) on conflict do nothing", {"name": tenant})
        tenant_id: int = connection.scalar("select id from tenant where name = %(name)s", {"name": tenant})
        _, api_key = _insert(connection, keyring, tenant_id=tenant_id, name=name, scopes=scopes, expires_s=expires_s)
    return api_key


def create_for(
    db: Database, keyring: Keyring, maker: Caller, *, name: str, scopes: Sequence[str], expires_s: float | None = None
) -> tuple[str, str]:
    """Create a key for the maker's tenant; return its public id, and the key, which is never shown again.

    Raises RejectedError for a scope that is unknown, or that the maker lacks.
    """
    _require_known(scopes)
    maker.require_all(scopes)
    with db.begin() as connection:
        return _insert(connection, keyring, tenant_id=maker.tenant_id, name=name, scopes=scopes, expires_s=expires_s)


def tenant_id(db: Database, name: str) -> int:
    """Return the number of the tenant of this name. Raises RejectedError."""
    with db.session() as connection:
        found: int | None = connection.scalar("select id from tenant where name = %(name)s", {"name": name})
    if found is None:
        raise RejectedError(f"there is no tenant {name!r}: `guardfleet keys list` names those that have keys.", param="tenant")
    return found


def every(db: Database) -> list[ApiKey]:
    """Return all keys, revoked ones too, oldest first."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(ApiKey))
        return cursor.execute(f"{SELECT} order by k.id").fetchall()


def of_tenant(db: Database, tenant_id: int, *, after: str | None = None, limit: int = 100) -> list[ApiKey]:
    """Return up to `limit` of the tenant's keys made before the named one, revoked ones too, newest first. Raises NotFoundError."""
    values = {"tenant": tenant_id, "after": None if after is None else ids.KEY.parse(after), "limit": limit}
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(ApiKey))
        return cursor.execute(
            f"""{SELECT} where k.tenant_id = %(tenant)s
                  and (cast(%(after)s as uuid) is null
                       or k.id < (select id from api_key where public_id = %(after)s and tenant_id = %(tenant)s))
                order by k.id desc limit %(limit)s""",
            values,
        ).fetchall()


def get(db: Database, label: str, *, tenant_id: int) -> ApiKey:
    """Return the tenant's key of this public id. Raises NotFoundError, for another tenant's too."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(ApiKey))
        found = cursor.execute(
            f"{SELECT} where k.public_id = %(id)s and k.tenant_id = %(tenant)s", {"id": ids.KEY.parse(label), "tenant": tenant_id}
        ).fetchone()
    if found is None:
        raise _unknown(label)
    return found


def names(db: Database, tenant_id: int, labels: Collection[str]) -> dict[str, str]:
    """Return the names of those of the tenant's keys that these public ids name, by public id."""
    known = []
    for label in set(labels):
        with suppress(NotFoundError):
            known.append(ids.KEY.parse(label))
    with db.session() as connection:
        rows = connection.execute(
            "select public_id, name from api_key where tenant_id = %(tenant)s and public_id = any(%(ids)s)",
            {"tenant": tenant_id, "ids": known},
        )
        return {ids.KEY.of(row.public_id): row.name for row in rows}


def revoke(db: Database, label: str, *, tenant_id: int | None = None) -> None:
    """Revoke the key; an API process that caches it follows within seconds. Raises NotFoundError; safe to call twice.

    `tenant_id`: whose keys alone exist; None: every tenant's, for commands.
    """
    public_id = ids.KEY.parse(label)
    with db.begin() as connection:
        row = connection.execute(
            f"""update api_key k set revoked_at = coalesce(revoked_at, now())
                where public_id = %(id)s and {OF_TENANT} returning tenant_id""",
            {"id": public_id, "tenant": tenant_id},
        ).fetchone()
        if row is None:
            raise _unknown(label)
        audit.record(connection, row.tenant_id, "key.revoke", ids.KEY.of(public_id))


def rotate(db: Database, keyring: Keyring, label: str, *, overlap_s: float, maker: Caller | None = None) -> tuple[str, str]:
    """Create a successor with the same name, tenant, scopes and expiry; the old key works `overlap_s` longer. NotFoundError.

    Returns the successor's public id, and the key itself. `maker`: for whom only the tenant's own keys exist, and who must have
    what the key may do (RejectedError); None: a command, which may everything.
    """
    with db.begin() as connection:
        row = connection.execute(
            f"""with old as (select * from api_key k where public_id = %(id)s and revoked_at is null and {OF_TENANT} for update)
               update api_key k set expires_at = least(k.expires_at, now() + make_interval(secs => %(overlap)s))
               from old where k.id = old.id
               returning old.public_id, old.tenant_id, old.name, old.scopes,
                         extract(epoch from old.expires_at - now()) as left_s""",
            {"id": ids.KEY.parse(label), "overlap": overlap_s, "tenant": maker.tenant_id if maker else None},
        ).fetchone()
        if row is None:
            raise _unknown(label)
        if maker is not None:
            maker.require_all(row.scopes)
        audit.record(connection, row.tenant_id, "key.rotate", ids.KEY.of(row.public_id), overlap_s=overlap_s)
        left_s = None if row.left_s is None else float(row.left_s)
        return _insert(connection, keyring, tenant_id=row.tenant_id, name=row.name, scopes=row.scopes, expires_s=left_s)


def authenticate(db: Database, keyring: Keyring, api_key: str) -> Caller | None:
    """Return whose key this is; None if it is unknown, expired or revoked.

    Raises ConfigurationError if the ring lacks the installation's secret key, without which no API key can be recognised.
    """
    with db.session() as connection:
        row = connection.execute(
            """select id, tenant_id, scopes, public_id,
                      last_used_at is null or last_used_at < now() - make_interval(secs => %(used)s) as stale
               from api_key
               where digest = any(%(digests)s) and revoked_at is null and (expires_at is null or expires_at > now())""",
            {"digests": keyring.api_key_digests(api_key), "used": USED_S},
        ).fetchone()
    if row is None:
        installation.look(db, keyring)
    elif row.stale:
        _used(db, keyring, row.id, api_key)
    return Caller(row.id, row.tenant_id, tuple(row.scopes), ids.KEY.of(row.public_id)) if row else None


def _used(db: Database, keyring: Keyring, key_id: int, api_key: str) -> None:
    """Record the use, and renew the digest under the pinned key, so that the API key survives a rotation of the secret key."""
    with db.begin() as connection:
        installation.follow(connection, keyring)
        connection.execute(
            "update api_key set last_used_at = now(), digest = %(digest)s, key_id = %(key_id)s where id = %(id)s",
            {"id": key_id, "digest": keyring.api_key_digests(api_key)[0], "key_id": keyring.key_id},
        )


def _insert(
    connection: Connection, keyring: Keyring, *, tenant_id: int, name: str, scopes: Sequence[str], expires_s: float | None
) -> tuple[str, str]:
    api_key = PREFIX + secrets.token_urlsafe(32)
    installation.follow(connection, keyring)
    public_id: uuid.UUID = connection.scalar(
        """insert into api_key (tenant_id, name, digest, hint, scopes, expires_at, key_id)
           values (%(tenant)s, %(name)s, %(digest)s, %(hint)s, %(scopes)s,
                   now() + make_interval(secs => cast(%(expires)s as double precision)), %(key_id)s)
           returning public_id""",
        {
            "tenant": tenant_id,
            "name": name,
            "digest": keyring.api_key_digests(api_key)[0],
            "key_id": keyring.key_id,
            "hint": api_key[-HINT_CHARACTERS:],
            "scopes": list(scopes),
            "expires": expires_s,
        },
    )
    audit.record(connection, tenant_id, "key.create", ids.KEY.of(public_id), scopes=list(scopes), expires_s=expires_s)
    return ids.KEY.of(public_id), api_key


def _require_known(scopes: Sequence[str]) -> None:
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise RejectedError(f"scopes must be among {', '.join(SCOPES)}; got {', '.join(unknown) or 'none'}.")


def _unknown(label: str) -> NotFoundError:
    return NotFoundError(ids.KEY.unknown.format(label))


__all__ = [
    "AUDIT",
    "DEFAULT_TENANT",
    "ERASE",
    "HOLD",
    "MANAGE_KEYS",
    "SCOPES",
    "ApiKey",
    "Caller",
    "authenticate",
    "create",
    "create_for",
    "every",
    "get",
    "names",
    "of_tenant",
    "revoke",
    "rotate",
]
