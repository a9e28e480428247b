"""What has no verdict in a job: refused input lines, and texts that were not judged before the job ended."""

from collections.abc import Iterator
from typing import Any

from psycopg.rows import dict_row

from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.words import DROPPED_SHARD

LINES_AT_ONCE = 5_000


def refused(db: Database, job: JobView, *, limit: int | None = None, after: int = -1) -> Iterator[dict[str, Any]]:
    """Yield refused input lines after `after`, in order: `line`, `code`, `detail`, `row_id` if usable, `last_line` of a range."""
    last, left = after, limit
    while left is None or left > 0:
        n = LINES_AT_ONCE if left is None else min(left, LINES_AT_ONCE)
        with db.session() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            rows = cursor.execute(
                """select line, code, detail, row_id, last_line from rejection where job_id = %(job)s and line > %(last)s
                   order by line limit %(limit)s""",
                {"job": job.id, "last": last, "limit": n},
            ).fetchall()
        yield from rows
        if len(rows) < n:
            return
        last = rows[-1]["line"]
        left = None if left is None else left - n


def dropped(db: Database, keyring: Keyring, job: JobView) -> Iterator[tuple[int, list[PayloadRow]]]:
    """Yield the texts of shards that were dropped with their job, with their first sequence number; none once purged."""
    last = -1
    while True:
        with db.session() as connection:
            row = connection.execute(
                f"""select s.shard_no, s.first_seq, p.blob, j.data_key
                   from shard s join job j on j.id = s.job_id
                   join shard_payload p on p.job_id = s.job_id and p.shard_no = s.shard_no and p.day = s.day
                   where s.job_id = %(job)s and {DROPPED_SHARD:s} and s.shard_no > %(last)s and j.data_key is not null
                   order by s.shard_no limit 1""",
                {"job": job.id, "last": last},
            ).fetchone()
        if row is None:
            return
        last = row.shard_no
        yield row.first_seq, keyring.decrypt_rows(row.data_key, row.blob, job_id=job.id, shard_no=row.shard_no)
