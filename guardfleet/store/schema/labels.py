"""The tables of human labels, and of the samples that are drawn to be labelled."""

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKeyConstraint, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, ZERO, Base, identity


class Label(Base):
    """What a person says of a text; insert-only. Several of a text are kept: `domain.labels.counting` says which one counts."""

    __tablename__ = "label"
    id: Mapped[int] = identity()
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int]
    source: Mapped[int] = mapped_column(SmallInteger)  # labels.Source
    severity: Mapped[int] = mapped_column(SmallInteger)  # verdict.Severity without ERROR
    categories: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)  # verdict.Category bits
    author: Mapped[str]
    sample_id: Mapped[int | None] = mapped_column(BigInteger)  # that it was made for; null: the text was not drawn for it
    probability: Mapped[float | None] = mapped_column(Double)  # with which that sample drew the text
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        CheckConstraint("(sample_id is null) = (probability is null)", name="label_check"),
        Index("label_text", "job_id", "seq", "id"),
        Index("label_tenant", "tenant_id", "id"),
        Index("label_golden", "tenant_id", "job_id", "seq", postgresql_where=text("source = 3")),  # labels.Source.GOLDEN
    )


class Sample(Base):
    """Texts of a job that were drawn at random to be labelled; never changed."""

    __tablename__ = "sample"
    id: Mapped[int] = identity()
    public_id: Mapped[uuid.UUID] = mapped_column(unique=True, server_default=text("gen_random_uuid()"))
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[int] = mapped_column(BigInteger)
    design: Mapped[dict[str, Any]]  # what was asked for, and of how many texts it was drawn
    n: Mapped[int]  # texts that it has: fewer than asked for where designs drew the same one
    seed: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenant.id"]), Index("sample_job", "job_id"))


class SampleText(Base):
    """One text of a sample."""

    __tablename__ = "sample_text"
    sample_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    ord: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # a random order: any beginning of it is a sample too
    job_id: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int]
    probability: Mapped[float] = mapped_column(Double)  # that it was drawn, by any of the designs
    stratum: Mapped[str | None]  # its slice, else how it disagrees; null: the designs have no strata
    __table_args__ = (
        CheckConstraint("probability > 0 and probability <= 1", name="sample_text_check"),
        Index("sample_text_text", "job_id", "seq"),
    )
