"""API keys: made once, stored as HMAC, looked up by it."""

import secrets
from dataclasses import dataclass

from sqlalchemy import text

from guardfleet.sealing import Keyring
from guardfleet.store.database import Database
from guardfleet.store.jobs import DEFAULT_TENANT

PREFIX = "gf_"  # a fixed prefix helps secret scanners


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request belongs to."""

    key_id: int
    tenant_id: int


def create(db: Database, keyring: Keyring, *, name: str, tenant: str = "default") -> str:
    """A new key for the tenant (made if need be), returned once and never again."""
    api_key = PREFIX + secrets.token_urlsafe(32)
    with db.begin() as connection:
        connection.execute(text("insert into tenant (name) values (:name) on conflict do nothing"), {"name": tenant})
        connection.execute(
            text("""insert into api_key (tenant_id, name, digest)
                    select id, :name, :digest from tenant where tenant.name = :tenant"""),
            {"name": name, "digest": keyring.api_key_digest(api_key), "tenant": tenant},
        )
    return api_key


def authenticate(db: Database, keyring: Keyring, api_key: str) -> Caller | None:
    """Whose key this is; None when it is unknown or revoked."""
    with db.session() as connection:
        row = connection.execute(
            text("select id, tenant_id from api_key where digest = :digest and revoked_at is null"),
            {"digest": keyring.api_key_digest(api_key)},
        ).one_or_none()
    return Caller(row.id, row.tenant_id) if row else None


__all__ = ["DEFAULT_TENANT", "Caller", "authenticate", "create"]
