"""The tables of reviewing: queues, and the tasks that they hand to people."""

import datetime as dt
import uuid

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKeyConstraint, Index, SmallInteger, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, ZERO, Base, identity

FALSE, TRUE = text("false"), text("true")


class ReviewQueue(Base):
    """Texts that people are asked about. Without `job_id`: what the policy in force sends to review, of all jobs."""

    __tablename__ = "review_queue"
    id: Mapped[int] = identity()
    public_id: Mapped[uuid.UUID] = mapped_column(unique=True, server_default=text("gen_random_uuid()"))
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    job_id: Mapped[int | None] = mapped_column(BigInteger)  # only texts of this job; of a sample, the job that it is of
    sample_id: Mapped[int | None] = mapped_column(BigInteger)  # the texts of this sample, whatever a policy says
    reviewers: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # `who` of sessions; null: all who may review
    second_share: Mapped[float] = mapped_column(Double)
    golden_share: Mapped[float] = mapped_column(Double)
    break_after: Mapped[int]  # unsafe texts; 0: never
    shows_verdict: Mapped[bool]  # before the decision, of texts that measure nobody
    lease_s: Mapped[int]
    is_open: Mapped[bool] = mapped_column(server_default=TRUE)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        UniqueConstraint("tenant_id", "name"),
        CheckConstraint("sample_id is null or job_id is not null", name="review_queue_check"),
        Index("review_queue_job", "job_id"),
    )


class ReviewTask(Base):
    """A question to a person about a text. A crash of whoever holds it leaves a lease that runs out, and nothing else."""

    __tablename__ = "review_task"
    id: Mapped[int] = identity()
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    queue_id: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int]
    kind: Mapped[int] = mapped_column(SmallInteger)  # reviews.Kind
    wants_second: Mapped[bool] = mapped_column(server_default=FALSE)  # drawn with the task, before anybody answers it
    golden: Mapped[int | None] = mapped_column(SmallInteger)  # the known severity, when it was handed out
    claimed_by: Mapped[str | None]  # claim(): who has it, or had it when deciding; null: nobody, or skip() gave it back
    claimed_at: Mapped[dt.datetime | None]
    lease_until: Mapped[dt.datetime | None]  # afterwards claim() may give it to somebody else
    token: Mapped[int] = mapped_column(server_default=ZERO)  # +1 by claim(), skip() and undo(): forms of before are refused
    skipped_by: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    severity: Mapped[int | None] = mapped_column(SmallInteger)  # decide(), with decided_at
    categories: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)
    decided_at: Mapped[dt.datetime | None]
    label_id: Mapped[int | None] = mapped_column(BigInteger)  # the label that the decision stored; undo() takes it back
    gone_at: Mapped[dt.datetime | None]  # the text was found deleted: nobody can answer
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    __table_args__ = (
        ForeignKeyConstraint(["queue_id"], ["review_queue.id"], ondelete="CASCADE"),
        CheckConstraint("(decided_at is null) = (severity is null)", name="review_task_check"),
        Index("review_task_once", "job_id", "seq", "kind", unique=True, postgresql_where=text("kind <> 2")),
        Index("review_task_text", "job_id", "seq"),
        Index("review_task_open", "queue_id", "id", postgresql_where=text("decided_at is null and gone_at is null")),
        Index("review_task_person", "tenant_id", "claimed_by", "decided_at"),
    )
