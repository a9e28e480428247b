"""The tables of policies: their versions, what each of their outcomes means, and what they decided."""

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, SmallInteger, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, Base, identity


class Policy(Base):
    """One version of a tenant's policy, never changed. `tenant.policy_id` and `tenant.shadow_policy_id` say which are applied."""

    __tablename__ = "policy"
    id: Mapped[int] = identity()
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    version: Mapped[int]  # of this name, from 1
    shadow: Mapped[bool]  # nobody is told what it decides
    document: Mapped[dict[str, Any]]  # policy.document.Policy
    digest: Mapped[bytes]  # of the document: the same again is no new version
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    activated_at: Mapped[dt.datetime | None]  # the last time; null: never, and nothing that it decided is told
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenant.id"]), UniqueConstraint("tenant_id", "name", "version"))


class PromptPolicy(Base):
    """One version of a text that detectors judge by, never changed. Jobs name it in `job.detectors`, so it is never deleted."""

    __tablename__ = "prompt_policy"
    id: Mapped[int] = identity()
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    version: Mapped[int]  # of this name, from 1
    text: Mapped[str]
    digest: Mapped[bytes]  # SHA-256 of the text: the same again is no new version
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenant.id"]), UniqueConstraint("tenant_id", "name", "version"))


class PolicyOutcome(Base):
    """What a number in `decision.outcomes` means: written with its policy, so that SQL can say it in words."""

    __tablename__ = "policy_outcome"
    policy_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    outcome: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    action: Mapped[int] = mapped_column(SmallInteger)  # document.Action
    rule: Mapped[str | None]  # its id; null: none fired
    reason: Mapped[str | None]
    labels: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    __table_args__ = (ForeignKeyConstraint(["policy_id"], ["policy.id"], ondelete="CASCADE"),)


class Decision(Base):
    """What one policy decided of a shard's texts, in finish()'s commit or by a re-decision; never changed.

    Several policies may have decided of the same texts: in force is the tenant's active one, else the last
    activated that is no shadow.
    """

    __tablename__ = "decision"
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first_seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    policy_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    n: Mapped[int]
    outcomes: Mapped[bytes]  # a byte for each text from first_seq on
    allowed: Mapped[int]  # how many texts got this action, and likewise the others
    flagged: Mapped[int]
    reviewed: Mapped[int]
    blocked: Mapped[int]
    shadow: Mapped[bool]  # as of its policy
    decided_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    __table_args__ = (
        CheckConstraint("octet_length(outcomes) = n and allowed + flagged + reviewed + blocked = n", name="decision_check"),
        Index("decision_reviewed", "job_id", "first_seq", postgresql_where=text("reviewed > 0 and not shadow")),
    )
