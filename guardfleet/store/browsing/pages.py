"""Pages of verdicts over all jobs of a tenant: the newest job first, the texts of each in the order in which they were committed.

Invariant: a call reads for a bounded time, however rare what is looked for, and says how far it came: going on from there finds
each verdict once.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, NamedTuple

from guardfleet.errors import AwayError
from guardfleet.store import models
from guardfleet.store.browsing.conditions import Conditions
from guardfleet.store.browsing.walking import END, Job, Stretch, stretches
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.verdicts import COLUMNS
from guardfleet.verdicts.encoding import StoredVerdict
from guardfleet.verdicts.wanted import Place, Wanted

MOST_PIECE = 2000  # jobs and shards
MOST_COUNTED = 2000  # jobs whose verdicts are counted, to say how many there are
PATIENCE_S = 5.0  # for a statement, once one has taken too long before anything was looked at
GROWTH = 8  # of a piece, from one to the next


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a call may look, how long one statement of it should and may take, and how many rows the first one reads."""

    look_s: float = 0.08
    piece_s: float = 0.02
    statement_s: float = 0.15
    first_rows: int = 4000
    rows: int = END  # that a call reads at most, and a piece more


BUDGET = Budget()


class Hit(NamedTuple):
    """A verdict that was found, and where."""

    job: Job
    first_seq: int  # of its shard
    row: StoredVerdict
    looked: int  # how many verdicts the look had come by then, this one included

    @property
    def place(self) -> Place:
        """The place of this verdict."""
        return Place(self.job.public_id, self.row.ord, self.row.seq, self.looked)


@dataclass(slots=True)
class Found:
    """The verdicts that a look found, and how far it came: None if it came to the end."""

    hits: list[Hit] = field(default_factory=list)
    reached: Place | None = None
    is_full: bool = False
    looked: int = 0  # verdicts, with those of the pages before


def page(db: Database, tenant_id: int, wanted: Wanted, after: Place | None = None, *, limit: int, budget: Budget = BUDGET) -> Found:
    """Return up to `limit` verdicts after a place. A page that is neither full nor the end has come as far as it was allowed.

    Raises NotFoundError for a job that the tenant does not have, RejectedError for a place of one that is gone.
    """
    try:
        return _looked(db, tenant_id, wanted, after, limit, budget)
    except AwayError:  # a busy server: rather a late answer that comes a little further than none
        return _looked(db, tenant_id, wanted, after, limit, replace(budget, look_s=0, statement_s=PATIENCE_S, first_rows=1))


def _looked(db: Database, tenant_id: int, wanted: Wanted, after: Place | None, limit: int, budget: Budget) -> Found:
    look = _Look(limit, budget, Found(reached=after, looked=after.looked if after else 0))
    try:
        with db.begin() as connection:
            connection.execute("select set_config('statement_timeout', %(ms)s, true)", {"ms": str(int(1000 * budget.statement_s))})
            conditions = Conditions.of(wanted, models.known(db, connection, [-1]) if wanted.detector else {})
            look.along(connection, conditions, stretches(connection, tenant_id, wanted, conditions, after))
    except AwayError:
        if look.found.reached == after:
            raise
    return look.found


def total(db: Database, tenant_id: int, job: uuid.UUID | None) -> tuple[int, bool]:
    """Return how many verdicts there are to look at, and whether that is all: of a tenant with very many jobs it is not."""
    of_one = "" if job is None else "and public_id = %(job)s"
    with db.session() as connection:
        row: Any = connection.execute(
            f"""select coalesce(sum(done), 0)::int8 as done, count(*) as jobs from (
                  select done from job where tenant_id = %(tenant)s {of_one} order by id desc limit {MOST_COUNTED}) x""",
            {"tenant": tenant_id, "job": job},
        ).fetchone()
    return row.done, row.jobs < MOST_COUNTED


class _Look:
    """One look along stretches, with what it found so far."""

    def __init__(self, limit: int, budget: Budget, found: Found) -> None:
        self.found = found
        self._limit, self._budget = limit, budget
        self._until, self._rows_left, self._piece_rows = time.monotonic() + budget.look_s, budget.rows, budget.first_rows

    def along(self, connection: Connection, conditions: Conditions, stretches: Iterator[Stretch]) -> None:
        """Look until the page is full, the end is reached, or it takes too long; at least one piece."""
        before = self.found.reached
        piece: list[Stretch] = []
        rows = 0
        for stretch in stretches:
            if piece and stretch.job.day != piece[0].job.day:
                self._take(connection, conditions, piece, rows)
                if self.found.is_full:
                    return
                piece, rows = [], 0
            piece.append(stretch)
            rows += stretch.left if stretch.is_wanted else 0
            is_late = self._is_late()
            if rows < self._piece_rows and len(piece) < MOST_PIECE and not is_late:
                continue
            if is_late and self.found.reached != before:
                return
            self._take(connection, conditions, piece, rows)
            if self.found.is_full or self._is_late():
                return
            piece, rows = [], 0
        if piece:
            self._take(connection, conditions, piece, rows)
        if not self.found.is_full:
            self.found.reached = None

    def _is_late(self) -> bool:
        return time.monotonic() > self._until or self._rows_left <= 0

    def _take(self, connection: Connection, conditions: Conditions, piece: Sequence[Stretch], rows: int) -> None:
        began = time.monotonic()
        limit = self._limit - len(self.found.hits)
        hits = _hits(connection, conditions, piece, self.found.looked, limit + 1) if rows else []
        self._rows_left -= rows
        self.found.hits += hits[:limit]
        if len(hits) > limit:
            self.found.is_full = True
            self.found.reached = self.found.hits[-1].place
            self.found.looked = self.found.hits[-1].looked
            return
        last = piece[-1]
        self.found.looked += sum(one.left for one in piece)
        self.found.reached = Place(last.job.public_id, last.ord, last.first_seq + last.n - 1, self.found.looked)
        faster = self._budget.piece_s / max(time.monotonic() - began, 1e-6)
        self._piece_rows = max(1, int(rows * min(faster, GROWTH))) if rows else self._piece_rows


def _hits(connection: Connection, conditions: Conditions, piece: Sequence[Stretch], looked: int, limit: int) -> list[Hit]:
    among = [one for one in piece if one.is_wanted]
    rows = connection.execute(
        f"""select s.job_id, s.first_seq, s.ord, {COLUMNS}
            from unnest(%(jobs)s::int8[], %(ords)s::int4[], %(firsts)s::int4[], %(ns)s::int4[], %(afters)s::int4[])
              with ordinality s (job_id, ord, first_seq, n, after, place)
            {conditions.decided}
            cross join lateral (
              select * from verdict v
              where v.job_id = s.job_id and v.day = %(day)s and v.seq > s.after and v.seq < s.first_seq + s.n
                and {" and ".join(conditions.of_verdicts)}
              order by v.seq limit %(limit)s) v
            order by s.place, v.seq limit %(limit)s""",
        conditions.values
        | {
            "day": piece[0].job.day, "jobs": [one.job.id for one in among], "ords": [one.ord for one in among],
            "firsts": [one.first_seq for one in among], "ns": [one.n for one in among],
            "afters": [one.seen for one in among], "limit": limit,
        },
    ).fetchall()  # fmt: skip
    before = dict(
        zip(((one.job.id, one.ord) for one in piece), accumulate((one.left for one in piece), initial=looked), strict=False)
    )
    seen = {(one.job.id, one.ord): (one.job, one.seen) for one in among}
    hits = []
    for job_id, first_seq, *values in rows:
        row = StoredVerdict._make(values)
        job, last = seen[job_id, row.ord]
        hits.append(Hit(job, first_seq, row, before[job_id, row.ord] + row.seq - last))
    return hits
