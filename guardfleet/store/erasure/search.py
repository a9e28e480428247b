"""Finding one person's texts: in the verdicts of finished shards, and inside the encrypted texts of all others.

There is no index by id or metadata, since every verdict would pay for it: a search reads the tenant's verdicts, a span at a time.

A shard that is not finished when its texts are read may be by the time the verdicts are: so the texts are read first, and a text is
found at least once wherever it is. It may be found twice.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from guardfleet.domain import ids
from guardfleet.domain.targets import Kind, Targets
from guardfleet.errors import ConfigurationError
from guardfleet.security.encryption import Keyring
from guardfleet.store.postgres.database import Database
from guardfleet.store.words import DONE_SHARD, ENDED_JOB, INGESTING_JOB

SPAN = 50_000  # texts that one statement looks at
JOBS_AT_ONCE = 500
BLOBS_AT_ONCE = 8
MATCH = """(not g.online and v.id = any(%(ids)s::text[]) or exists (
              select from unnest(%(keys)s::text[], %(values)s::text[]) s (key, value)
              where v.metadata -> s.key = s.value::jsonb))"""


@dataclass(frozen=True, slots=True)
class SearchedJob:
    """A job as a search needs it."""

    id: int
    public_id: uuid.UUID
    day: dt.date
    total: int
    is_ingesting: bool
    has_ended: bool
    is_held: bool  # as a whole
    is_kept: bool  # as a whole, or because it has a text that a hold covers
    is_online: bool  # a caller waited for it: the ids of its texts are numbers of ours, and mean no text to anybody
    input_file_id: uuid.UUID | None

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.JOB.of(self.public_id)


@dataclass(slots=True)
class Found:
    """Places of texts in a job, and refused lines; those of both that are `held`; and how many shards could not be decrypted."""

    job: SearchedJob
    seqs: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    lines: set[int] = field(default_factory=set)
    held_lines: set[int] = field(default_factory=set)
    unread: int = 0

    @property
    def n_held(self) -> int:
        """How many texts and refused lines are held."""
        return len(self.held) + len(self.held_lines)

    @property
    def is_met(self) -> bool:
        """Whether the job has any such text or line."""
        return bool(self.seqs or self.held or self.lines or self.held_lines)


JOBS = f"""select j.id, j.public_id, j.day, j.total, {INGESTING_JOB:j} as is_ingesting, {ENDED_JOB:j} as has_ended,
                  j.holds > 0 and exists (select from held_job x join legal_hold h on h.id = x.hold_id
                                          where x.job_id = j.id and h.kind = '{Kind.JOB}') as is_held,
                  j.holds > 0 as is_kept, j.online, j.input_file_id
           from job j where j.tenant_id = %(tenant)s"""


def groups(db: Database, tenant_id: int, *, after: int = 0, job_id: int | None = None) -> Iterator[list[SearchedJob]]:
    """Yield the tenant's jobs after one, or only one, by age: groups that one statement can search, or a big job alone."""
    group: list[SearchedJob] = []
    for job in _jobs(db, tenant_id, after, job_id):
        if group and (sum(one.total for one in group) + job.total > SPAN or len(group) >= JOBS_AT_ONCE):
            yield group
            group = []
        group.append(job)
    if group:
        yield group


def _jobs(db: Database, tenant_id: int, after: int, job_id: int | None) -> Iterator[SearchedJob]:
    while True:
        with db.session() as connection:
            rows = connection.execute(
                f"""{JOBS} and j.id > %(after)s and (%(job)s::int8 is null or j.id = %(job)s::int8)
                    order by j.id limit {JOBS_AT_ONCE}""",
                {"tenant": tenant_id, "after": after, "job": job_id},
            ).fetchall()
        yield from (SearchedJob(*row) for row in rows)
        if len(rows) < JOBS_AT_ONCE:
            return
        after = rows[-1].id


def some(db: Database, tenant_id: int, job_ids: Sequence[int]) -> list[SearchedJob]:
    """Return those of these jobs that exist."""
    with db.session() as connection:
        rows = connection.execute(
            f"{JOBS} and j.id = any(%(jobs)s::int8[]) order by j.id", {"tenant": tenant_id, "jobs": list(job_ids)}
        )
        return [SearchedJob(*row) for row in rows]


def of_files(db: Database, tenant_id: int, files: Sequence[uuid.UUID]) -> list[int]:
    """Return the jobs that were made of these uploaded files."""
    with db.session() as connection:
        return connection.scalars(
            "select id from job where tenant_id = %(tenant)s and input_file_id = any(%(files)s::uuid[])",
            {"tenant": tenant_id, "files": list(files)},
        )


def search(db: Database, keyring: Keyring, group: Sequence[SearchedJob], targets: Targets, held: Targets) -> list[Found]:
    """Return where the targets' texts are in these jobs; jobs without any are left out. `held`: what holds cover."""
    found = {job.id: Found(job) for job in group}
    if not len(targets):
        return []
    _in_blobs(db, keyring, found, targets, held)
    _in_verdicts(db, found, targets, held)
    _in_refused(db, found, targets, held)
    return [one for one in found.values() if one.is_met or one.unread]


def joined(several: Iterable[Sequence[Found]]) -> list[Found]:
    """Return what several searches of the same jobs found, once."""
    out: dict[int, Found] = {}
    for one in chain.from_iterable(several):
        other = out.setdefault(one.job.id, Found(one.job))
        for name in ("seqs", "held", "lines", "held_lines"):
            getattr(other, name).update(getattr(one, name))
        other.unread = max(other.unread, one.unread)
    return list(out.values())


def _in_blobs(db: Database, keyring: Keyring, found: dict[int, Found], targets: Targets, held: Targets) -> None:
    after = (0, -1)
    while True:
        with db.session() as connection:
            rows = connection.execute(
                f"""select s.job_id, s.shard_no, s.first_seq, p.blob, j.data_key from shard s join job j on j.id = s.job_id
                    join shard_payload p on p.job_id = s.job_id and p.shard_no = s.shard_no and p.day = s.day
                    where s.job_id = any(%(jobs)s::int8[]) and not {DONE_SHARD:s} and j.data_key is not null
                      and (s.job_id, s.first_seq) > (%(job)s, %(seq)s)
                    order by s.job_id, s.first_seq limit {BLOBS_AT_ONCE}""",
                {"jobs": list(found), "job": after[0], "seq": after[1]},
            ).fetchall()
        for row in rows:
            of_job = found[row.job_id]
            try:
                texts = keyring.decrypt_rows(row.data_key, row.blob, job_id=row.job_id, shard_no=row.shard_no)
            except ConfigurationError:  # the caller has checked the secret key, so it is the shard that is damaged
                of_job.unread += 1
                continue
            for seq, text in enumerate(texts, row.first_seq):
                row_id = None if of_job.job.is_online else text.id
                if targets.covers(row_id, text.metadata):
                    _put(of_job, seq, held, row_id, text.metadata)
        if len(rows) < BLOBS_AT_ONCE:
            return
        after = (rows[-1].job_id, rows[-1].first_seq)


def _in_verdicts(db: Database, found: dict[int, Found], targets: Targets, held: Targets) -> None:
    jobs = [one.job for one in found.values()]
    values = {
        "jobs": [job.id for job in jobs], "days": [job.day for job in jobs], "online": [job.is_online for job in jobs],
        **parameters(targets),
    }  # fmt: skip
    for start in range(0, max(job.total for job in jobs) or 1, SPAN):
        with db.session() as connection:
            rows = connection.execute(
                f"""select g.job_id, v.seq, case when not g.online then v.id end as id, v.metadata
                    from unnest(%(jobs)s::int8[], %(days)s::date[], %(online)s::bool[]) g (job_id, day, online)
                    cross join lateral (
                      select v.seq, v.id, v.metadata from verdict v
                      where v.job_id = g.job_id and v.day = g.day and v.seq >= %(start)s and v.seq < %(end)s and {MATCH}) v""",
                values | {"start": start, "end": start + SPAN},
            ).fetchall()
        for row in rows:
            _put(found[row.job_id], row.seq, held, row.id, row.metadata)


def _in_refused(db: Database, found: dict[int, Found], targets: Targets, held: Targets) -> None:
    """Look at refused lines too: they have no metadata, and an id if it could be read."""
    if not targets.ids:
        return
    with db.session() as connection:
        rows = connection.execute(
            "select job_id, line, row_id from rejection where job_id = any(%(jobs)s::int8[]) and row_id = any(%(ids)s::text[])",
            {"jobs": list(found), "ids": list(targets.ids)},
        ).fetchall()
    for row in rows:
        of_job = found[row.job_id]
        (of_job.held_lines if of_job.job.is_held or row.row_id in held.ids else of_job.lines).add(row.line)


def _put(found: Found, seq: int, held: Targets, row_id: str | None, metadata: Any) -> None:
    is_held = found.job.is_held or held.covers(row_id, metadata)
    (found.held if is_held else found.seqs).add(seq)


def parameters(targets: Targets) -> dict[str, Any]:
    """Return the parameters of MATCH."""
    keys, values = zip(*targets.subjects, strict=True) if targets.subjects else ((), ())
    return {"ids": list(targets.ids), "keys": list(keys), "values": list(values)}
