"""What this machine can do at most with the same rows, measured in the same run, so that figures compare between machines.

Whoever stores verdicts cannot be faster than PostgreSQL takes their rows; whoever reads JSONL cannot be faster than it is parsed.
"""

import itertools
import pathlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.connection import Connection, connect, keywords

MOST_ROWS = 200_000  # held in memory
TURNS = 3  # the fastest counts: a yardstick is what the machine can do

VERDICTS = """copy (select * from verdict where job_id = any(%(jobs)s) and day = any(%(days)s) limit %(most)s)
              to stdout (format binary)"""


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Rows a second on one core of the client and one of the server."""

    copy_per_s: float  # verdict rows, by one binary COPY into a table without an index, until they are committed
    json_per_s: float  # lines of the input, parsed and dropped

    def shares(self, *, texts_per_s: float | None, ingest_per_s: float | None) -> dict[str, float | None]:
        """Return the pipeline's own rates as shares of these."""
        return {
            "texts_of_copy": round(texts_per_s / self.copy_per_s, 4) if texts_per_s and self.copy_per_s else None,
            "ingest_of_json": round(ingest_per_s / self.json_per_s, 4) if ingest_per_s and self.json_per_s else None,
        }


def measure(database_url: str, jobs: Sequence[JobView], source: pathlib.Path) -> Yardstick:
    """Copy the verdicts of finished jobs into a table of their own, which is dropped; parse the lines of `source`."""
    with connect(keywords(database_url), application="guardfleet-bench") as connection:
        rows, copied = _verdict_rows(connection, jobs)
        connection.execute("create table yardstick (like verdict)")  # logged, as verdicts are
        try:
            copy_s = min(_copy_s(connection, copied) for _ in range(TURNS))
        finally:
            connection.execute("drop table yardstick")
    with source.open("rb") as file:
        lines = list(itertools.islice(file, MOST_ROWS))
    return Yardstick(round(rows / copy_s), round(len(lines) / min(_parse_s(lines) for _ in range(TURNS))))


def _verdict_rows(connection: Connection, jobs: Sequence[JobView]) -> tuple[int, list[bytes]]:
    """How many there are, and the stream that COPY makes of them."""
    wanted = {"jobs": [job.id for job in jobs], "days": [job.day for job in jobs], "most": MOST_ROWS}
    with connection.cursor() as cursor:
        with cursor.copy(VERDICTS, wanted) as copy:
            stream = [bytes(block) for block in copy]
        return cursor.rowcount, stream


def _copy_s(connection: Connection, stream: Sequence[bytes]) -> float:
    connection.execute("truncate yardstick")
    started = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy("copy yardstick from stdin (format binary)") as copy:
        for block in stream:
            copy.write(block)
    return time.perf_counter() - started


def _parse_s(lines: Sequence[bytes]) -> float:
    started = time.perf_counter()
    for line in lines:
        orjson.loads(line)
    return time.perf_counter() - started
