"""The tables about the installation itself: who uses it, who did what, its keys, and which releases may run."""

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, Base, identity


class Tenant(Base):
    """Who owns jobs, keys and endpoints. Row 1, `default`, belongs to the command line."""

    __tablename__ = "tenant"
    id: Mapped[int] = identity()
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    policy_id: Mapped[int | None] = mapped_column(BigInteger)  # the policy that decides; null: none
    shadow_policy_id: Mapped[int | None] = mapped_column(BigInteger)  # another, of whose decisions nobody is told


class AuditEvent(Base):
    """Who did what, written by the transaction that did it. Holds no text. Triggers refuse changes, and deletes for 30 days."""

    __tablename__ = "audit_event"
    id: Mapped[int] = identity()
    public_id: Mapped[uuid.UUID] = mapped_column(unique=True, server_default=text("gen_random_uuid()"))
    at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    actor_kind: Mapped[str] = mapped_column(server_default=text("'unknown'"))  # a word of actions.ACTORS
    actor: Mapped[str]  # public id of a key, or user and host
    action: Mapped[str]  # a word of actions.ACTIONS
    subject: Mapped[str]  # public id of what it was done to
    request_id: Mapped[str | None]  # of the HTTP request that did it
    detail: Mapped[dict[str, Any] | None]  # names and numbers
    __table_args__ = (
        CheckConstraint("length(detail::text) <= 2000", name="audit_event_detail_check"),
        Index("audit_event_tenant", "tenant_id", "at", "id"),
        Index("audit_event_at", "at", "id"),
        Index("audit_event_subject", "subject"),
    )


class InstallationKey(Base):
    """Ids of secret keys, which reveal nothing: the key that encrypts new values, and those being rotated out."""

    __tablename__ = "installation_key"
    key_id: Mapped[str] = mapped_column(primary_key=True)
    is_current: Mapped[bool]  # one at most; moved by `keys rotate-secret`
    pinned_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    __table_args__ = (Index("installation_key_current", "is_current", unique=True, postgresql_where=text("is_current")),)


class SchemaSupport(Base):
    """One row: the oldest revision whose code may run on this schema. Raised by migrations that take something away."""

    __tablename__ = "schema_support"
    only_row: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    oldest: Mapped[str]
    __table_args__ = (CheckConstraint("only_row", name="schema_support_only_row_check"),)
