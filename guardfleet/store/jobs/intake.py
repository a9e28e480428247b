"""Intake: a new job's shards and refused lines are committed in pieces, then it is sealed or abandoned.

Invariants: a piece and the input line that it reaches are one commit, so whoever resumes a killed intake starts after that line
and takes no text twice; taking over an intake raises `intake_token`, so of several only the newest writes. Until seal() the job
cannot complete, however many of its shards have.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import psycopg

from guardfleet.domain import ids
from guardfleet.domain.lanes import Lane
from guardfleet.domain.states import JobState, ShardState
from guardfleet.errors import LineError, RejectedError, StatementError
from guardfleet.store import audit
from guardfleet.store.events.outbox import ENDED, emit
from guardfleet.store.postgres.database import Connection, Database, copy_rows
from guardfleet.store.words import INGESTING_JOB, OPEN_SHARD
from guardfleet.store.words import public_id as label_of

INTAKE_LEASE_S = 10.0  # an intake that committed nothing for so long may be taken over
SHARD_COLUMNS = {
    "job_id": "int8",
    "shard_no": "int4",
    "day": "date",
    "lane": "int2",
    "first_seq": "int4",
    "n": "int4",
    "model": "text",
    "text_bytes": "int4",
}
PAYLOAD_COLUMNS = {"job_id": "int8", "shard_no": "int4", "day": "date", "blob": "bytea"}
REJECTION_COLUMNS = {"job_id": "int8", "line": "int8", "code": "text", "detail": "text", "row_id": "text", "last_line": "int8"}
RETRIED_COLUMNS = {"of_job_id": "int8", "of_seq": "int4", "job_id": "int8", "seq": "int4"}


@dataclass(frozen=True, slots=True)
class OpenJob:
    """The right to add texts to a job, as long as `token` is the newest; and how far its intake has come."""

    id: int
    public_id: uuid.UUID
    tenant_id: int
    day: dt.date
    lane: Lane
    data_key: bytes  # wrapped
    model: str | None  # what its shards wait for first (`Plan.first_route`)
    token: int = 0
    line: int = 0  # input lines up to this one are committed
    texts: int = 0
    shards: int = 0
    callback_secret: str | None = field(default=None, repr=False)  # only if the job was created just now
    retry_of: int | None = None


@dataclass(frozen=True, slots=True)
class EncryptedShard:
    """A shard ready for storage: `n` texts of `text_bytes` from `first_seq` on, in one encrypted blob.

    `of_seqs`: their places in the first job.
    """

    shard_no: int
    first_seq: int
    n: int
    blob: bytes
    text_bytes: int
    of_seqs: Sequence[int] = ()


def write_piece(
    db: Database, job: OpenJob, shards: Sequence[EncryptedShard], rejections: Iterable[LineError], *, line: int
) -> None:
    """Commit everything up to input line `line`; renews the intake's lease even if nothing is new.

    Raises RejectedError if the job accepts no more from the caller.
    """
    refused = list(rejections)
    try:
        _write(db, job, shards, refused, line)
    except StatementError:  # rows of whoever took the job over can collide before the token is checked
        _require(_is_ours(db, job))
        raise


def _write(db: Database, job: OpenJob, shards: Sequence[EncryptedShard], refused: Sequence[LineError], line: int) -> None:
    with db.begin() as connection:
        copy_rows(
            connection,
            "shard",
            SHARD_COLUMNS,
            ((job.id, s.shard_no, job.day, job.lane, s.first_seq, s.n, job.model, s.text_bytes) for s in shards),
        )
        copy_rows(connection, "shard_payload", PAYLOAD_COLUMNS, ((job.id, shard.shard_no, job.day, shard.blob) for shard in shards))
        copy_rows(connection, "rejection", REJECTION_COLUMNS, (_rejection(job.id, error) for error in refused))
        if job.retry_of is not None:
            copy_rows(connection, "retried", RETRIED_COLUMNS, _retried(job, shards))
        taken = connection.execute(
            f"""update job set total = total + %(n)s, rejected = least(rejected + cast(%(refused)s as bigint), 2147483647),
                      intake_line = %(line)s, intake_lease_until = now() + make_interval(secs => %(lease)s)
               where id = %(job)s and {INGESTING_JOB} and intake_token = %(token)s""",
            {
                "job": job.id,
                "token": job.token,
                "n": sum(shard.n for shard in shards),
                "refused": sum(error.n_lines for error in refused),
                "line": line,
                "lease": INTAKE_LEASE_S,
            },
        ).rowcount
        _require(taken)


def _is_ours(db: Database, job: OpenJob) -> bool:
    with db.session() as connection:
        found = connection.scalar(
            f"select exists (select from job where id = %(job)s and {INGESTING_JOB} and intake_token = %(token)s)",
            {"job": job.id, "token": job.token},
        )
    return bool(found)


def _retried(job: OpenJob, shards: Sequence[EncryptedShard]) -> Iterable[tuple[object, ...]]:
    for shard in shards:
        for seq, of_seq in enumerate(shard.of_seqs, shard.first_seq):
            yield job.retry_of, of_seq, job.id, seq


def _rejection(job_id: int, error: LineError) -> tuple[object, ...]:
    last_line = error.last_line if error.n_lines > 1 else None
    return job_id, error.line, error.code, error.told[:1000], error.row_id, last_line


def seal(db: Database, job: OpenJob, *, also: Callable[[Connection], None] | None = None) -> None:
    """End the intake: the job completes with its last verdict, now if it has them all. Raises RejectedError as write_piece does.

    `also` runs in the same transaction.
    """
    with db.begin() as connection:
        taken = connection.scalar(
            f"""with j as (
                 update job set state = case when total = done then {JobState.COMPLETED} else {JobState.RUNNING} end,
                        sealed_at = now(),
                        finished_at = case when total = done then now() end
                 where id = %(job)s and {INGESTING_JOB} and intake_token = %(token)s returning id, public_id, tenant_id, state),
               o as ({emit(ENDED)})
               select count(*) from j""",
            {"job": job.id, "token": job.token},
        )
        _require(taken)
        if also is not None:
            also(connection)


def abandon(db: Database, job_id: int, reason: str, *, token: int | None = None) -> None:
    """Fail a job whose input could not be taken in: delete its texts and tell its owner; verdicts that it has stay.

    With a token, only while that is the newest. A shard in work is fenced off; one that has finished by then counts.
    """
    with db.begin() as connection:
        connection.execute(
            f"""update shard set state = {ShardState.CANCELLED}, published_at = null
                where job_id = %(job)s and {OPEN_SHARD}""",
            {"job": job_id},
        )
        failed = connection.execute(
            f"""with j as (
                 update job set state = {JobState.FAILED}, finished_at = now(), purged_at = now(), data_key = null,
                        reason = %(reason)s
                 where id = %(job)s and {INGESTING_JOB} and (cast(%(token)s as bigint) is null or intake_token = %(token)s)
                 returning id, public_id, tenant_id, state),
               a as ({audit.each(f"(select tenant_id, {label_of(ids.JOB)} as subject from j) x")})
               {emit(ENDED)}""",
            {"job": job_id, "reason": reason[:1000], "token": token, **audit.recorded(connection, "job.abandon")},
        ).rowcount
        if not failed:
            raise psycopg.Rollback
        connection.execute("delete from shard_payload where job_id = %(job)s", {"job": job_id})


def _require(taken: int | bool) -> None:
    if not taken:
        raise RejectedError("the job was cancelled, abandoned or taken over during its intake: submit the input again.")
