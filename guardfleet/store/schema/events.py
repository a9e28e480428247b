"""The tables behind webhooks: events, endpoints, deliveries and their attempts."""

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, SmallInteger, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, ZERO, Base, identity
from guardfleet.store.words import OPEN_DELIVERY


class Outbox(Base):
    """Events to send, written in the transaction that made them true; relay() turns them into deliveries."""

    __tablename__ = "outbox"
    id: Mapped[int] = identity()
    event_id: Mapped[str] = mapped_column(unique=True)
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    subject: Mapped[dict[str, Any] | None]  # further fields of the event; never a text


class Endpoint(Base):
    """Where webhooks go. One with a job_id belongs to that job alone (its callback URL)."""

    __tablename__ = "endpoint"
    id: Mapped[int] = identity()
    public_id: Mapped[uuid.UUID] = mapped_column(unique=True, server_default=text("gen_random_uuid()"))
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(server_default=text("'callback'"))
    url: Mapped[str]
    secret: Mapped[bytes]  # encrypted
    old_secret: Mapped[bytes | None]  # signs too, until old_secret_until
    old_secret_until: Mapped[dt.datetime | None]  # set by rotate()
    kinds: Mapped[list[str]]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    failing_since: Mapped[dt.datetime | None]  # first failure after the last success
    answered_at: Mapped[dt.datetime | None]  # when it first accepted a delivery at this URL
    most_per_s: Mapped[float | None]  # attempts per second; null: no limit
    paced_until: Mapped[dt.datetime | None]  # with most_per_s: when the next attempt may begin
    disabled_reason: Mapped[str | None]  # why guardfleet disabled it
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[dt.datetime | None]
    key_id: Mapped[str | None]  # the installation key that encrypts both secrets; null: unknown, from before 0009
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        Index("endpoint_tenant", "tenant_id"),
        Index("endpoint_listening", "tenant_id", postgresql_where=text("job_id is null")),
        Index("endpoint_job", "job_id", postgresql_where=text("job_id is not null")),
    )


class Delivery(Base):
    """One event on its way to one endpoint."""

    __tablename__ = "delivery"
    id: Mapped[int] = identity()
    event_id: Mapped[str]
    endpoint_id: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str]
    occurred_at: Mapped[dt.datetime]
    state: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)  # states.DeliveryState
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)  # set by claim(): a crash counts
    token: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)  # fencing token
    next_attempt_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    lease_until: Mapped[dt.datetime | None]
    published_at: Mapped[dt.datetime | None]
    subject: Mapped[dict[str, Any] | None]  # of the event
    __table_args__ = (
        UniqueConstraint("event_id", "endpoint_id"),
        Index("delivery_endpoint", "endpoint_id", text("id desc")),
        Index("delivery_open", "endpoint_id", postgresql_where=text(f"{OPEN_DELIVERY}")),
        Index("delivery_due", "next_attempt_at", postgresql_where=text(f"{OPEN_DELIVERY}")),
    )


class Attempt(Base):
    """One try at a delivery; insert-only."""

    __tablename__ = "attempt"
    id: Mapped[int] = identity()
    delivery_id: Mapped[int] = mapped_column(BigInteger)
    attempt_no: Mapped[int] = mapped_column(SmallInteger)
    at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    status: Mapped[int | None] = mapped_column(SmallInteger)  # HTTP status; null: no answer
    latency_ms: Mapped[int]
    error: Mapped[str | None]  # class of the failure, never the body
    __table_args__ = (Index("attempt_delivery", "delivery_id"),)
