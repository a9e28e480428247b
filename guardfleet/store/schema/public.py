"""The tables of the HTTP API alone: who may ask, what was uploaded, what was asked before."""

import datetime as dt
import uuid

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, ZERO, Base, identity
from guardfleet.store.words import KEPT_FILE, LEFT_FILE


class ApiKey(Base):
    """A bearer key: only its HMAC is kept."""

    __tablename__ = "api_key"
    id: Mapped[int] = identity()
    public_id: Mapped[uuid.UUID] = mapped_column(unique=True, server_default=text("gen_random_uuid()"))
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    digest: Mapped[bytes] = mapped_column(unique=True)
    hint: Mapped[str] = mapped_column(server_default=text("''"))  # its last characters, to tell keys apart
    scopes: Mapped[list[str]] = mapped_column(server_default=text("'{all}'"))
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[dt.datetime | None]  # set at creation, and by rotate() for the old key
    last_used_at: Mapped[dt.datetime | None]  # moved by authenticate(), to the minute
    revoked_at: Mapped[dt.datetime | None]
    key_id: Mapped[str | None]  # the installation key its digest is under; null: unknown, from before 0009
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),)


class File(Base):
    """An uploaded file; its content lies encrypted under `files_url`, by its public id."""

    __tablename__ = "file"
    id: Mapped[int] = identity()
    public_id: Mapped[uuid.UUID] = mapped_column(unique=True)
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    filename: Mapped[str]
    purpose: Mapped[str]
    state: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)  # states.FileState
    size: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    lines: Mapped[int | None] = mapped_column(BigInteger)  # blank ones too; set when it is whole
    digest: Mapped[bytes | None]  # SHA-256 of the content, set when it is whole
    key_id: Mapped[str]
    data_key: Mapped[bytes | None]  # wrapped; null once deleted
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[dt.datetime | None]  # then the dispatcher forgets its key, and an API process removes its content
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        Index("file_tenant", "tenant_id", text("id desc")),
        Index("file_expiring", "expires_at", postgresql_where=text(f"{KEPT_FILE}")),
        Index("file_left", "id", postgresql_where=text(f"{LEFT_FILE}")),
    )


class Repeat(Base):
    """A request that made something, so that the same one sent again makes nothing more."""

    __tablename__ = "repeat"
    tenant_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    key: Mapped[bytes] = mapped_column(primary_key=True)  # digest of the Idempotency-Key, or of key, route and body
    fingerprint: Mapped[bytes]  # digest of what was asked
    subject: Mapped[str | None]  # what it made; null while it is at it
    body: Mapped[bytes | None]  # digest of the lines that it came with, set with the subject; null where the fingerprint says all
    token: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)  # raised by whoever takes over one that was cut off
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)  # or the last sign of life, while it is at it
    __table_args__ = (Index("repeat_created_at", "created_at"),)
