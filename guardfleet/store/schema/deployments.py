"""The tables of deployments: which model a detector's workers are to serve, who serves what, and how two models compared."""

import datetime as dt

from sqlalchemy import BigInteger, Double, ForeignKeyConstraint, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, ZERO, Base, identity
from guardfleet.store.words import ACTIVE_DEPLOYMENT, CANDIDATE_DEPLOYMENT


class Deployment(Base):
    """One attempt to have a detector's workers serve a model. Rows are kept: they say what was served when, and why it ended."""

    __tablename__ = "deployment"
    id: Mapped[int] = identity()
    detector: Mapped[str]
    model: Mapped[str]  # as GUARDFLEET_ENGINE__MODEL
    revision: Mapped[str | None]  # as it was asked for; null: the newest
    found: Mapped[str | None]  # what the first worker that loaded it found; every other one must find the same
    name: Mapped[str | None]  # how verdicts name it, likewise
    state: Mapped[int] = mapped_column(SmallInteger)  # states.DeploymentState
    share: Mapped[float] = mapped_column(Double, server_default=ZERO)  # of shards (canary) or of texts (shadow)
    canary_texts: Mapped[int] = mapped_column(server_default=ZERO)  # compared before it is rolled out
    min_agreement: Mapped[float] = mapped_column(Double, server_default=ZERO)
    alone: Mapped[bool] = mapped_column(server_default=text("false"))  # never two engines in one process
    golden: Mapped[bytes | None]  # labelled rows that it must judge rightly, encrypted; null: none, or it has ended
    golden_accuracy: Mapped[float] = mapped_column(Double, server_default=ZERO)
    golden_texts: Mapped[int] = mapped_column(server_default=ZERO)
    golden_right: Mapped[int | None]  # by the worker that checked last
    data_key: Mapped[bytes | None]  # of `golden`, under the secret key
    key_id: Mapped[str | None]  # that secret key
    reason: Mapped[str | None]  # why it ended as it did
    actor: Mapped[str]  # who asked for it
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    changed_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)  # its state
    activated_at: Mapped[dt.datetime | None]  # the last time
    compared: Mapped[int] = mapped_column(server_default=ZERO)  # texts that both models judged
    agreed: Mapped[int] = mapped_column(server_default=ZERO)  # on the severity
    live_errors: Mapped[int] = mapped_column(server_default=ZERO)
    errors: Mapped[int] = mapped_column(server_default=ZERO)  # the candidate's
    live_s: Mapped[float] = mapped_column(Double, server_default=ZERO)  # of devices, for the compared texts
    candidate_s: Mapped[float] = mapped_column(Double, server_default=ZERO)
    skipped: Mapped[int] = mapped_column(server_default=ZERO)  # texts of its share that no worker had time to compare
    __table_args__ = (
        Index("deployment_active", "detector", unique=True, postgresql_where=text(f"{ACTIVE_DEPLOYMENT}")),
        Index("deployment_candidate", "detector", unique=True, postgresql_where=text(f"{CANDIDATE_DEPLOYMENT}")),
    )


class Seat(Base):
    """What a worker serves, beside its row in `worker`: written with its reports; a row that grows old is that of one that died."""

    __tablename__ = "seat"
    worker: Mapped[str] = mapped_column(primary_key=True)  # as in worker.name
    detector: Mapped[str]
    deployment_id: Mapped[int | None] = mapped_column(BigInteger)  # whose model it serves; null: that of its settings
    beside_id: Mapped[int | None] = mapped_column(BigInteger)  # whose model it has beside that one
    swapping_at: Mapped[dt.datetime | None]  # since when it may load another one; few may at a time
    follows: Mapped[bool]  # deployments; otherwise it serves its settings' model whatever is deployed
    reason: Mapped[str | None]  # why it does not serve what it should
    seen_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)


class Comparison(Base):
    """Counts of texts that two models judged, for a deployment, by language. Never a text."""

    __tablename__ = "comparison"
    deployment_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    language: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)  # `severity`, or a category or label
    live: Mapped[str] = mapped_column(primary_key=True)  # the word of the model that is served; of a category: `named` or `not`
    candidate: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int]
    __table_args__ = (ForeignKeyConstraint(["deployment_id"], ["deployment.id"], ondelete="CASCADE"),)


class Disagreement(Base):
    """A text that two models judged differently, by its place; a bounded sample, to be read by people."""

    __tablename__ = "disagreement"
    deployment_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    live: Mapped[str]
    candidate: Mapped[str]
    __table_args__ = (ForeignKeyConstraint(["deployment_id"], ["deployment.id"], ondelete="CASCADE"),)
