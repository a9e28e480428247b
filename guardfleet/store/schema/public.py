"""The tables that only the HTTP API needs: API keys, uploaded files, remembered requests."""

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
    last_used_at: Mapped[dt.datetime | None]  # set by authenticate(), exact to a minute
    revoked_at: Mapped[dt.datetime | None]
    key_id: Mapped[str | None]  # the installation key of its digest; null: unknown, from before 0009
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
    lines: Mapped[int | None] = mapped_column(BigInteger)  # blank ones too; set when the upload is complete
    digest: Mapped[bytes | None]  # SHA-256 of the content, set when the upload is complete
    key_id: Mapped[str]
    data_key: Mapped[bytes | None]  # wrapped; null once deleted
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[dt.datetime | None]  # when the dispatcher destroys its key, and an API process removes its content
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        Index("file_tenant", "tenant_id", text("id desc")),
        Index("file_expiring", "expires_at", postgresql_where=text(f"{KEPT_FILE}")),
        Index("file_left", "id", postgresql_where=text(f"{LEFT_FILE}")),
    )


class Repeat(Base):
    """A request that creates something, remembered so that the same one sent again creates nothing more."""

    __tablename__ = "repeat"
    tenant_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    key: Mapped[bytes] = mapped_column(primary_key=True)  # digest of the Idempotency-Key, or of key, route and body
    fingerprint: Mapped[bytes]  # digest of the request
    subject: Mapped[str | None]  # what it created; null while it is at work
    body: Mapped[bytes | None]  # digest of its lines, set with the subject; null if the fingerprint covers them
    token: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)  # raised by whoever takes over an interrupted request
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)  # or the last renewal, while it is at work
    __table_args__ = (Index("repeat_created_at", "created_at"),)
