"""The tables of lists: their versions, and what of them was hit."""

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, Base, identity


class TermList(Base):
    """One version of a tenant's list; only `is_active` is ever changed. Of a name at most one version is applied."""

    __tablename__ = "term_list"
    id: Mapped[int] = identity()
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    version: Mapped[int]  # of this name, from 1
    entries: Mapped[bytes]  # lists.document.Entry as JSON lines, compressed by zlib
    n: Mapped[int]  # entries
    digest: Mapped[bytes]  # of the entries: the same again is no new version
    is_active: Mapped[bool] = mapped_column(server_default=text("false"))  # looked for in shards that are claimed from now on
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        UniqueConstraint("tenant_id", "name", "version"),
        Index("term_list_active", "tenant_id", "name", unique=True, postgresql_where=text("is_active")),
    )


class ListHit(Base):
    """In how many texts of a finished shard each entry of a list was found; written in finish()'s commit."""

    __tablename__ = "list_hit"
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first_seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    list: Mapped[str] = mapped_column(primary_key=True)  # its name, without a version: counts go across versions
    texts: Mapped[dict[str, Any]]  # by the entry's name
