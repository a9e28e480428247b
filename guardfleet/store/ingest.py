"""Texts on their way in: sealed shards and refused lines, one COPY transaction a piece."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from guardfleet.errors import LineError, RejectedError
from guardfleet.store.database import Database, copy_rows
from guardfleet.store.jobs import OpenJob

SHARD_COLUMNS = {
    "job_id": "int8",
    "shard_no": "int4",
    "day": "date",
    "lane": "int2",
    "first_seq": "int4",
    "n": "int4",
    "model": "text",
}
PAYLOAD_COLUMNS = {"job_id": "int8", "shard_no": "int4", "day": "date", "blob": "bytea"}
REJECTION_COLUMNS = {"job_id": "int8", "line": "int8", "code": "text", "detail": "text"}


@dataclass(frozen=True, slots=True)
class SealedShard:
    """A shard ready for storage: `n` texts from `first_seq` on, in one sealed blob."""

    shard_no: int
    first_seq: int
    n: int
    blob: bytes


def write_piece(db: Database, job: OpenJob, shards: Sequence[SealedShard], rejections: Iterable[LineError]) -> None:
    """Commit one piece of a job that is still INGESTING; raises RejectedError if it no longer is (it was given up meanwhile)."""
    refused = [(job.id, error.line, error.code, error.detail[:1000]) for error in rejections]
    with db.begin() as connection:
        copy_rows(
            connection,
            "shard",
            SHARD_COLUMNS,
            ((job.id, shard.shard_no, job.day, job.lane, shard.first_seq, shard.n, job.model) for shard in shards),
        )
        copy_rows(connection, "shard_payload", PAYLOAD_COLUMNS, ((job.id, shard.shard_no, job.day, shard.blob) for shard in shards))
        copy_rows(connection, "rejection", REJECTION_COLUMNS, refused)
        taken = connection.execute(
            text("update job set total = total + :n, rejected = rejected + :refused where id = :job and state = 0"),
            {"job": job.id, "n": sum(shard.n for shard in shards), "refused": len(refused)},
        ).rowcount
        if not taken:
            raise RejectedError("the job was given up while its texts were still coming in.")
