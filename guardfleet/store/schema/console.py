"""The tables of the console: who is signed in, and what people prefer."""

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, Base, identity


class ConsoleSession(Base):
    """A person who signed in. Without the token, which only the browser has, the row opens nothing."""

    __tablename__ = "console_session"
    id: Mapped[int] = identity()
    digest: Mapped[bytes] = mapped_column(unique=True)  # SHA-256 of the token
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    key_id: Mapped[int | None] = mapped_column(BigInteger)  # whose key signed in; null: OpenID Connect
    who: Mapped[str]  # public id of the key, or the subject that OpenID Connect names
    name: Mapped[str]  # what the person is called on pages
    scopes: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))  # of OpenID Connect; a key has its own
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[dt.datetime]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        ForeignKeyConstraint(["key_id"], ["api_key.id"]),
        Index("console_session_expires_at", "expires_at"),
    )


class ConsolePreference(Base):
    """What a person prefers: language, theme, how texts are veiled."""

    __tablename__ = "console_preference"
    tenant_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    who: Mapped[str] = mapped_column(primary_key=True)
    preferences: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),)
