"""A database for one benchmark, and what that used: bytes on disk, bytes of WAL, rows."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from guardfleet.errors import ConfigurationError
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database


@dataclass(frozen=True, slots=True)
class Footprint:
    """Size of the database, and bytes that its server has written to the WAL so far (for all its databases)."""

    size: int
    wal: int


@contextmanager
def scratch_database(admin_url: str) -> Iterator[tuple[str, str]]:
    """Yield name and URL of a new database on the server of `admin_url`, dropped at the end. Raises ConfigurationError."""
    name = f"gfbench_{uuid.uuid4().hex[:10]}"
    try:
        admin = psycopg.connect(admin_url, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        raise ConfigurationError(f"cannot connect to PostgreSQL: {str(error).strip().splitlines()[-1]}") from None
    with admin:
        admin.execute(f"create database {name}")
        try:
            yield name, f"{admin_url.rsplit('/', 1)[0]}/{name}"
        finally:
            admin.execute(f"drop database {name} with (force)")


def footprint(db: Database) -> Footprint:
    """Return the database's current footprint."""
    with db.begin() as connection:
        (row,) = connection.execute(
            "select pg_database_size(current_database()) as size, pg_current_wal_lsn() - '0/0'::pg_lsn as wal"
        )
        return Footprint(int(row.size), int(row.wal))


def served_models(db: Database) -> list[str]:
    """Return the models that workers have served, whose queues they declared."""
    with db.begin() as connection:
        return connection.scalars("select distinct name from model")


@dataclass(frozen=True, slots=True)
class Pace:
    """What finished jobs took together, from the first finished shard to the last."""

    verdicts: int  # rows
    texts: int  # those that finished after the first shard
    seconds: float

    @property
    def texts_per_s(self) -> float | None:
        """Texts per second. Too high for few shards: texts half done when the first shard finished count fully."""
        return self.texts / self.seconds if self.seconds else None


def pace(db: Database, jobs: Sequence[JobView]) -> Pace:
    """Measure finished jobs with texts."""
    ran = [(job.started_at, job.progressed_at, job.id) for job in jobs if job.started_at and job.progressed_at]
    began, _, first = min(ran)
    with db.begin() as connection:
        verdicts: int = connection.scalar(
            "select count(*) from verdict where job_id = any(%(jobs)s) and day = any(%(days)s)",
            {"jobs": [job.id for job in jobs], "days": [job.day for job in jobs]},
        )
        n: int = connection.scalar("select n from shard_done where job_id = %(job)s order by ord limit 1", {"job": first})
    return Pace(verdicts, sum(job.total for job in jobs) - n, (max(ended for _, ended, _ in ran) - began).total_seconds())
