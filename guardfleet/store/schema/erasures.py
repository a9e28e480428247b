"""The tables of erasures and legal holds: what was removed on request, and what must not be."""

import datetime as dt
import uuid

from sqlalchemy import BigInteger, Date, ForeignKeyConstraint, Index, LargeBinary, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, ZERO, Base, identity

EMPTY = text("'{}'")


class Erasure(Base):
    """A receipt: what was asked, as digests that reveal nothing without the key, and what was removed. Never deleted.

    Written by begin(); each transaction that removes something adds to its counts, so a crash leaves it true and unfinished.
    """

    __tablename__ = "erasure"
    id: Mapped[int] = identity()
    public_id: Mapped[uuid.UUID] = mapped_column(unique=True, server_default=text("gen_random_uuid()"))
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    actor_kind: Mapped[str]  # as in `audit_event`
    actor: Mapped[str]
    kinds: Mapped[list[str]]  # of each target: erasure.Kind
    digests: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary))  # of each: an HMAC of its value
    key_id: Mapped[str]  # the installation key of the digests
    job_id: Mapped[int | None] = mapped_column(BigInteger)  # only texts of this job; or the job that is erased as a whole
    reached_job: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)  # all jobs up to this one were searched
    waiting: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default=EMPTY)  # of these, those still being filled
    input_files: Mapped[list[uuid.UUID]] = mapped_column(
        ARRAY(Uuid), server_default=EMPTY
    )  # uploaded files that erased texts came from and that still exist
    days: Mapped[list[dt.date]] = mapped_column(ARRAY(Date), server_default=EMPTY)  # partitions written to
    texts: Mapped[int] = mapped_column(server_default=ZERO)
    verdicts: Mapped[int] = mapped_column(server_default=ZERO)  # of these, texts that had one
    blobs: Mapped[int] = mapped_column(server_default=ZERO)  # shards' encrypted texts, written again without them
    provisional: Mapped[int] = mapped_column(server_default=ZERO)  # first models' provisional verdicts
    refusals: Mapped[int] = mapped_column(server_default=ZERO)  # ids of refused lines
    beside: Mapped[int] = mapped_column(server_default=ZERO)  # rows of texts.OF_TEXT
    requests: Mapped[int] = mapped_column(server_default=ZERO)  # remembered requests
    files: Mapped[int] = mapped_column(server_default=ZERO)  # uploaded files deleted
    jobs: Mapped[int] = mapped_column(server_default=ZERO)  # jobs deleted as a whole
    held: Mapped[int] = mapped_column(server_default=ZERO)  # texts, or files, left alone under a legal hold
    unread: Mapped[int] = mapped_column(server_default=ZERO)  # shards that could not be decrypted, and so not searched
    finished_at: Mapped[dt.datetime | None]
    rewritten_at: Mapped[dt.datetime | None]  # by rewriting.rewrite() once all is; null: old bytes may be left
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenant.id"]), Index("erasure_tenant", "tenant_id", text("id desc")))


class LegalHold(Base):
    """What must not be erased, nor go because its time is over, until the hold is released."""

    __tablename__ = "legal_hold"
    id: Mapped[int] = identity()
    public_id: Mapped[uuid.UUID] = mapped_column(unique=True, server_default=text("gen_random_uuid()"))
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    actor_kind: Mapped[str]
    actor: Mapped[str]
    kind: Mapped[str]  # erasure.Kind
    target: Mapped[bytes | None]  # the id, or the subject, encrypted; null for a job, and once released
    key_id: Mapped[str | None]  # the installation key that encrypts it
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    reason: Mapped[str]  # a short code
    released_at: Mapped[dt.datetime | None]
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenant.id"]), Index("legal_hold_tenant", "tenant_id", text("id desc")))


class HeldJob(Base):
    """A job that a hold keeps. `job.holds` counts them; both change in one transaction."""

    __tablename__ = "held_job"
    hold_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    __table_args__ = (ForeignKeyConstraint(["hold_id"], ["legal_hold.id"]),)
