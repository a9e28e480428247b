"""Reading a job's texts for their owner, until they are purged."""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from guardfleet.errors import RejectedError
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.page import Page


class Kept(Protocol):
    """A job, as far as reading its texts needs it."""

    @property
    def id(self) -> int:
        """Its number."""

    @property
    def day(self) -> dt.date:
        """The partition of its rows."""


Shards = dict[tuple[int, int], list[PayloadRow]]  # by shard number and first sequence number


def require_kept(job: JobView) -> None:
    """Raise RejectedError if the job's texts were purged."""
    if job.purged_at is not None:
        raise RejectedError(f"the texts of {job.label} were purged on {job.purged_at:%Y-%m-%d %H:%M} UTC: only verdicts are left.")


def beside(db: Database, keyring: Keyring, job: Kept, pages: Iterable[Page]) -> Iterator[Page]:
    """Yield each page with the text of each verdict, None if it no longer exists. Memory: one page and its shards."""
    opened: Shards = {}
    for page in pages:
        wanted = [row.seq for row in page.rows]
        opened = _open(db, keyring, job, wanted, opened)
        contents = {
            first + i: None if row.is_erased else row.content for (_, first), rows in opened.items() for i, row in enumerate(rows)
        }
        yield replace(page, contents=[contents.get(seq) for seq in wanted])


def _open(db: Database, keyring: Keyring, job: Kept, wanted: Sequence[int], known: Shards) -> Shards:
    """Return the shards that hold these sequence numbers; those of the previous page are not decrypted again."""
    if not wanted:
        return {}
    out: Shards = {}
    for shard_no, first_seq in _shards(db, job, wanted[0], wanted[-1]):
        key = (shard_no, first_seq)
        rows = known.get(key) or of_shard(db, keyring, job, shard_no)
        if rows:
            out[key] = rows
    return out


def _shards(db: Database, job: Kept, first: int, last: int) -> list[tuple[int, int]]:
    with db.session() as connection:
        found = connection.execute(
            """select shard_no, first_seq from shard
               where job_id = %(job)s and first_seq <= %(last)s and first_seq + n > %(first)s order by first_seq""",
            {"job": job.id, "first": first, "last": last},
        )
        return [(row.shard_no, row.first_seq) for row in found]


def of_shard(db: Database, keyring: Keyring, job: Kept, shard_no: int) -> list[PayloadRow]:
    """Return the texts of a shard; none once purged. Raises ConfigurationError if they cannot be decrypted."""
    with db.session() as connection:
        found: Any = connection.execute(
            """select p.blob, j.data_key from shard_payload p join job j on j.id = p.job_id
               where p.job_id = %(job)s and p.shard_no = %(no)s and p.day = %(day)s and j.data_key is not null""",
            {"job": job.id, "no": shard_no, "day": job.day},
        ).fetchone()
    if found is None:
        return []
    return keyring.decrypt_rows(found.data_key, found.blob, job_id=job.id, shard_no=shard_no)
