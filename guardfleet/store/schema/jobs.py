"""The tables as SQLAlchemy models: who sets each field, when, what a crash leaves. A test compares the migrations with them."""

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import (
    BigInteger,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.domain.states import JobState
from guardfleet.store.schema.administration import AuditEvent, InstallationKey, SchemaSupport, Tenant
from guardfleet.store.schema.base import NOW, ZERO, Base, identity
from guardfleet.store.schema.console import ConsolePreference, ConsoleSession
from guardfleet.store.schema.deployments import Comparison, Deployment, Disagreement, Seat
from guardfleet.store.schema.detections import Detected, DetectionRow
from guardfleet.store.schema.erasures import Erasure, HeldJob, LegalHold
from guardfleet.store.schema.events import Attempt, Delivery, Endpoint, Outbox
from guardfleet.store.schema.fleet import Scaling, Worker
from guardfleet.store.schema.labels import Label, Sample, SampleText
from guardfleet.store.schema.lists import ListHit, TermList
from guardfleet.store.schema.policies import Decision, Policy, PolicyOutcome
from guardfleet.store.schema.public import ApiKey, File, Repeat
from guardfleet.store.schema.retries import Retried
from guardfleet.store.schema.review import ReviewQueue, ReviewTask
from guardfleet.store.words import (
    FLAGGED_VERDICT,
    INGESTING_JOB,
    LEASED_SHARD,
    OPEN_JOB,
    READY_SHARD,
    REUSABLE_VERDICT,
    UNENDED_JOB,
)

__all__ = [
    "ApiKey",
    "Attempt",
    "AuditEvent",
    "Base",
    "Comparison",
    "ConsolePreference",
    "ConsoleSession",
    "Decision",
    "Delivery",
    "Deployment",
    "Detected",
    "DetectionRow",
    "Disagreement",
    "Endpoint",
    "Erasure",
    "File",
    "HeldJob",
    "InstallationKey",
    "Label",
    "LegalHold",
    "ListHit",
    "Outbox",
    "Policy",
    "PolicyOutcome",
    "Repeat",
    "Retried",
    "ReviewQueue",
    "ReviewTask",
    "Sample",
    "SampleText",
    "Scaling",
    "SchemaSupport",
    "Seat",
    "Tenant",
    "TermList",
    "Worker",
]  # one metadata: importing this module registers every table


class Model(Base):
    """A model that judges: its name, revision and policy. Written by a worker at its start, referred to by verdicts."""

    __tablename__ = "model"
    id: Mapped[int] = mapped_column(SmallInteger, Identity(always=True), primary_key=True)
    name: Mapped[str]
    revision: Mapped[str]
    policy: Mapped[str]
    is_demo: Mapped[bool]
    detector: Mapped[str] = mapped_column(server_default=text("'guard'"))  # what it judges as
    labels: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))  # of a detector's scores, in their order
    neutral: Mapped[str | None]  # the label that finds nothing; null: each label is found apart
    prompt_policy: Mapped[str | None]  # of verdict.PROMPT_POLICY: whether it takes one; null: it served before 0027
    __table_args__ = (UniqueConstraint("name", "revision", "policy", "detector"),)


class Job(Base):
    """What a caller submitted. Only finish() changes the counters, as the last statement of its transaction."""

    __tablename__ = "job"
    id: Mapped[int] = identity()
    public_id: Mapped[uuid.UUID] = mapped_column(unique=True)  # UUIDv7, made by the producer
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    day: Mapped[dt.date]  # of creation; the partition of all its rows
    state: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)  # states.JobState
    lane: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)  # lanes.Lane
    online: Mapped[bool] = mapped_column(server_default=text("false"))  # an HTTP request waits for it: not listed, no webhooks
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)  # among the tenant's jobs of the lane; higher first
    strict: Mapped[bool] = mapped_column(server_default=text("false"))  # nothing of it runs before its intake has ended
    reuse: Mapped[bool] = mapped_column(server_default=text("true"))  # verdicts of other jobs may serve it
    paused_at: Mapped[dt.datetime | None]  # set by pause(): nothing of it is published or claimed until resume()
    name: Mapped[str]  # given by the caller, by default the file's name
    fingerprint: Mapped[bytes | None]  # of the input and the model asked for: finds the same submission again
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    model_id: Mapped[int | None] = mapped_column(SmallInteger)  # of the newest finish() by a model
    models: Mapped[list[int]] = mapped_column(ARRAY(SmallInteger), server_default=text("'{}'"))  # of every finish() so far
    total: Mapped[int] = mapped_column(server_default=ZERO)  # texts; grows while ingesting, fixed by seal()
    rejected: Mapped[int] = mapped_column(server_default=ZERO)  # input lines refused; their reasons are in `rejection`
    done: Mapped[int] = mapped_column(server_default=ZERO)  # texts with a verdict
    safe: Mapped[int] = mapped_column(server_default=ZERO)
    controversial: Mapped[int] = mapped_column(server_default=ZERO)
    unsafe: Mapped[int] = mapped_column(server_default=ZERO)
    error: Mapped[int] = mapped_column(server_default=ZERO)
    unrated: Mapped[int] = mapped_column(server_default=ZERO)  # texts that no guard was asked about
    saved: Mapped[int] = mapped_column(server_default=ZERO)  # texts that needed no model run
    next_ord: Mapped[int] = mapped_column(server_default=ZERO)  # ordinal of the last shard finished, in commit order
    created_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    intake_token: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)  # fencing token of the intake
    intake_line: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)  # last input line that is committed
    intake_lease_until: Mapped[dt.datetime] = mapped_column(server_default=NOW)  # each piece extends it; then others may take over
    sealed_at: Mapped[dt.datetime | None]
    started_at: Mapped[dt.datetime | None]  # first finish()
    progressed_at: Mapped[dt.datetime | None]  # last finish()
    pace: Mapped[float] = mapped_column(server_default=ZERO)  # texts/s at progressed_at, decaying average (jobs.PACE_S)
    finished_at: Mapped[dt.datetime | None]  # set with the final state
    purged_at: Mapped[dt.datetime | None]  # texts deleted, data key destroyed
    reason: Mapped[str | None]  # of a failed job, for its owner
    input_file_id: Mapped[uuid.UUID | None]  # the uploaded file that its texts are taken from
    reading: Mapped[dict[str, Any] | None]  # how that file is read: format, encoding, columns; null: as lines of a batch
    endpoint: Mapped[str] = mapped_column(server_default=text("'/v1/moderations'"))  # where its lines are requests to
    completion_window: Mapped[str] = mapped_column(server_default=text("'24h'"))  # as the caller wrote it
    expires_at: Mapped[dt.datetime | None]  # when the dispatcher ends it as EXPIRED
    cancelling_at: Mapped[dt.datetime | None]  # set by cancel() and expire()
    ends_as: Mapped[int] = mapped_column(SmallInteger, server_default=text(f"{JobState.CANCELLED}"))  # the state after CANCELLING
    purge_hours: Mapped[float | None]  # overrides the setting
    keeps_nothing: Mapped[bool] = mapped_column(server_default=text("false"))  # its text is deleted with its verdict's commit
    webhook_metadata: Mapped[dict[str, Any] | None]  # instead of `metadata` in webhooks
    first_model: Mapped[str | None]  # plan.Plan: the only model that may judge first; null: any
    second_model: Mapped[str | None]  # judges again what the first model is unsure of
    sure: Mapped[float] = mapped_column(server_default=text("0.9"))
    sample: Mapped[float] = mapped_column(server_default=text("0.01"))
    long_texts: Mapped[str | None]  # overrides the workers' setting
    detectors: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # in the order in which they judge; null: the guard alone
    detector_cascades: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # second detectors, as plan.DetectorCascade reads them
    escalated: Mapped[int] = mapped_column(server_default=ZERO)  # texts that the first model was unsure of
    sampled: Mapped[int] = mapped_column(server_default=ZERO)  # other texts that the second model judged too
    agreed: Mapped[int] = mapped_column(server_default=ZERO)  # of these, with the same severity
    retry_of: Mapped[int | None] = mapped_column(BigInteger)  # the first job, whose failed texts it judges again
    device_s: Mapped[float] = mapped_column(
        Double, server_default=ZERO
    )  # its texts' share of the devices' time, of finished shards
    key_id: Mapped[str]  # which installation key wraps the data key
    data_key: Mapped[bytes | None]  # wrapped; null once purged
    erased: Mapped[int] = mapped_column(server_default=ZERO)  # texts erased on request
    holds: Mapped[int] = mapped_column(server_default=ZERO)  # legal holds on it: retention leaves it alone
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        Index("job_tenant", "tenant_id", text("id desc")),
        Index("job_fingerprint", "tenant_id", "fingerprint", postgresql_where=text("fingerprint is not null")),
        Index("job_open", "id", postgresql_where=text(f"{UNENDED_JOB}")),
        Index("job_expiring", "expires_at", postgresql_where=text(f"{OPEN_JOB} and expires_at is not null")),
        Index("job_from_file", "intake_lease_until", postgresql_where=text(f"{INGESTING_JOB} and input_file_id is not null")),
        Index("job_retries", "retry_of", postgresql_where=text("retry_of is not null")),
        Index("job_held", "input_file_id", postgresql_where=text("holds > 0")),
        Index("job_purgeable", "finished_at", postgresql_where=text("purged_at is null")),
        {"postgresql_with": {"fillfactor": "50"}},
    )


class Shard(Base):
    """One broker message's worth of texts. Leases, attempts and retries live here, never in the broker."""

    __tablename__ = "shard"
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    shard_no: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[dt.date]
    lane: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)
    first_seq: Mapped[int]
    n: Mapped[int]
    text_bytes: Mapped[int] = mapped_column(server_default=ZERO)  # of its texts, to estimate tokens; 0: not known
    state: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)  # states.ShardState
    claims: Mapped[int] = mapped_column(
        SmallInteger, server_default=ZERO
    )  # raised by claim(), lowered by a hand-back: counts crashes
    failures: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)  # raised by fail(): counts retries
    give_ups: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)  # raised by begin_giving_up(): a dispatcher's tries
    token: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)  # fencing token, one higher with each claim
    lease_until: Mapped[dt.datetime | None]  # set by claim(), extended by renew()
    worker: Mapped[str | None]  # the worker that holds or last held it
    published_at: Mapped[dt.datetime | None]  # when its message was published; null: none is out
    publish_no: Mapped[int] = mapped_column(server_default=ZERO)
    next_attempt_at: Mapped[dt.datetime | None]  # set by fail(); null: due at once
    last_error: Mapped[str | None]
    model: Mapped[str | None]  # the only model that may claim it; changed by pass_on(); null: any
    erased: Mapped[int] = mapped_column(server_default=ZERO)  # texts erased from its blob
    __table_args__ = (
        Index("shard_ready", "lane", "job_id", "shard_no", postgresql_where=text(f"{READY_SHARD} and published_at is null")),
        Index("shard_published", "lane", "published_at", postgresql_where=text(f"{READY_SHARD} and published_at is not null")),
        Index("shard_tried", "job_id", "shard_no", postgresql_where=text(f"{READY_SHARD} and (claims > 0 or failures > 0)")),
        Index("shard_leased", "lease_until", postgresql_where=text(f"{LEASED_SHARD}")),
        {
            "postgresql_with": {
                "fillfactor": "70",
                "autovacuum_vacuum_scale_factor": "0.01",
                "autovacuum_vacuum_threshold": "500",
                "autovacuum_vacuum_cost_delay": "0",
            }
        },
    )


class ShardPayload(Base):
    """The encrypted texts of a shard: zlib, then AES-256-GCM under the job's data key. Deleted by purge()."""

    __tablename__ = "shard_payload"
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    shard_no: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[dt.date] = mapped_column(primary_key=True)
    blob: Mapped[bytes]
    __table_args__ = ({"postgresql_partition_by": "RANGE (day)"},)


class FirstOpinion(Base):
    """What was said of a shard's texts so far, encrypted. Written by pass_on(), deleted by finish() and purge()."""

    __tablename__ = "first_opinion"
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    shard_no: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int | None] = mapped_column(SmallInteger)  # of the first model's verdicts; null: the guard was not asked
    blob: Mapped[bytes]


class Verdict(Base):
    """One row per text, written by finish() and changed by erasures alone. The view `verdicts` shows it in words."""

    __tablename__ = "verdict"
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)  # place in the input, from 0
    day: Mapped[dt.date] = mapped_column(primary_key=True)
    severity: Mapped[int] = mapped_column(SmallInteger)  # this and the columns below: in the codes of verdicts.encoding
    categories: Mapped[int] = mapped_column(SmallInteger)  # verdict.Category bits
    served_by: Mapped[int] = mapped_column(SmallInteger)  # verdict.ServedBy
    model_id: Mapped[int] = mapped_column(SmallInteger)
    refusal: Mapped[bool | None]
    probabilities: Mapped[bytes | None]  # P(safe), P(controversial), P(unsafe), one byte each, 255 = 1
    input_tokens: Mapped[int]
    output_tokens: Mapped[int] = mapped_column(SmallInteger)
    done_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    digest: Mapped[uuid.UUID | None]  # HMAC of the text under a key of the installation, per tenant
    id: Mapped[str | None]  # the caller's; null only if the payload could not be decrypted, or was erased
    raw: Mapped[str | None]  # null: the answer was exactly `canonical_answer` of the other columns
    error: Mapped[str | None]  # a code of verdict.ERROR_CODES
    error_detail: Mapped[str | None]
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    category_odds: Mapped[bytes | None]  # P(None) and of each category, one byte each, 254 = 1, 255 = not known
    evidence: Mapped[dict[str, Any] | None]  # windows of a long text, the one that decided, what was left out
    __table_args__ = (
        Index("verdict_flagged", "job_id", "seq", postgresql_where=text(FLAGGED_VERDICT)),
        Index("verdict_digest", "digest", postgresql_where=text(REUSABLE_VERDICT)),
        {"postgresql_partition_by": "RANGE (day)"},
    )


class ShardDone(Base):
    """Insert-only log of finished shards in commit order: readers of partial results page by it."""

    __tablename__ = "shard_done"
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    ord: Mapped[int] = mapped_column(primary_key=True)
    shard_no: Mapped[int]
    first_seq: Mapped[int]
    n: Mapped[int]


class Rejection(Base):
    """An input line, or a range of lines, that was refused; holds no text."""

    __tablename__ = "rejection"
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    line: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    code: Mapped[str]
    detail: Mapped[str]
    row_id: Mapped[str | None]  # the line's id, if it had a usable one
    last_line: Mapped[int | None] = mapped_column(BigInteger)  # of a range that was refused together; null: `line` alone
